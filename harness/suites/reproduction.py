"""Reproducing a suite: train what is missing, score it, make its tables and figures."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.suites.execution import Workers, carry_out, finish
from harness.suites.plan import Plan


class StoppedError(Exception):
    """The work was stopped by a signal; the same call continues it."""


def reproduce(plan: Plan, jobs: int = 1) -> list[str]:
    """Train and score what no record answers yet, `jobs` runs at a time, then make the tables and figures.

    Returns the failures, each in a line. Where it is stopped (SIGTERM, SIGINT) or killed, the same call continues.
    Raises StoppedError after a signal, and OSError where the plan's folders cannot be written.
    """
    workers = Workers(plan.processes, max(1, (os.cpu_count() or 1) // (jobs * plan.processes)))
    with _on_signals(workers.stop):
        failures = carry_out(plan, workers, jobs)
        failures += finish(plan.renewed(), workers)
    if workers.stopped.is_set():
        raise StoppedError("stopped; the same command continues")
    return failures


@contextmanager
def _on_signals(handler: Callable[..., None]) -> Iterator[None]:
    """Call a handler on SIGTERM and SIGINT; only the main thread can set one."""
    numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
