"""Damage: one file that a work reads is changed; the work must repair it, refuse it in one line, or not need it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from forks import run
from work import Work, prepare


def _flip(content: bytes, chance: random.Random) -> bytes:
    if not content:
        return b"\x00"
    place = chance.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << chance.randrange(8))]) + content[place + 1 :]


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) or 1)]


def _blank(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(content) or 1)
    return content[:place] + bytes(min(512, len(content) - place)) + content[place + 512 :]


def _double(content: bytes, chance: random.Random) -> bytes:
    return content + content[-min(len(content), 300) :]


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "a flipped bit": _flip,
    "cut off": _cut,
    "a block of zeros": _blank,
    "a doubled tail": _double,
    "empty": lambda content, chance: b"",
    "text": lambda content, chance: b"this is not the file that you look for\n",
    "a list": lambda content, chance: b"[]\n",
    "null": lambda content, chance: b"null",
    "not UTF-8": lambda content, chance: b"\xff\xfe{" + content[:50],
    "a picture": lambda content, chance: b"\x89PNG\r\n\x1a\n" + content[:200],
}


def trial(work: Work, digest: str, base: Path, folder: Path, chance: random.Random) -> tuple[str, str, str]:
    """Damage a file; returns which and how, what became of it, and what was wrong ("" where the promise is kept)."""
    prepare(work, base, folder)
    files = sorted(path for pattern in work.reads for path in folder.glob(pattern) if path.name != "grid.png")
    path = chance.choice(files)
    kind = chance.choice(list(DAMAGES))
    path.write_bytes(DAMAGES[kind](path.read_bytes(), chance))
    what = f"{path.relative_to(folder)}: {kind}"
    outcome = run(list(work.command), folder)
    if outcome.crashed:
        return what, "traceback", f"traceback: {outcome.err.strip().splitlines()[-1]}"
    if outcome.code == 0:
        found = work.digest(folder)
        return what, "same result", "" if found == digest else "another result, in silence"
    line = outcome.refusal
    if not line or len(line) > 600:
        return what, "refused", f"exit code {outcome.code} without a line that says why: {outcome.err[-300:]!r}"
    if "weights_only" in outcome.err:
        return what, "refused", f"advice that is not ours: {line}"
    return what, "refused", ""
