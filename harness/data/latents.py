"""The latent cache: an autoencoder's moments of a whole image tree, on disk, so that training needs no autoencoder.

A directory of `shard-*.safetensors`, each with `moments` (n, 2, 8, h, w) float32 (the image, then its mirror image)
and `labels` (n,), and `index.json` with what made them and every shard's sha256. A shard says in its own header what
it was made from, and its hash: so any number of processes make shards at once, and none needs to know of the others.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from harness.core.distributed import Ranks, gathered
from harness.core.files import read_json, sha256, write_atomically, write_json
from harness.data.ahead import ahead
from harness.data.autoencoder import Autoencoder
from harness.data.images import ImageFolder
from harness.data.registry import INDEX

FORMAT = 1
SHARD_IMAGES = 4096
OF_INDEX = {"format": int, "autoencoder": str, "downsample": int, "resolution": int, "classes": list, "complete": bool,
            "shards": list}  # fmt: skip
OF_SHARD = {"file": str, "count": int, "sha256": str}


def encode(
    images: ImageFolder, autoencoder: Autoencoder, where: Path, batch: int, here: Ranks | None = None, workers: int = 2
) -> Iterator[int]:
    """Write the cache of an image folder to `where`, yielding the images done, by all processes, after each shard.

    Each process takes every W-th shard; `workers` threads read its images. Shards that are there and whole are kept, so
    the same call resumes, with however many processes. A corrupt image raises ValueError, or is left out where the
    folder skips such. Raises ValueError when `where` holds a cache made with other settings.
    """
    here = here or Ranks(0, 1, torch.device("cpu"))
    where.mkdir(parents=True, exist_ok=True)
    settings = {
        "format": FORMAT,
        "autoencoder": autoencoder.name,
        "downsample": autoencoder.downsample,
        "resolution": images.resolution,
        "classes": list(images.classes),
        "files": hashlib.sha256("\n".join(images.names).encode()).hexdigest(),
        "shard_images": SHARD_IMAGES,
    }
    _require_same(where, settings)
    firsts = range(0, len(images), SHARD_IMAGES)
    if here.first and not (where / INDEX).is_file():
        write_json(where / INDEX, {**settings, "complete": False, "shards": []})
    made: dict[int, dict[str, Any]] = {}
    for number in range(here.rank, len(firsts), here.world):
        path = where / f"shard-{number:05d}.safetensors"
        rows = range(firsts[number], min(firsts[number] + SHARD_IMAGES, len(images)))
        origin = hashlib.sha256(json.dumps([settings, number], sort_keys=True).encode()).hexdigest()
        shard = _whole(path, origin) or _encode_shard(path, origin, images, rows, autoencoder, batch, here, workers)
        made[number] = shard
        yield min(len(images), SHARD_IMAGES * sum(1 for _ in where.glob("shard-*.safetensors")))
    shards = {number: shard for part in gathered(made) for number, shard in part.items()}
    if here.first:
        listed = [shards[number] for number in range(len(firsts))]
        write_json(where / INDEX, {**settings, "complete": True, "shards": listed})


def _require_same(where: Path, settings: dict[str, Any]) -> None:
    """Raise ValueError for a cache of other settings."""
    if (where / INDEX).is_file():
        index = _read_index(where)
        changed = [key for key, value in settings.items() if index.get(key) != value]
        if changed:
            raise ValueError(f"{where} holds a cache made with another {', '.join(changed)}; choose another --out")


def _whole(path: Path, origin: str) -> dict[str, Any] | None:
    """A shard of an earlier call that can stay, as it stands in the index; a damaged one is named in a warning."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in ("moments", "labels")}
            seal = (file.metadata() or {}).get("seal")
        if seal == _seal(origin, **tensors):
            return {"file": path.name, "count": len(tensors["labels"]), "sha256": sha256(path)}
    except (SafetensorError, OSError):
        pass
    warnings.warn(f"{path} is damaged or of other settings: encoding it again", stacklevel=2)
    return None


def _seal(origin: str, moments: Tensor, labels: Tensor) -> str:
    """What a shard says of itself: what it was made from, and the hash of what it holds."""
    total = hashlib.sha256(moments.contiguous().numpy().data)
    total.update(labels.numpy().data)
    return f"{origin} {total.hexdigest()}"


