"""The results store: append-only JSON lines, one record a line, each with a checksum of its own.

Schema history (every column is explained in results/README.md):
  1  first; a line ends with `crc32`, the checksum of the line without it.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from harness.core import paths
from harness.core.records import Record, ScoreRecord, of_earlier_weights, of_fields

if TYPE_CHECKING:
    import pandas as pd

CHECKSUM = re.compile(rb', "crc32": "([0-9a-f]{8})"}\s*$')


def append(path: Path, records: Iterable[Record], *, repeat: bool = True) -> int:
    """Add records to a file, each as one line; returns how many were written.

    Safe against a second writer (the file is locked) and against a writer killed in mid-line (the torn line is ended
    before the next begins). With `repeat=False` a record that the file already holds is not written again: for counts,
    which do not vary. Raises OSError, naming the file, when it cannot be written, and ValueError for a value that is
    not finite; the file then holds what it held before.
    """
    records = list(records)
    if not records:
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        known = set() if repeat else {record.identity() for record in _numbered(file, path).values()}
        new = [record for record in records if record.identity() not in known]
        if new:
            text = b"".join(_line(record) for record in new)
            end = file.seek(0, os.SEEK_END)
            if end and not _ends_with_newline(file):
                text = b"\n" + text
            try:
                rest = memoryview(text)
                while rest:  # not through the buffer, which would write its rest again when the file is closed
                    rest = rest[os.write(file.fileno(), rest) :]
                os.fsync(file.fileno())
            except OSError as error:
                os.ftruncate(file.fileno(), end)
                raise OSError(error.errno, error.strerror, str(path)) from error
    return len(new)


def load(*places: Path) -> list[Record]:
    """All records of these files, or of every *.jsonl of these folders (default: the project's own), in order.

    Each is of its own kind. Of each file as `numbered`.
    """
    records: list[Record] = []
    for place in places or (paths.PROJECT / "measurements",):
        for path in sorted(place.glob("*.jsonl")) if place.is_dir() else [place]:
            records += numbered(path).values()
    return records


def numbered(path: Path) -> dict[int, Record]:
    """The records of one file by the number of their line, from 1.

    A line that is no valid record of this schema is skipped, and named in a warning. Scores of a checkpoint are left
    out if the same file has later ones of that training from another: the run was trained anew.
    """
    with path.open("rb") as file:
        records = _numbered(file, path)
    earlier = of_earlier_weights(records.values())
    return {
        number: record
        for number, record in records.items()
        if not (isinstance(record, ScoreRecord) and record.weights_sha256 in earlier)
    }


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """Records as a data frame, a row each; the fields of the question are columns of their own."""
    import pandas as pd

    return pd.DataFrame([record.row() for record in records])


def _numbered(file: IO[bytes], path: Path) -> dict[int, Record]:
    file.seek(0)
    records = {}
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(_verified(line))
            if not isinstance(fields, dict):
                raise ValueError(f"it is a {type(fields).__name__}")
            records[number] = of_fields(fields)
        except (ValueError, TypeError, RecursionError) as error:
            reason = "it is not whole" if isinstance(error, json.JSONDecodeError) else str(error).splitlines()[0]
            warnings.warn(f"{path}:{number} is not a valid record ({reason}); skipped", stacklevel=4)
    return records


def _line(record: Record) -> bytes:
    """A record as it stands in a file, its checksum last."""
    text = json.dumps(dataclasses.asdict(record), ensure_ascii=False, allow_nan=False).encode()
    return text[:-1] + b', "crc32": "%08x"}\n' % zlib.crc32(text)


def _verified(line: bytes) -> bytes:
    """A line without its checksum. Raises ValueError where it has none, and where the two do not agree."""
    match = CHECKSUM.search(line)
    if match is None:
        json.loads(line)  # what is not whole is named so
        raise ValueError("its checksum is damaged" if b"crc32" in line else "it has no checksum")
    text = line[: match.start()] + b"}"
    if zlib.crc32(text) != int(match[1], 16):
        raise ValueError("its checksum does not agree: the line is damaged")
    return text


def _ends_with_newline(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
