"""The embedded digits: small real images that need no download. Imports torch only when a digit is read."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.core.capacity import require_memory

if TYPE_CHECKING:
    from torch import Tensor

TRAINING_DIGITS, SPLIT_SEED = 1500, 0
SIDE = 8  # pixels, of a scan


class Digits:
    """scikit-learn's 1,797 scanned digits (UCI Optical Recognition), ten classes, one channel: no download.

    Eight pixels a side natively; other resolutions by antialiased bicubic resizing. `pixels` is (N, 1, R, R) uint8.
    Raises ValueError for a resolution at which they do not fit into memory.
    """

    name = "digits"
    channels = 1

    def __init__(self, resolution: int = SIDE) -> None:
        import torch
        from torch.nn.functional import interpolate

        scans, labels = _scans()
        size = f"{len(scans)} digits of {resolution} x {resolution} pixels in float32"
        require_memory(4 * len(scans) * resolution**2, size, "take a lower --resolution")
        pixels = torch.from_numpy(scans).float()[:, None] * (255 / 16)
        if resolution != pixels.shape[-1]:
            pixels = interpolate(pixels, size=(resolution, resolution), mode="bicubic", antialias=True)
        self.resolution = resolution
        self.pixels = pixels.round().clamp(0, 255).to(torch.uint8)
        self.labels = torch.from_numpy(labels)
        self.classes = [str(digit) for digit in range(10)]

    @classmethod
    def reference(cls, resolution: int | None = None) -> NDArray[np.uint8]:
        """What samples are compared with: all of them, (N, R, R, 1)."""
        return cls(resolution or SIDE).pixels.permute(0, 2, 3, 1).contiguous().numpy()

    @staticmethod
    def split() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The indices that classifiers train on, and those held out, in a fixed random order."""
        order = np.random.default_rng(SPLIT_SEED).permutation(len(Digits()))
        return order[:TRAINING_DIGITS], order[TRAINING_DIGITS:]

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, indices: Sequence[int], flips: Sequence[bool]) -> tuple[Tensor, Tensor]:
        """Images (B, 1, R, R) in [-1, 1] and labels (B,)."""
        import torch

        x = self.pixels[list(indices)].float() / 127.5 - 1
        return torch.where(torch.tensor(flips).view(-1, 1, 1, 1), x.flip(-1), x), self.labels[list(indices)]


def _scans() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scans (N, 8, 8) of values 0 to 16, and their labels (N,), from scikit-learn's file.

    The file is read without importing scikit-learn, which takes longer than all of the rest; where it lies elsewhere,
    scikit-learn reads it.
    """
    package = find_spec("sklearn")
    file = Path((package and package.origin) or "").parent / "datasets" / "data" / "digits.csv.gz"
    if not file.exists():
        from sklearn.datasets import load_digits

        found = load_digits()
        return found.images, found.target
    table = np.loadtxt(file, delimiter=",")
    return table[:, :-1].reshape(-1, SIDE, SIDE), table[:, -1].astype(np.int64)