def _encode_shard(
    path: Path, origin: str, images: ImageFolder, rows: range, autoencoder: Autoencoder, batch: int, here: Ranks,
    workers: int,
) -> dict[str, Any]:  # fmt: skip
    """Encode and write one shard; returns it as it stands in the index."""
    moments, labels = [], []
    parts = (range(first, min(first + batch, rows.stop)) for first in range(rows.start, rows.stop, batch))
    for read in ahead(lambda part: [(images.read_or_skip(i), images.labels[i]) for i in part], parts, workers):
        pixels = [image for image, _ in read if image is not None]
        labels += [label for image, label in read if image is not None]
        if pixels:
            x = torch.stack(pixels).to(here.device)
            both = [autoencoder.moments(x), autoencoder.moments(x.flip(-1))]
            moments.append(torch.stack(both, dim=1).float().cpu())
    if not labels:
        raise ValueError(f"no readable image among {images.names[rows.start]} .. {images.names[rows.stop - 1]}")
    tensors = {"moments": torch.cat(moments), "labels": torch.tensor(labels)}
    blob = save(tensors, {"seal": _seal(origin, **tensors)})
    write_atomically(path, partial(_write, blob))
    return {"file": path.name, "count": len(labels), "sha256": sha256(path)}


def _write(blob: bytes, file: BinaryIO) -> None:
    file.write(blob)


def _read_index(where: Path) -> dict[str, Any]:
    """The index of a cache. Raises ValueError, naming the file, for a field that is missing or of another type."""
    index = read_json(where / INDEX)
    for name, kind in OF_INDEX.items():
        if not isinstance(index.get(name), kind):
            raise ValueError(f"{where / INDEX} is damaged: its {name} is {index.get(name)!r}")
    for shard in index["shards"]:
        if not isinstance(shard, dict) or [type(shard.get(name)) for name in OF_SHARD] != list(OF_SHARD.values()):
            raise ValueError(f"{where / INDEX} is damaged: {shard!r} is no shard")
    return index


class LatentCache:
    """A cache as a data set; items are moments (8, h, w). `verify` checks every shard's hash.

    In memory it holds where each shard begins: moments and labels are read from the shards, which are opened when they
    are first wanted. Raises ValueError when the cache is unfinished, damaged or unreadable, naming the shard.
    """

    def __init__(self, where: Path, verify: bool = True) -> None:
        index = _read_index(where)
        if index["format"] != FORMAT:
            raise ValueError(f"{where / INDEX} has format {index['format']}, not {FORMAT}")
        if not index["complete"]:
            raise ValueError(f"{where} is unfinished: run the same encode command again to complete it")
        for shard in index["shards"] if verify else []:
            path = where / shard["file"]
            if not path.is_file() or sha256(path) != shard["sha256"]:
                raise ValueError(f"{path} is missing or damaged: run the same encode command again to repair the cache")
        self.name = f"latents:{where.name}"
        self.resolution: int = index["resolution"]
        self.autoencoder: str = index["autoencoder"]
        self.downsample: int = index["downsample"]
        self.classes: list[str] = index["classes"]
        self._files = [where / shard["file"] for shard in index["shards"]]
        self._starts = np.cumsum([0, *[shard["count"] for shard in index["shards"]]])
        self._opened: dict[int, tuple[Any, Any]] = {}
        self.channels = self._slices(0)[0].get_shape()[2] // 2

    def __len__(self) -> int:
        return int(self._starts[-1])

    def load(self, indices: Sequence[int], flips: Sequence[bool]) -> tuple[Tensor, Tensor]:
        """Moments (B, 8, h, w) float32 and labels (B,)."""
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        rows = np.asarray(indices) - self._starts[shards]
        items, labels = [], []
        for shard, row, flip in zip(shards.tolist(), rows.tolist(), flips, strict=True):
            of_moments, of_labels = self._slices(shard)
            items.append(of_moments[row, int(flip)])
            labels.append(of_labels[row])
        return torch.stack(items), torch.stack(labels)

    def _slices(self, shard: int) -> tuple[Any, Any]:
        """The moments and labels of a shard, to be read from."""
        if shard not in self._opened:
            file: Any = safe_open(self._files[shard], framework="pt")
            self._opened[shard] = file.get_slice("moments"), file.get_slice("labels")
        return self._opened[shard]
