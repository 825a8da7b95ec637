"""Rehearsing a suite: every command of its plan, unchanged but for sizes and places, on made-up data, in minutes.

Whatever would stop it after days, but for memory, time and the content of the data, stops it here.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

from harness.suites.catalogue import REHEARSED, suite
from harness.suites.execution import Workers
from harness.suites.plan import Command, Plan
from harness.suites.reproduction import StoppedError, reproduce
from harness.suites.smallest import IMAGES
from harness.suites.warm import WarmWorkers

CARD_GIB = 0.02
"""Of a card that is as small as the models: clips recompute their activations and come in parts, images do not."""


def rehearse(plan: Plan, jobs: int = 1) -> list[str]:
    """Carry out a plan at its smallest, in a new folder below its runs'; returns the failures, each in a line.

    The folder is removed unless something failed: each failure names its log. Raises ValueError for a suite that is
    small already, and for what would not be rehearsed; StoppedError after a signal.
    """
    name = next((small for small, whole in REHEARSED.items() if whole == plan.suite.name), None)
    if name is None:
        raise ValueError(f"suite {plan.suite.name} is small already; --rehearse is of {', '.join(REHEARSED.values())}")
    if plan.names:
        raise ValueError("--rehearse is of a whole suite, or of parts by --only; not of single runs")
    if plan.data or plan.references or plan.vae:
        raise ValueError("--rehearse makes its own data and networks: leave out --data, --ref and --vae")
    plan.runs.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="rehearsal-", dir=plan.runs))
    failures: list[str] = []
    try:
        small = at_smallest(plan, name, folder)
        failures = reproduce(small, jobs, Workers if small.launch.world > 1 else WarmWorkers)
    except StoppedError:
        raise StoppedError("stopped; of a rehearsal nothing is kept") from None
    finally:
        if not failures:
            rmtree(folder, ignore_errors=True)
    return failures


def at_smallest(plan: Plan, name: str, folder: Path) -> Plan:
    """A plan of the small suite of this name in a folder, with data and networks that are made there."""
    from harness.suites.stand_ins import StandIns

    made = StandIns(folder / "inputs").write(int(IMAGES["resolution"]))
    return replace(
        plan, suite=suite(name), runs=folder / "runs", results=folder / "results", card_gib=CARD_GIB,
        data=made.data, references=made.references, vae=made.vae, extraction=made.extraction,
    )  # fmt: skip


def commands(plan: Plan) -> list[Command]:
    """All that a plan runs, in order."""
    of_runs = [task.command for work in plan.work() for task in plan.tasks(work)]
    return [*of_runs, *map(plan.draw, plan.suite.shown), *plan.report()]
