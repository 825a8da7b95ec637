"""A request to stop: SIGTERM, SIGUSR1 (what schedulers send before a time limit, where so configured), and SIGINT."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STOP = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """SIGTERM and SIGUSR1 raise KeyboardInterrupt, as Ctrl-C does, where nothing else handles them.

    Only the main thread of a process can handle signals: in any other, nothing changes.
    """
    main = threading.current_thread() is threading.main_thread()
    default = [number for number in STOP[:2] if main and signal.getsignal(number) == signal.SIG_DFL]
    for number in default:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in default:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def stop_on_signals() -> Iterator[list[int]]:
    """A list that SIGTERM, SIGUSR1 and SIGINT append to.

    A second SIGINT ends the process as it always would. The others may come again and again: Slurm signals every
    process of a job, torchrun passes the signal on, and what is being written is to be finished.
    """
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        received.append(number)
        if number == signal.SIGINT:
            signal.signal(number, previous[number])

    previous = {int(number): signal.signal(number, note) for number in STOP}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
