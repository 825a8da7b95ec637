"""The networks behind features of digits in motion, and how they are trained: on clips of 1,500 of the embedded digits.

A data set has its own: what a frame shows is learnt alike, how it moves on by velocities that are the data set's.
Streams: `pool` (B, 96), features of frames and of motion, averaged over time; `logits` (B, 10 T), the digits seen in
each frame alone; `centres` (B, 2 T), rows and columns of the ink's centre, in pixels, and `steps` (B, 2 (T-1)), by
which it moves, both without a network.
Letters: B batch, T frames, H height, W width, C channels, A velocities of a step, each one of V.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from harness.data.digits_in_motion import DigitsInMotion
from harness.metrics.features.extractor import Extractor, exact_arithmetic
from harness.metrics.features.weights import Weights

CLASSES, FEATURES_OF_FRAMES, FEATURES_OF_MOTION = 10, 64, 32
FEWEST_FRAMES = 3  # what the two convolutions over time span
BATCH, LEARNING_RATE, SEED = 50, 4e-3, 0
INK = 64  # of 255: what is darker is background, with the little noise that a generator puts on it


class FrameNetwork(nn.Module):
    """Frames (B, 1, H, W) in [0, 1] to features (B, 64) and logits of the digit (B, 10), wherever it stands."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 96, 4),
        )  # fmt: skip
        self.hidden = nn.Linear(96, FEATURES_OF_FRAMES)
        self.head = nn.Linear(FEATURES_OF_FRAMES, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.convolutions(x).amax((-2, -1))                # (B, 96)
        features = self.hidden(functional.gelu(x))             # (B, 64)
        return features, self.head(functional.gelu(features))  # (B, 64), (B, 10)


class MotionNetwork(nn.Module):
    """Clips (B, 1, T, H, W) in [0, 1] to features (B, T-2, 32) and logits (B, T-2, 2, A, V) of two steps' velocities.

    `velocities` are (A, V). The first kernel is `side` pixels a side: it must hold both ends of a step.
    """

    def __init__(self, velocities: tuple[int, int], side: int = 5, channels: tuple[int, int] = (24, 48)) -> None:
        super().__init__()
        self.velocities = velocities
        first, second = channels
        self.convolutions = nn.Sequential(
            nn.Conv3d(1, first, (2, side, side), padding=(0, side // 2, side // 2)), nn.ReLU(), nn.MaxPool3d((1, 2, 2)),
            nn.Conv3d(first, second, (2, 3, 3), padding=(0, 1, 1)), nn.ReLU(),
        )  # fmt: skip
        self.hidden = nn.Linear(second, FEATURES_OF_MOTION)
        self.head = nn.Linear(FEATURES_OF_MOTION, 2 * velocities[0] * velocities[1])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.convolutions(x).amax((-2, -1)).transpose(1, 2)                   # (B, T-2, 48)
        features = self.hidden(x)                                                 # (B, T-2, 32)
        logits = self.head(functional.gelu(features))                             # (B, T-2, 2 A V)
        return features, logits.unflatten(-1, (2, *self.velocities))              # ..., (B, T-2, 2, A, V)


class DigitsInMotionNetwork(nn.Module):
    """Clips (B, T, H, W) in [0, 1] to features (B, 96), the mean over time, and logits of each frame (B, T, 10)."""

    def __init__(self, motion: MotionNetwork) -> None:
        super().__init__()
        self.frames, self.motion = FrameNetwork(), motion

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self.frames(x.flatten(0, 1).unsqueeze(1))                    # (B T, 64), (B T, 10)
        motion, _ = self.motion(x.unsqueeze(1))                                         # (B, T-2, 32)
        over_time = [features.unflatten(0, x.shape[:2]).mean(1), motion.mean(1)]        # (B, 64), (B, 32)
        return torch.cat(over_time, dim=1), logits.unflatten(0, x.shape[:2])            # (B, 96), (B, T, 10)


def fit(
    make: Callable[[], DigitsInMotionNetwork], data: DigitsInMotion, epochs: int,
    velocities: Callable[[NDArray[np.int64]], Tensor],
) -> DigitsInMotionNetwork:  # fmt: skip
    """The trained network; the same bits every time on one machine: one thread, fixed seeds.

    Each scan is seen once an epoch, on another path; a single frame of three teaches the digit, all three the motion.
    `data` has clips of three frames, and `velocities` turns paths (B, 3, 2) into classes (B, 2, A).
    """
    scans = len(data.scans)
    threads = torch.get_num_threads()
    generator = torch.Generator().manual_seed(SEED)
    try:
        torch.set_num_threads(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            network = make()
        optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs * scans // BATCH)
        for epoch in range(epochs):
            for rows in torch.randperm(scans, generator=generator).split(BATCH):
                chosen = (rows + epoch * scans).tolist()
                clips = torch.from_numpy(data.pixels(chosen)).float() / 255
                moved = velocities(np.stack([data.corners(index) for index in chosen]))
                frames = clips[torch.arange(len(rows)), torch.randint(FEWEST_FRAMES, (len(rows),), generator=generator)]
                optimizer.zero_grad()
                seen = functional.cross_entropy(network.frames(frames.unsqueeze(1))[1], data.labels(chosen))
                guessed = network.motion(clips.unsqueeze(1))[1].flatten(0, -2)
                (seen + functional.cross_entropy(guessed, moved.flatten())).backward()
                optimizer.step()
                schedule.step()
    finally:
        torch.set_num_threads(threads)
    return network.eval().requires_grad_(False)


def centres(clips: Tensor) -> Tensor:
    """Centre of mass of the ink of each frame, in pixels: clips uint8 (B, T, H, W, C) to rows and columns (B, T, 2).

    An empty frame has its centre in the middle. A thing that moves without changing has steps of its own length.
    """
    ink = (clips.double().mean(-1) - INK).clamp(min=0)  # (B, T, H, W)
    total = ink.sum((-2, -1))
    height, width = ink.shape[-2:]
    rows = (ink.sum(-1) * torch.arange(height, dtype=ink.dtype, device=ink.device)).sum(-1)
    columns = (ink.sum(-2) * torch.arange(width, dtype=ink.dtype, device=ink.device)).sum(-1)
    middle = torch.tensor([(height - 1) / 2, (width - 1) / 2], dtype=ink.dtype, device=ink.device)
    found = torch.stack([rows, columns], dim=-1) / total.clamp(min=1e-9).unsqueeze(-1)
    return torch.where(total.unsqueeze(-1) > 0, found, middle)


def extractor_of(
    network: DigitsInMotionNetwork, name: str, streams: Sequence[str], weights: Weights, device: torch.device | str
) -> Extractor:
    """The extractor of clips (B, T, H, W, C) uint8 to `streams`, by a network that takes these weights; `name` states
    its data and version.

    Raises ValueError, when it is used, for clips of fewer than three frames.
    """
    network = network.eval().requires_grad_(False).to(device)
    network.load_state_dict(load(weights.content))
    identity: dict[str, object] = {
        "network": name,
        "weights_sha256": weights.sha256,
        "published_weights": False,
        "resize": "none",
        "dtype": "float32",
    }
    return Extractor(identity, partial(_extract, network, tuple(streams), device))


@torch.inference_mode()
def _extract(
    network: DigitsInMotionNetwork, streams: Sequence[str], device: torch.device | str, clips: Tensor
) -> dict[str, Tensor]:
    if clips.dim() != 5 or clips.shape[1] < FEWEST_FRAMES:
        raise ValueError(f"digits in motion are clips of at least {FEWEST_FRAMES} frames, not {tuple(clips.shape[1:])}")
    clips = clips.to(device)
    with exact_arithmetic():
        features, logits = network(clips.float().mean(-1) / 255)
    where = centres(clips)
    found = {"pool": features, "logits": logits, "centres": where.float(), "steps": where.diff(dim=1).float()}
    return {name: found[name].flatten(1) for name in streams}
