"""Whether a file of weights is whole: a digest of the content in ours, the archive's own checksums in others'.

torch.load checks neither, so that a flipped bit is another weight in silence. Our files end with a line that holds the
sha256 of all before it; readers of zip archives, torch's too, look for the archive's end before such a line.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import BinaryIO

MARK = b"\nsha256 of the content above: "
TRAILER = len(MARK) + 64 + 1
PIECE = 1 << 22


class Sealed:
    """A file for writing whose content is hashed on its way; `seal` ends it with the digest."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, content: bytes | memoryview) -> int:
        self.digest.update(content)
        return self.file.write(content)

    def flush(self) -> None:
        self.file.flush()

    def seal(self) -> None:
        self.file.write(MARK + self.digest.hexdigest().encode() + b"\n")


def verified(path: Path) -> str:
    """The sha256 of a file of weights that is whole. Raises ValueError, naming it, when it is damaged.

    A file that holds no digest is verified by the checksums of its zip archive; one that is no archive has none, and
    what reads it must say whether it can.
    """
    try:
        with open(path, "rb") as file:
            found, stated, is_archive = _digests(file)
        intact = stated == found[0] if stated else not is_archive or _archive_is_intact(path)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    if not intact:
        raise ValueError(f"{path} is damaged: its content does not have its checksum")
    return found[1]


def _digests(file: BinaryIO) -> tuple[tuple[str, str], str | None, bool]:
    """sha256 of the content and of the whole file, the digest that it states, if any, and whether it is an archive."""
    is_archive = file.read(2) == b"PK"
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - TRAILER))
    trailer = file.read()
    stated = trailer[len(MARK) : -1].decode(errors="replace") if trailer.startswith(MARK) else None
    file.seek(0)
    total, left = hashlib.sha256(), size - (TRAILER if stated else 0)
    while left > 0 and (piece := file.read(min(PIECE, left))):
        total.update(piece)
        left -= len(piece)
    of_content = total.hexdigest()
    if stated:
        total.update(trailer)
    return (of_content, total.hexdigest()), stated, is_archive


def _archive_is_intact(path: Path) -> bool:
    """Whether every member has its checksum. torch stores members as they are: none may unpack to more."""
    try:
        with zipfile.ZipFile(path) as archive:
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
            return stored and archive.testzip() is None
    except Exception:  # a damaged archive can raise anything from inside its reader
        return False
