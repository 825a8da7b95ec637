"""Clips of scikit-learn's scanned digits that cross a dark square and turn back at its walls. No download.

Clip i is a function of its part and i alone. A digit of 8 x 8 pixels moves by whole pixels, as many every frame; an
axis on which the next step would end outside the square turns round first. So pixels are those of the scan, no axis
changes its speed, and the next frame follows from two. How a digit sets out is the data set's own.
Letters: B batch, T frames, R pixels a side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from harness.core.seeds import stream
from harness.data.digits import SIDE, Digits

if TYPE_CHECKING:
    from torch import Tensor

MOTIONS_A_DIGIT = 100
RESOLUTION, FRAMES, REFERENCE_CLIPS = 16, 8, 1500
"""Of what samples are compared with: every scan once, on a path drawn anew; of few paths, training has most, too."""
HELD_OUT = "held-out"
"""The part of the scans that nothing learns from."""


def paths(start: NDArray[np.int64], velocity: NDArray[np.int64], frames: int, span: int) -> NDArray[np.int64]:
    """Top left corners (frames, 2) as row and column, in 0..span, from `start` (2,) at `velocity` (2,) a frame."""
    corners = [start]
    for _ in range(frames - 1):
        velocity = np.where((corners[-1] + velocity >= 0) & (corners[-1] + velocity <= span), velocity, -velocity)
        corners.append(corners[-1] + velocity)
    return np.stack(corners)


class DigitsInMotion(ABC):
    """Clips of one digit each, ten classes, one channel.

    `part` is one of `parts`: `held-out` has 297 scans of its own, all others the same 1,500 in other motions. With
    `stride` the frames are every stride-th of the motion. Raises ValueError for a square that is too small to move in,
    and for an unknown part.
    """

    name: str
    parts: ClassVar[Mapping[str, int]]  # the number is part of the stream: no two of any data set are the same
    least: ClassVar[int]  # pixels a side
    channels = 1

    def __init__(
        self, resolution: int = RESOLUTION, frames: int = FRAMES, stride: int = 1, part: str = "train"
    ) -> None:
        if resolution < self.least:
            raise ValueError(f"{self.name} needs a resolution of at least {self.least} pixels, not {resolution}")
        if part not in self.parts:
            raise ValueError(f"{self.name} has no part {part!r}; choose from {', '.join(self.parts)}")
        digits = Digits(SIDE)
        trained, held_out = Digits.split()
        chosen = held_out if part == HELD_OUT else trained
        self.span = resolution - SIDE
        self.resolution, self.frames, self.stride, self.part = resolution, frames, stride, part
        self.scans, self.scanned = digits.pixels[chosen, 0].numpy(), digits.labels[chosen]
        self.classes = digits.classes
        self.corrupt: set[str] = set()

    @abstractmethod
    def drawn(self, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How a digit sets out: its top left corner, and its velocity in pixels a frame, (2,) each."""

    @classmethod
    def reference(
        cls, resolution: int | None = None, frames: int | None = None, part: str = "reference"
    ) -> NDArray[np.uint8]:
        """What samples are compared with: clips (N, T, R, R, 1)."""
        data = cls(resolution or RESOLUTION, frames or FRAMES, part=part)
        return data.pixels(range(REFERENCE_CLIPS))[..., None]

    def __len__(self) -> int:
        return MOTIONS_A_DIGIT * len(self.scans)

    def corners(self, index: int) -> NDArray[np.int64]:
        """Where the digit of a clip is: rows and columns (T, 2) of its top left corner."""
        start, velocity = self.drawn(stream(0, "clip", self.parts[self.part], index))
        return paths(start, velocity, (self.frames - 1) * self.stride + 1, self.span)[:: self.stride]

    def pixels(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Clips (B, T, R, R)."""
        clips = np.zeros((len(indices), self.frames, self.resolution, self.resolution), dtype=np.uint8)
        for clip, index in zip(clips, indices, strict=True):
            scan = self.scans[index % len(self.scans)]
            for frame, (row, column) in zip(clip, self.corners(index), strict=True):
                frame[row : row + SIDE, column : column + SIDE] = scan
        return clips

    def labels(self, indices: Sequence[int]) -> Tensor:
        return self.scanned[[index % len(self.scans) for index in indices]]

    def load_clips(
        self, indices: Sequence[int], flips: Sequence[bool], starts: Sequence[float]
    ) -> tuple[Tensor, Tensor]:
        """Clips (B, T, 1, R, R) in [-1, 1] and labels (B,); the whole of each, wherever `starts` places it."""
        import torch

        x = torch.from_numpy(self.pixels(indices)).unsqueeze(2).float() / 127.5 - 1
        return torch.where(torch.tensor(flips).view(-1, 1, 1, 1, 1), x.flip(-1), x), self.labels(indices)

    def load_frames(self, indices: Sequence[int], starts: Sequence[float]) -> tuple[Tensor, Tensor]:
        """One frame of each clip, (B, 1, R, R), `starts` (in [0, 1)) of the way through it, and labels (B,)."""
        import torch

        clips, labels = self.load_clips(indices, [False] * len(indices), starts)
        chosen = [int(start * self.frames) for start in starts]
        return clips[torch.arange(len(indices)), chosen], labels
