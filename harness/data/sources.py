"""Where images come from: an array, an ADM .npz, a folder, or a data set by name; uint8, in a fixed order, by index.

Letters: N images, H height, W width, C channels (1 or 3); clips (harness.data.clips) have T frames before H.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.core.files import sha256
from harness.data import NAMED, fashion_mnist, is_named
from harness.data.fashion_mnist import FashionMNIST
from harness.data.images import EXTENSIONS, centre_crop, open_rgb
from harness.data.npz import Npz
from harness.data.registry import CLIPS, IMAGES

CONTACT_SHEET = "grid.png"  # which harness.sample puts beside its samples


class Source(Protocol):
    """`read` gives uint8 (n, [T,] H, W, C) of the items [start, stop). `count` is None where there is no end.

    `identity` fixes every pixel: features of two sources with one identity are interchangeable. `labels` are the
    classes that items were drawn for, one each, or None. A source that draws its items may also have `origin` and
    `seed`, which scores record: what the items follow from.
    """

    @property
    def name(self) -> str: ...
    @property
    def count(self) -> int | None: ...
    @property
    def labels(self) -> NDArray[Any] | None: ...
    @property
    def identity(self) -> dict[str, object]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    def read(self, start: int, stop: int) -> NDArray[np.uint8]: ...


class ArraySource:
    """Images or clips of one array, in memory or mapped, with the classes that they were drawn for, if known.

    `identity` is of the content where none is given. Raises ValueError for what is not uint8 images, and for labels
    that are not one an item.
    """

    def __init__(
        self,
        name: str,
        array: NDArray[Any],
        identity: Mapping[str, object] | None = None,
        labels: NDArray[Any] | None = None,
    ) -> None:
        if array.dtype != np.uint8:
            raise ValueError(f"{name} holds {array.dtype} values; images must be uint8, 0 to 255")
        if array.ndim == 3:
            array = array[..., None]
        if array.ndim not in (4, 5) or array.shape[-1] not in (1, 3) or 0 in array.shape[1:]:
            raise ValueError(f"{name} has shape {array.shape}; images are (N, H, W, 3), clips (N, T, H, W, 3)")
        if labels is not None and labels.shape != array.shape[:1]:
            items = "images" if array.ndim == 4 else "clips"
            raise ValueError(f"{name}: {len(array)} {items} but labels of shape {labels.shape}")
        if identity is None:
            digest = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
            identity = {"kind": "array", "shape": list(array.shape[1:]), "sha256": digest}
        self.name, self.array, self.identity, self.labels = name, array, dict(identity), labels
        self.count: int | None = len(array)
        self.shape: tuple[int, ...] = array.shape[1:]

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Items [start, stop)."""
        return np.ascontiguousarray(self.array[start:stop])


@dataclass(frozen=True)
class FolderSource:
    """The images under a folder in sorted order of path; with `resolution`, cropped and resized as ADM does."""

    name: str
    root: Path
    files: tuple[str, ...]  # relative to the root
    resolution: int | None = None

    @property
    def count(self) -> int:
        """Of the files."""
        return len(self.files)

    @cached_property
    def labels(self) -> NDArray[Any] | None:
        return labels_of([self.root / file for file in self.files])

    @cached_property
    def identity(self) -> dict[str, object]:
        total = hashlib.sha256()
        for file in self.files:
            total.update(f"{file}\0{sha256(self.root / file)}\n".encode())
        return {"kind": "folder", "sha256": total.hexdigest(), "resolution": self.resolution}

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return self.decode(0).shape

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        with ThreadPoolExecutor() as pool:  # decoders let other threads run
            images = list(pool.map(self.decode, range(start, stop)))
        for file, image in zip(self.files[start:stop], images, strict=True):
            if image.shape != self.shape:
                sizes = " and ".join(f"{s[1]} x {s[0]}" for s in (self.shape, image.shape))
                raise ValueError(f"{self.root} mixes sizes: {self.files[0]} and {file} are {sizes}")
        return np.stack(images)

    def decode(self, index: int) -> NDArray[np.uint8]:
        """One image, (H, W, 3). Raises ValueError, naming the file, when it cannot be decoded."""
        image = open_rgb(self.root / self.files[index])
        return np.asarray(image if self.resolution is None else centre_crop(image, self.resolution))


