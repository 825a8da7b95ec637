"""Kills: a work is ended at a random moment, once or twice, and then carried out to its end by the same command."""

from __future__ import annotations

import random
from pathlib import Path

from forks import run
from work import Work, prepare


def trial(work: Work, digest: str, seconds: float, base: Path, folder: Path, chance: random.Random) -> str:
    """Kill and continue; returns "" where the promise is kept, else what was wrong."""
    prepare(work, base, folder)
    for _ in range(1 + (chance.random() < 0.2)):
        run(list(work.command), folder, kill_after_s=chance.uniform(0, 1.05 * seconds))
    outcome = run(list(work.command), folder)
    if outcome.code != 0:
        return f"it did not continue: exit code {outcome.code}, {outcome.err.strip()[-300:]}"
    found = work.digest(folder)
    return "" if found == digest else "it ended with another result"
