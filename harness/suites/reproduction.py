"""Reproducing a suite: train what is missing, score it, make its tables and figures."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.core.locks import LockedError
from harness.core.signals import STOP
from harness.suites.execution import Workers, carry_out, finish
from harness.suites.launch import cores, first_node
from harness.suites.plan import REPORT, SCORE, TRAIN, Plan
from harness.suites.slurm import in_job


class StoppedError(Exception):
    """The work was stopped by a signal; the same call continues it."""


def reproduce(plan: Plan, jobs: int = 1, kind: type[Workers] = Workers) -> list[str]:
    """Train and score what no record answers yet, `jobs` runs at a time, then make the tables and figures.

    `kind` are the workers that carry commands out.
    Returns the failures, each in a line. Where it is stopped (SIGTERM, SIGUSR1, SIGINT) or killed, the same call
    continues. Raises StoppedError after a signal, OSError where the plan's folders cannot be written, ValueError for
    several nodes outside of a Slurm job, and, before anything begins, for what some command would stop at.
    """
    plan.launch.command()
    if not in_job():  # for which it was done when it was submitted
        from harness.suites.preflight import require_inputs  # it imports numpy

        require_inputs(plan)
    workers = kind(plan.launch, max(1, cores() // (jobs * plan.launch.processes)))
    failures: list[str] = []
    with _on_signals(workers.stop):
        try:
            if {TRAIN, SCORE} & set(plan.stages):
                failures += carry_out(plan, workers, jobs)
            if REPORT in plan.stages and first_node():
                failures += finish(plan.renewed(), workers)
        except LockedError:  # whoever is stopped waits for nobody
            if not workers.stopped.is_set():
                raise
    if workers.stopped.is_set():
        raise StoppedError("stopped; the same command continues")
    return failures


@contextmanager
def _on_signals(handler: Callable[..., None]) -> Iterator[None]:
    """Call a handler on the signals that request a stop; only the main thread can set one."""
    numbers = STOP if threading.current_thread() is threading.main_thread() else ()
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
