"""What a data set is: images or clips to learn from, by index, and the endless shuffled order in which they come.

A data set has `len`, `classes`, `channels`, `resolution`, and `load(indices, flips)`, which gives float32 images in
[-1, 1], (B, C, H, W), or a cache's moments, with labels (B,) int64. One of clips has `load_clips(indices, flips,
starts)`, which gives (B, T, C, H, W), and `load_frames(indices, starts)`, which gives images; `starts` in [0, 1) say
how far into a video.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.core.seeds import stream

if TYPE_CHECKING:
    from torch import Tensor


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


class ImagesByName(Protocol):
    """A class of images that go by a name. One with `parts` takes the name of a part for its reference."""

    def __call__(self, resolution: int) -> Dataset: ...

    def reference(self, resolution: int | None = None) -> NDArray[np.uint8]:
        """What samples are compared with: (N, R, R, C), at this resolution or at its own."""
        ...


class ClipsByName(Protocol):
    """A class of clips that go by a name. One with `parts` takes the name of a part for its reference."""

    def __call__(self, resolution: int, frames: int, stride: int) -> VideoDataset: ...

    def reference(self, resolution: int | None = None, frames: int | None = None) -> NDArray[np.uint8]:
        """What samples are compared with: (N, T, R, R, C), at this size or at its own."""
        ...


def order(count: int, seed: int, positions: Sequence[int]) -> list[int]:
    """Which items stand at these positions of the endless shuffled stream: one permutation of all an epoch."""
    return [int(_permutation(count, seed, position // count)[position % count]) for position in positions]


@lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return stream(seed, "order", epoch).permutation(count)
