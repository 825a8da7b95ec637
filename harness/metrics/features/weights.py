"""The weight files that metrics rest on: where each comes from, its sha256 and licence. Every load is verified."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import urllib.request
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from harness.core.files import write_atomically

VARIABLE = "DIM_VS_DIT_WEIGHTS"


@dataclass(frozen=True)
class WeightFile:
    """A published file: `sha256` is of its content."""

    name: str
    file: str
    url: str
    sha256: str
    licence: str


@dataclass(frozen=True)
class Weights:
    """Verified content: the bytes that were hashed are the bytes that are loaded. `published`: hash as registered."""

    content: bytes
    sha256: str
    published: bool

    def open(self) -> io.BytesIO:
        return io.BytesIO(self.content)


REGISTRY = {
    file.name: file
    for file in (
        WeightFile(
            "inception",
            "weights-inception-2015-12-05-6726825d.pth",
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            "Apache-2.0",
        ),
        WeightFile(
            "i3d",
            "i3d_torchscript.pt",
            "https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1",
            "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
            "not stated by StyleGAN-V; the original I3D is Apache-2.0",
        ),
    )
}


def weights_directory(given: Path | None = None) -> Path:
    """The directory asked for, else that of the environment variable, else `dim-vs-dit` in the user's cache."""
    if given is not None:
        return given.expanduser()
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dim-vs-dit"


def load_weights(
    name: str, *, path: Path | None = None, directory: Path | None = None, offline: bool = False
) -> Weights:
    """The bytes of a registered file, verified; downloaded on first use unless `offline`.

    A file given by `path` may be any: its hash is recorded, and `published` says whether it is the registered one.
    Raises ValueError naming the file and where to put it when it is missing, or when its hash is not the registered.
    """
    entry = REGISTRY[name]
    if path is not None:
        if not path.is_file():
            raise ValueError(f"no {name} weights at {path}")
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return Weights(content, digest, digest == entry.sha256)
    place = weights_directory(directory) / entry.file
    if not place.is_file():
        _download(entry, place, offline)
    content = place.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != entry.sha256:
        raise ValueError(f"{place} is not the published {name} file: its sha256 is {digest}, not {entry.sha256}")
    return Weights(content, digest, True)


def cached(place: Path, make: Callable[[], bytes]) -> bytes:
    """Weights that are made on the spot: those at `place` if their hash stands beside them, else made and kept."""
    beside = place.with_suffix(".sha256")
    try:
        content, expected = place.read_bytes(), beside.read_text().strip()
        if hashlib.sha256(content).hexdigest() == expected:
            return content
        warnings.warn(f"{place} is damaged: its hash is not the recorded one; training anew", stacklevel=3)
    except OSError:
        pass
    content = make()
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(place, lambda file: file.write(content))
    write_atomically(beside, lambda file: file.write(f"{hashlib.sha256(content).hexdigest()}\n".encode()))
    return content


def _download(entry: WeightFile, place: Path, offline: bool) -> None:
    remedy = f"put {entry.url} at {place} (or name its folder by --weights-dir or {VARIABLE})"
    if offline:
        raise ValueError(f"the {entry.name} weights are missing and --offline forbids a download: {remedy}")
    print(f"downloading {entry.url} ({entry.licence}) to {place}", file=sys.stderr)
    content = io.BytesIO()
    try:
        with urllib.request.urlopen(entry.url, timeout=60) as reply:
            size = int(reply.headers.get("Content-Length") or 0) or None
            with tqdm(total=size, unit="B", unit_scale=True, disable=None) as bar:
                while piece := reply.read(1 << 20):
                    content.write(piece)
                    bar.update(len(piece))
    except OSError as error:
        raise ValueError(f"cannot download the {entry.name} weights ({error}): {remedy}") from error
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    if digest != entry.sha256:
        raise ValueError(f"{entry.url} gave a file of sha256 {digest}, not {entry.sha256}; nothing was kept")
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(place, lambda file: file.write(content.getvalue()))