def labels_of(files: Sequence[Path]) -> NDArray[Any] | None:
    """The classes that harness.sample wrote into its pictures, (N,) int64; None where there are any others."""
    labels = []
    for path in files:
        try:
            with Image.open(path) as file:
                labels.append(int(file.info["class"]))
        except (OSError, KeyError, ValueError):
            return None
    return np.array(labels, dtype=np.int64)


def open_images(text: str, resolution: int | None = None, frames: int | None = None) -> Source:
    """The images named by a path or a data set's name; `resolution` (pixels) for data sets and for ADM's crop.

    An .npz may hold clips, and `frames` is how many those of a data set have.

    Raises ValueError for what is missing, empty, or not images.
    """
    if not text:
        raise ValueError(f"no images at '': give an .npz, a folder, or a data set ({', '.join(NAMED)})")
    if is_named(text):
        if Path(text).exists():
            warnings.warn(f"{text} is the data set; {text!r} in this folder is not read: write ./{text}", stacklevel=2)
        return _by_name(text, resolution, frames)
    path = Path(text).expanduser()
    folder, _, part = text.rpartition(":") if not path.exists() else (text, "", "")
    idx = fashion_mnist.below(Path(folder).expanduser()) if folder else None
    if idx is not None:
        return _array(text, FashionMNIST.reference(resolution, part or FashionMNIST.parts[-1], idx))
    if path.is_dir():
        pictures = (p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and p != path / CONTACT_SHEET)
        files = tuple(sorted(str(p.relative_to(path)) for p in pictures))
        if not files:
            raise ValueError(f"{path} has no images ({', '.join(EXTENSIONS)})")
        return FolderSource(text, path, files, resolution)
    if path.suffix != ".npz":
        raise ValueError(f"no images at {text!r}: give an .npz, a folder, or a data set ({', '.join(NAMED)})")
    source = open_npz(text, "images")
    if len(source.array) and source.array[:1000].max() <= 1:
        warnings.warn(f"{path}: no pixel exceeds 1; were images of range 0 to 1 cast to uint8?", stacklevel=2)
    return source


def open_npz(text: str, items: str) -> ArraySource:
    """`arr_0` of an .npz, with the labels of its `arr_1`; the identity is of the content, however it is packed."""
    file = Npz(Path(text).expanduser())
    file.require("arr_0", f"holds the {items}")
    array = file.array("arr_0")
    labels = np.asarray(file.array("arr_1")) if "arr_1" in file else None
    return ArraySource(text, array, {"kind": "npz", "sha256": file.digest("arr_0")}, labels)


def _by_name(text: str, resolution: int | None, frames: int | None) -> ArraySource:
    """A data set by name, or a part of one, as what samples are compared with."""
    name, _, part = text.partition(":")
    data: Any = CLIPS.get(name) or IMAGES[name]
    parts = getattr(data, "parts", ())
    if part and part not in parts:
        choices = f"; choose from {', '.join(parts)}" if parts else ": it is one whole"
        raise ValueError(f"{name} has no part {part!r}{choices}")
    chosen = {"resolution": resolution} | ({"frames": frames} if name in CLIPS else {})
    return _array(text, data.reference(**chosen, **({"part": part} if part else {})))


def _array(name: str, items: NDArray[np.uint8]) -> ArraySource:
    """A reference; its labels do not belong to samples."""
    return ArraySource(name, items, {"kind": name, "sha256": hashlib.sha256(items.tobytes()).hexdigest()})
