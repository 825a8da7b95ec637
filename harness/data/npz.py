"""Arrays of an .npz read in place: ADM's sample sets are larger than memory, so stored members are mapped.

What a file declares is checked before it is believed: the shape in a member's header against the size in the zip's
directory, and the size of a compressed member against what compression can have saved.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

_LOCAL_HEADER = 30  # bytes of a zip member's local header before its name
_ENCRYPTED = 0x1  # flag bit of a zip member
PLAUSIBLE_RATIO = 200
"""How many times larger than its compressed form an array may be: pictures are at most ten times, deflate can 1,032."""
UNQUESTIONED_BYTES = 64 << 20
"""What a compressed array may hold whatever its ratio: sets of a single colour compress without limit."""
LOADED_BYTES = 64 << 20
"""Larger arrays are mapped: the moments of a reference and the labels of a set are smaller, its pictures larger."""

Header = tuple[tuple[int, ...], bool, np.dtype[Any]]
"""Shape, whether in Fortran's order, and type of an array."""


class Npz:
    """The named arrays of one file. Raises ValueError, naming the file, when it is not a whole .npz."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._archive() as archive:
            self.members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}

    @contextmanager
    def _archive(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                yield archive
        except FileNotFoundError as error:
            raise ValueError(f"no such file: {self.path}") from error
        except (zipfile.BadZipFile, zlib.error, LZMAError, EOFError) as error:
            raise ValueError(f"{self.path} is not a whole .npz file ({error}): truncated or damaged") from error
        except NotImplementedError as error:  # of a compression method, or of a part of the zip format
            raise ValueError(f"{self.path}: {error}; save it with numpy.savez") from error

    @contextmanager
    def _member(self, name: str) -> Iterator[IO[bytes]]:
        """One member's content, uncompressed on the way."""
        info = self.members[name]
        if info.flag_bits & _ENCRYPTED:
            raise ValueError(f"{self.path}: {name} is encrypted; save it without a password")
        with self._archive() as archive, archive.open(info) as member:
            yield member

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def require(self, name: str, purpose: str) -> None:
        """Raise ValueError when there is no such array, with what it is for and what there is instead."""
        if name not in self:
            held = ", ".join(self.members) or "nothing"
            raise ValueError(f"{self.path} has no {name}, which {purpose}; it holds {held}")

    def array(self, name: str) -> NDArray[Any]:
        """A read-only array: mapped when the member is stored and large, else loaded whole, its checksum verified.

        Of a mapped array `digest` verifies the checksum. Raises ValueError, naming file and member, for what is
        damaged, encrypted, implausibly large, or no array.
        """
        info = self.members[name]
        try:
            with self._member(name) as member:
                shape, fortran, dtype = _header(member)
                count = math.prod(shape)
                declared, held = count * dtype.itemsize, info.file_size - member.tell()
                if declared != held:
                    raise ValueError(f"its header declares {declared:,} bytes of shape {shape}, and it has {held:,}")
                packed = min(info.compress_size, self.path.stat().st_size)
                if declared > max(UNQUESTIONED_BYTES, PLAUSIBLE_RATIO * packed):
                    raise ValueError(
                        f"{packed:,} bytes would grow to {declared:,}, as no data does; "
                        "if they are meant to, save it with numpy.savez, which does not compress"
                    )
                order: Literal["F", "C"] = "F" if fortran else "C"
                if info.compress_type == zipfile.ZIP_STORED and declared > LOADED_BYTES:
                    start = self._offset(info) + member.tell()
                    mapped: NDArray[Any] = np.memmap(self.path, dtype, "r", start, shape, order)
                    return mapped
                content = member.read(declared)
        except (ValueError, OSError, OverflowError) as error:
            reason = str(error).removeprefix(f"{self.path}: ")
            raise ValueError(f"{self.path}: cannot read {name}: {reason}") from error
        return np.frombuffer(content, dtype).reshape(shape, order=order)

    def _offset(self, info: zipfile.ZipInfo) -> int:
        """Where a stored member's content begins in the file."""
        with open(self.path, "rb") as file:
            file.seek(info.header_offset)
            header = file.read(_LOCAL_HEADER)
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        return info.header_offset + _LOCAL_HEADER + lengths

    def digest(self, *names: str) -> str:
        """sha256 of the content of these arrays; every byte is checked against the zip's own checksum on the way."""
        total = hashlib.sha256()
        for name in names:
            with self._member(name) as member:
                while piece := member.read(1 << 22):
                    total.update(piece)
        return total.hexdigest()


def _header(file: IO[bytes]) -> Header:
    """Raises ValueError for what is no array of numbers or text."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read(file)
    except Exception as error:  # numpy's parser of a damaged header can raise anything at all
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"its header is damaged: {reason}") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects, not numbers")
    if any(size < 0 for size in shape):
        raise ValueError(f"its header declares the shape {shape}")
    return shape, fortran, dtype
