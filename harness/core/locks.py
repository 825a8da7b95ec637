"""One process a directory: a lock that lasts as long as the work; the kernel takes it back when its holder dies."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.core.provenance import command_line

NAME = ".lock"
LOOK_EVERY_S = 0.2
"""Between tries of a process that waits: one that slept in the kernel could not be stopped."""


class LockedError(OSError):
    """Another process works in the directory."""


@contextmanager
def locked(directory: Path, wait: bool | Callable[[], bool] = False) -> Iterator[int]:
    """The right to write into a directory, which is made where it is missing; gives the lock's file descriptor.

    A child process that inherits the descriptor keeps the lock when its parent dies. With `wait`, or as long as
    `wait()` is true, a second process says on stderr who holds the directory and waits; otherwise it raises LockedError
    that says so. Raises OSError where the directory cannot be made.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        said = False
        while not _taken(descriptor):
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "another process"
            if not (wait() if callable(wait) else wait):
                raise LockedError(f"{directory} is in use by {holder}")
            if not said:
                print(f"waiting for {holder}, which works in {directory}", file=sys.stderr)
            said = True
            time.sleep(LOOK_EVERY_S)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}: {command_line()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    """Take the lock, if it is free."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
