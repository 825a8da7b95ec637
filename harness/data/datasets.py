"""Images and clips to learn from: embedded digits, still or moving, trees of images or videos, latent caches.

A data set has `len`, `classes`, `channels`, `resolution`, and `load(indices, flips)`, which gives float32 images in
[-1, 1], (B, C, H, W), or a cache's moments, with labels (B,) int64. One of clips has `load_clips(indices, flips,
starts)`, which gives (B, T, C, H, W), and `load_frames(indices, starts)`, which gives images; `starts` in [0, 1) say
how far into a video.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from harness.core.seeds import stream
from harness.data.images import Digits, ImageFolder
from harness.data.latents import INDEX, LatentCache
from harness.data.moving_digits import MovingDigits
from harness.data.videos import VideoFolder


class Collection(Protocol):
    """What every data set has."""

    name: str
    resolution: int
    channels: int  # of a latent, hence of the model
    classes: list[str]

    def __len__(self) -> int: ...


class Dataset(Collection, Protocol):
    """Images."""

    def load(self, indices: Sequence[int], flips: Sequence[bool]) -> tuple[Tensor, Tensor]: ...


class VideoDataset(Collection, Protocol):
    """Videos, of which clips or single frames are taken. `corrupt` names those that were left out."""

    frames: int
    stride: int
    corrupt: set[str]

    def load_clips(
        self, indices: Sequence[int], flips: Sequence[bool], starts: Sequence[float]
    ) -> tuple[Tensor, Tensor]: ...
    def load_frames(self, indices: Sequence[int], starts: Sequence[float]) -> tuple[Tensor, Tensor]: ...


def order(count: int, seed: int, positions: Sequence[int]) -> list[int]:
    """Which items stand at these positions of the endless shuffled stream: one permutation of all an epoch."""
    return [int(_permutation(count, seed, position // count)[position % count]) for position in positions]


@lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    return stream(seed, "order", epoch).permutation(count)


def open_dataset(name: str, resolution: int, skip_corrupt: bool = False, verify: bool = True) -> Dataset:
    """`digits`, the directory of a latent cache, or the root of an image tree. Raises ValueError as those do.

    `verify` checks a cache's hashes, which reads it whole: once is enough for all processes.
    """
    if name == "digits":
        return Digits(resolution)
    if name == MovingDigits.name:
        raise ValueError(f"{name} is of clips, which take a model of video, such as DiM-T/2-video")
    path = Path(name).expanduser()
    if not path.is_dir():
        raise ValueError(f"no data at {name!r}: give 'digits', an image tree, or a latent cache")
    if not (path / INDEX).is_file():
        return ImageFolder(path, resolution, skip_corrupt)
    cache = LatentCache(path, verify)
    if cache.resolution != resolution:
        raise ValueError(f"the latent cache {name} is of resolution {cache.resolution}, not {resolution}")
    return cache


def open_videos(
    name: str, resolution: int, frames: int, stride: int, lists: Sequence[Path] = (), skip_corrupt: bool = False
) -> VideoDataset:
    """`moving-digits`, or the root of a tree of videos, of which split lists may choose. Raises ValueError as those do.

    Clips are of `frames` frames, `stride` apart.
    """
    if name == MovingDigits.name:
        return MovingDigits(resolution, frames, stride)
    path = Path(name).expanduser()
    if not path.is_dir():
        raise ValueError(
            f"no videos at {name!r}: give {MovingDigits.name!r} or a tree of videos, one directory a class"
        )
    return VideoFolder(path, resolution, frames, stride, lists, skip_corrupt)
