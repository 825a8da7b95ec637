"""Features on disk in hashed shards: whoever is killed continues, and however many work, the bits are the same.

A shard holds the features of 256 consecutive items, and depends on those items and the extractor alone: so any process
may make any of them.
Letters: B batch, n items of a shard, D features.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from harness.core.distributed import Ranks
from harness.core.files import write_atomically, write_json
from harness.data.sources import Source
from harness.metrics.features.extractor import Extractor

ITEMS = 256
FORMAT = 1
Span = tuple[int, int]
"""Items [start, stop) of a source."""


@dataclass(frozen=True)
class Shard:
    """Features of consecutive items: `streams` (n, D) float32; `keys` (n,) uint64 tell equal items from others.

    `images_sha256` is of the pixels.
    """

    streams: dict[str, NDArray[np.float32]]
    keys: NDArray[np.uint64]
    images_sha256: str

    @property
    def nbytes(self) -> int:
        """Of its arrays."""
        return self.keys.nbytes + sum(rows.nbytes for rows in self.streams.values())


def spans(start: int, stop: int) -> list[Span]:
    """The shards of items [start, stop): cut at multiples of 256 of the source's own numbering."""
    edges = [start, *range((start // ITEMS + 1) * ITEMS, stop, ITEMS), stop]
    return list(itertools.pairwise(edges))


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


class ShardFolder:
    """The shards of one source and extractor: a folder of `root`, which all processes share, named for their key."""

    def __init__(self, source: Source, extractor: Extractor, root: Path, here: Ranks) -> None:
        self.source, self.extractor = source, extractor
        self.key = key(source, extractor, here.device)
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()
        self.path = root / digest[:16]
        self.path.mkdir(parents=True, exist_ok=True)

    def describe(self) -> None:
        """Write down, for readers, what the folder's name is a hash of."""
        write_json(self.path / "key.json", self.key)

    def file(self, span: Span) -> Path:
        """Where a shard is, or will be."""
        return self.path / f"{span[0]:08d}-{span[1]:08d}.safetensors"

    def has(self, span: Span) -> bool:
        """Whether there is such a file; whether it is whole shows when it is read."""
        return self.file(span).is_file()

    def make(self, start: int, stops: Sequence[int], advance: Callable[[int], object]) -> dict[Span, Shard]:
        """Make and write the shards of items from `start` to each of `stops` (ascending), every item once.

        `advance` is called with the number of items done. Raises ValueError when features are not finite.
        """
        batch = self.extractor.batch
        streams: dict[str, list[NDArray[np.float32]]] = {}
        pixels, keys, digests = hashlib.sha256(), [], {}
        for first in range(start, stops[-1], batch):
            items = self.source.read(first, min(first + batch, stops[-1]))
            for index, item in enumerate(items, first):
                content = item.tobytes()
                pixels.update(content)
                keys.append(int.from_bytes(hashlib.sha256(content).digest()[:8], "little"))
                if index + 1 in stops:
                    digests[index + 1] = pixels.hexdigest()
            for name, rows in self._features(items, first).items():
                streams.setdefault(name, []).append(rows)
            advance(len(items))
        whole = {name: np.concatenate(rows) for name, rows in streams.items()}
        made = {}
        for stop in stops:
            count = stop - start
            of_first = {name: rows[:count] for name, rows in whole.items()}
            made[start, stop] = Shard(of_first, np.array(keys[:count], dtype=np.uint64), digests[stop])
            self._write((start, stop), made[start, stop])
        return made

    def _features(self, items: NDArray[np.uint8], first: int) -> dict[str, NDArray[np.float32]]:
        """Of at most a batch of items, the rest of the batch being zeros."""
        padded = np.zeros((self.extractor.batch, *items.shape[1:]), dtype=np.uint8)
        padded[: len(items)] = items
        found = {}
        for name, output in self.extractor.extract(torch.from_numpy(padded)).items():
            rows = output[: len(items)].cpu().numpy()
            if not np.isfinite(rows).all():
                bad = first + int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
                raise ValueError(f"the {name} features of item {bad} of {self.source.name} are not finite")
            found[name] = rows
        return found

    def _write(self, span: Span, shard: Shard) -> None:
        tensors: dict[str, NDArray[Any]] = {**shard.streams, "keys": shard.keys}
        content = save(tensors, {"images_sha256": shard.images_sha256, "sha256": _hash(tensors)})
        write_atomically(self.file(span), lambda file: file.write(content))


def read(path: Path, streams: Collection[str] = ()) -> Shard | None:
    """A shard whose hash holds and that has these streams, or None; a damaged one is named in a warning."""
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
    shard = Shard(tensors, tensors.pop("keys"), metadata["images_sha256"])
    return shard if set(streams) <= shard.streams.keys() else None  # a network may have had fewer


def _hash(tensors: Mapping[str, NDArray[Any]]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(f"{name}{tensors[name].shape}{tensors[name].dtype}".encode())
        total.update(np.ascontiguousarray(tensors[name]).data)
    return total.hexdigest()
