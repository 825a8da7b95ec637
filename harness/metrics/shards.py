"""Features on disk in hashed shards: whoever is killed continues, and however many work, the bits are the same.

A shard holds the features of 256 consecutive items, and depends on those items and the extractor alone: so any process
may make any of them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tqdm import tqdm

from harness.core.distributed import Ranks, barrier
from harness.core.files import write_atomically, write_json
from harness.data.sources import Source
from harness.metrics.features.extractor import Extractor

ITEMS = 256
FORMAT = 1


@dataclass(frozen=True)
class Shard:
    """Features of items [start, stop): streams (n, D) float32; `keys` (n,) uint64 tell equal items apart from others.

    `images_sha256` is of the pixels.
    """

    streams: dict[str, NDArray[np.float32]]
    keys: NDArray[np.uint64]
    images_sha256: str


@dataclass(frozen=True)
class Features:
    """The features of items [start, stop) of a source, in `directory`."""

    directory: Path
    start: int
    stop: int

    @property
    def count(self) -> int:
        return self.stop - self.start

    def spans(self) -> list[tuple[int, int]]:
        """The shards' items: cut at multiples of 256 of the source's own numbering."""
        edges = [self.start, *range((self.start // ITEMS + 1) * ITEMS, self.stop, ITEMS), self.stop]
        return list(itertools.pairwise(edges))

    def shards(self) -> Iterator[Shard]:
        for start, stop in self.spans():
            shard = read(self.directory, start, stop)
            if shard is None:
                raise ValueError(f"{path_of(self.directory, start, stop)} is missing or damaged; run the command again")
            yield shard

    def stream(self, name: str) -> Iterator[NDArray[np.float32]]:
        """The rows (n, D) of one stream, shard by shard, in order."""
        return (shard.streams[name] for shard in self.shards())

    def rows(self, name: str) -> NDArray[np.float32]:
        """All rows (N, D) of one stream at once."""
        return np.concatenate(list(self.stream(name)))

    def digest(self) -> str:
        """sha256 of all pixels, as a hash of the shards' own hashes."""
        total = hashlib.sha256()
        for shard in self.shards():
            total.update(shard.images_sha256.encode())
        return total.hexdigest()

    def duplicates(self) -> int:
        """How many items are copies of an earlier one."""
        return self.count - len(np.unique(np.concatenate([shard.keys for shard in self.shards()])))


def key(source: Source, extractor: Extractor, device: torch.device) -> dict[str, object]:
    """All that features depend on; features of one key may be mixed freely."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "format": FORMAT,
        "source": source.identity,
        "extractor": extractor.identity,
        "batch": extractor.batch,
        "device": name,
        "torch": str(torch.__version__),
    }


def extract(
    source: Source,
    extractor: Extractor,
    start: int,
    stop: int,
    root: Path,
    here: Ranks,
    label: str = "",
) -> Features:
    """Make the shards of items [start, stop) that are missing or damaged, this process its share; wait for all.

    They lie in a folder of `root` (which all processes share) named for their key. Raises ValueError when the source is
    too short, or when features are not finite.
    """
    identity = key(source, extractor, here.device)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    features = Features(root / digest[:16], start, stop)
    features.directory.mkdir(parents=True, exist_ok=True)
    if here.first:
        write_json(features.directory / "key.json", identity)
    mine = [span for span in features.spans()[here.rank :: here.world] if read(features.directory, *span) is None]
    with tqdm(
        total=sum(b - a for a, b in mine), desc=label or source.name, unit="item", disable=None if here.first else True
    ) as bar:
        for first, last in mine:
            _write(source, extractor, first, last, features.directory, bar)
    barrier()
    return features


def _write(source: Source, extractor: Extractor, start: int, stop: int, directory: Path, bar: tqdm) -> None:
    batch = extractor.batch
    streams: dict[str, list[NDArray]] = {name: [] for name in extractor.streams}
    pixels, keys = hashlib.sha256(), []
    for first in range(start, stop, batch):
        items = source.read(first, min(first + batch, stop))
        pixels.update(items.tobytes())
        keys += [int.from_bytes(hashlib.sha256(item.tobytes()).digest()[:8], "little") for item in items]
        padded = np.zeros((batch, *items.shape[1:]), dtype=np.uint8)
        padded[: len(items)] = items
        for name, output in extractor.extract(torch.from_numpy(padded)).items():
            rows = output[: len(items)].cpu().numpy()
            if not np.isfinite(rows).all():
                bad = first + int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
                raise ValueError(f"the {name} features of item {bad} of {source.name} are not finite")
            streams[name].append(rows)
        bar.update(len(items))
    tensors = {name: np.concatenate(rows) for name, rows in streams.items()}
    tensors["keys"] = np.array(keys, dtype=np.uint64)
    metadata = {"images_sha256": pixels.hexdigest(), "sha256": _hash(tensors)}
    content = save(tensors, metadata)
    write_atomically(path_of(directory, start, stop), lambda file: file.write(content))


def path_of(directory: Path, start: int, stop: int) -> Path:
    return directory / f"{start:08d}-{stop:08d}.safetensors"


def read(directory: Path, start: int, stop: int) -> Shard | None:
    """A shard whose hash holds, or None; a damaged one is named in a warning."""
    path = path_of(directory, start, stop)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            metadata = file.metadata()
        whole = metadata["sha256"] == _hash(tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        warnings.warn(f"{path} is damaged; it will be made again", stacklevel=2)
        return None
    return Shard(tensors, tensors.pop("keys"), metadata["images_sha256"])


def _hash(tensors: dict[str, NDArray]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(f"{name}{tensors[name].shape}{tensors[name].dtype}".encode())
        total.update(np.ascontiguousarray(tensors[name]).tobytes())
    return total.hexdigest()
