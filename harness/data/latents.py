"""The latent cache: an autoencoder's moments of a whole image tree, on disk, so that training needs no autoencoder.

A directory of `shard-*.safetensors`, each with `moments` (n, 2, 8, h, w) float32 (the image, then its mirror image)
and `labels` (n,), and `index.json` with what made them and every shard's sha256.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from harness.core.files import read_json, sha256, write_atomically, write_json
from harness.data.autoencoder import Autoencoder
from harness.data.images import ImageFolder
from harness.data.registry import INDEX

FORMAT = 1
SHARD_IMAGES = 4096
OF_INDEX = {"format": int, "autoencoder": str, "downsample": int, "resolution": int, "classes": list, "complete": bool,
            "shards": list}  # fmt: skip
OF_SHARD = {"file": str, "count": int, "sha256": str}


def encode(
    images: ImageFolder, autoencoder: Autoencoder, where: Path, batch: int, device: torch.device | str = "cpu"
) -> Iterator[int]:
    """Write the cache of an image folder to `where`, yielding the images done after each shard.

    Finished shards whose hash holds are kept, so the same call resumes. A corrupt image raises ValueError, or is left
    out where the folder skips such. Raises ValueError when `where` holds a cache made with other settings.
    """
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
    done = _finished(where, settings)
    shards: list[dict[str, Any]] = []
    for number, first in enumerate(range(0, len(images), SHARD_IMAGES)):
        name = f"shard-{number:05d}.safetensors"
        last = min(first + SHARD_IMAGES, len(images))
        if name not in done:
            moments, labels = _encode_shard(images, range(first, last), autoencoder, batch, device)
            blob = save({"moments": moments, "labels": labels})
            write_atomically(where / name, partial(_write, blob))
            done[name] = {"file": name, "count": len(labels), "sha256": sha256(where / name)}
        shards.append(done[name])
        write_json(where / INDEX, {**settings, "complete": last == len(images), "shards": shards})
        yield last


def _write(blob: bytes, file: BinaryIO) -> None:
    file.write(blob)


def _finished(where: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The shards of an earlier run that can stay."""
    if not (where / INDEX).is_file():
        return {}
    index = _read_index(where)
    changed = [key for key, value in settings.items() if index.get(key) != value]
    if changed:
        raise ValueError(f"{where} holds a cache made with another {', '.join(changed)}; choose another --out")
    kept = {}
    for shard in index["shards"]:
        path = where / shard["file"]
        if path.is_file() and sha256(path) == shard["sha256"]:
            kept[shard["file"]] = shard
        else:
            warnings.warn(f"{path} is missing or damaged: encoding it again", stacklevel=2)
    return kept


def _encode_shard(
    images: ImageFolder, rows: range, autoencoder: Autoencoder, batch: int, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    moments, labels = [], []
    for first in range(rows.start, rows.stop, batch):
        pixels = []
        for index in range(first, min(first + batch, rows.stop)):
            image = images.read_or_skip(index)
            if image is not None:
                pixels.append(image)
                labels.append(images.labels[index])
        if pixels:
            x = torch.stack(pixels).to(device)
            both = [autoencoder.moments(x), autoencoder.moments(x.flip(-1))]
            moments.append(torch.stack(both, dim=1).float().cpu())
    if not labels:
        raise ValueError(f"no readable image among {images.names[rows.start]} .. {images.names[rows.stop - 1]}")
    return torch.cat(moments), torch.tensor(labels)


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

    Raises ValueError when the cache is unfinished, damaged or unreadable, naming the shard.
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
        self._starts = np.cumsum([0, *[shard["count"] for shard in index["shards"]]])
        shards: list[Any] = [safe_open(where / shard["file"], framework="pt") for shard in index["shards"]]
        self._moments: list[Any] = [shard.get_slice("moments") for shard in shards]
        self._labels = torch.cat([shard.get_tensor("labels") for shard in shards])
        self.channels = self._moments[0].get_shape()[2] // 2

    def __len__(self) -> int:
        return len(self._labels)

    def load(self, indices: Sequence[int], flips: Sequence[bool]) -> tuple[Tensor, Tensor]:
        """Moments (B, 8, h, w) float32 and labels (B,)."""
        items = []
        for index, flip in zip(indices, flips, strict=True):
            shard = int(np.searchsorted(self._starts, index, side="right")) - 1
            items.append(self._moments[shard][index - int(self._starts[shard]), int(flip)])
        return torch.stack(items), self._labels[list(indices)]
