"""How things move, measured without a network: the centre of the ink in each frame, and how far it steps.

Letters: N clips, T frames, H height, W width, C channels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.metrics.moments import Array

INK = 64  # of 255: what is darker is background, with the little noise that a generator leaves on it
SLACK = 0.5  # pixels, beside the range of the reference's steps


def centres(clips: Tensor) -> Tensor:
    """Centre of mass of the ink of each frame, in pixels: clips uint8 (N, T, H, W, C) to rows and columns (N, T, 2).

    An empty frame has its centre in the middle. A thing that moves without changing has steps of its own length.
    """
    ink = (clips.double().mean(-1) - INK).clamp(min=0)  # (N, T, H, W)
    total = ink.sum((-2, -1))
    height, width = ink.shape[-2:]
    rows = (ink.sum(-1) * torch.arange(height, dtype=ink.dtype, device=ink.device)).sum(-1)
    columns = (ink.sum(-2) * torch.arange(width, dtype=ink.dtype, device=ink.device)).sum(-1)
    middle = torch.tensor([(height - 1) / 2, (width - 1) / 2], dtype=ink.dtype, device=ink.device)
    found = torch.stack([rows, columns], dim=-1) / total.clamp(min=1e-9).unsqueeze(-1)
    return torch.where(total.unsqueeze(-1) > 0, found, middle)


def lengths(steps: NDArray) -> Array:
    """Lengths in pixels of the steps (N, T-1, 2) between frames: (N, T-1)."""
    return np.linalg.norm(steps.astype(np.float64), axis=-1)


def turns(steps: NDArray) -> Array:
    """How much each step differs from the one before, in pixels: (N, T-2); 0 where the motion goes straight on."""
    return lengths(np.diff(steps, axis=1))


def moving(samples: NDArray, reference: NDArray) -> Array:
    """Of steps (N, T-1, 2): whether each is as long as the reference's are, to half a pixel: (N, T-1)."""
    real, ours = lengths(reference), lengths(samples)
    return (ours >= real.min() - SLACK) & (ours <= real.max() + SLACK)


def wasserstein(a: NDArray, b: NDArray) -> float:
    """The 1-Wasserstein distance of two samples of a number: the area between their distribution functions."""
    a, b = np.sort(a, axis=None), np.sort(b, axis=None)
    places = np.concatenate([a, b])
    places.sort()
    shares = [np.searchsorted(x, places[:-1], side="right") / len(x) for x in (a, b)]
    return float((np.abs(shares[0] - shares[1]) * np.diff(places)).sum())
