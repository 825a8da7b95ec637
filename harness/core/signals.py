"""A request to stop, as SIGTERM and SIGINT make it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_on_signals() -> Iterator[list[int]]:
    """A list that SIGTERM and SIGINT append to. A second one of a kind ends the process as it always would."""
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    numbers: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
