"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any


def write_atomically(path: Path, write: Callable[[Any], object]) -> None:
    """Fill a temporary neighbour through `write(file)`, sync it, rename it. What was at `path` survives any failure.

    Of several writers of one path, one is at work at a time, and the last one's content stays. Raises OSError, naming
    `path`, where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with _held(temporary) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[IO[bytes]]:
    """A new, empty file at `path` that no other writer has open; it is removed if an error leaves it there."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "wb")
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, path):  # the writer before has renamed or removed it
                continue
            file.truncate()
            try:
                yield file
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            return
        finally:
            file.close()


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def write_bytes(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Raises ValueError for a number that is not finite."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object that a file holds. Raises ValueError, naming the file, for anything else."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: it is not JSON ({(str(error).splitlines() or [''])[0]})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: it holds a {type(value).__name__}, not an object")
    return value


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
