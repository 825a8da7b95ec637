"""Arrays of an .npz read in place: ADM's sample sets are larger than memory, so stored members are mapped."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_LOCAL_HEADER = 30  # bytes of a zip member's local header before its name


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
        except (zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"{self.path} is not a whole .npz file ({error}): truncated or damaged") from error

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def require(self, name: str, purpose: str) -> None:
        """Raise ValueError when there is no such array, saying what it was wanted for and what there is."""
        if name not in self:
            held = ", ".join(self.members) or "nothing"
            raise ValueError(f"{self.path} has no {name}, which {purpose}; it holds {held}")

    def array(self, name: str) -> NDArray:
        """A read-only array: mapped when the member is stored in C order, loaded whole when it is compressed."""
        info = self.members[name]
        try:
            if info.compress_type != zipfile.ZIP_STORED:
                with self._archive() as archive, archive.open(info) as member:
                    return np.lib.format.read_array(io.BytesIO(member.read()), allow_pickle=False)
            with open(self.path, "rb") as file:
                file.seek(info.header_offset)
                header = file.read(_LOCAL_HEADER)
                file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), 1)
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, fortran, dtype = read(file)
                if dtype.hasobject:
                    raise ValueError("it holds Python objects, not numbers")
                if not shape or 0 in shape:
                    return np.fromfile(file, dtype, int(np.prod(shape))).reshape(shape)
                return np.memmap(self.path, dtype, "r", file.tell(), shape, "F" if fortran else "C")
        except (ValueError, OSError) as error:
            raise ValueError(f"{self.path}: cannot read {name}: {error}") from error

    def digest(self, *names: str) -> str:
        """sha256 of the content of these arrays; every byte is checked against the zip's own checksum on the way."""
        total = hashlib.sha256()
        for name in names:
            with self._archive() as archive, archive.open(self.members[name]) as member:
                while piece := member.read(1 << 22):
                    total.update(piece)
        return total.hexdigest()
