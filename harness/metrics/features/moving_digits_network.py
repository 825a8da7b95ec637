"""The network behind the `moving-digits` features, and how it is trained: on clips of 1,500 of the embedded digits.

Streams: `pool` (B, 96), features of frames and of motion, averaged over time; `logits` (B, 10 T), the digits seen in
each frame alone; `steps` (B, 2 (T-1)), rows and columns by which the ink's centre moves, in pixels, which needs no
network. Expected: on scans that it has not seen, it recognises 95 % of the digits and of the velocities.
Letters: B batch, T frames, H height, W width, C channels.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from harness.data.moving_digits import STEP, MovingDigits
from harness.metrics.features.extractor import Extractor, exact_arithmetic
from harness.metrics.features.weights import Weights

VERSION = 2  # of the network and its training; a change of either is a new feature space
CLASSES, FEATURES_OF_FRAMES, FEATURES_OF_MOTION = 10, 64, 32
VELOCITIES = 9  # -1, 0 or 1 steps on each axis
FEWEST_FRAMES = 3  # what the two convolutions over time span
EPOCHS, BATCH, LEARNING_RATE, SEED = 8, 50, 4e-3, 0
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
    """Clips (B, 1, T, H, W) in [0, 1] to features (B, T-2, 32) and logits (B, T-2, 2, 9) of two steps' velocities."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv3d(1, 24, (2, 5, 5), padding=(0, 2, 2)), nn.ReLU(), nn.MaxPool3d((1, 2, 2)),
            nn.Conv3d(24, 48, (2, 3, 3), padding=(0, 1, 1)), nn.ReLU(),
        )  # fmt: skip
        self.hidden = nn.Linear(48, FEATURES_OF_MOTION)
        self.head = nn.Linear(FEATURES_OF_MOTION, 2 * VELOCITIES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.convolutions(x).amax((-2, -1)).transpose(1, 2)                                # (B, T-2, 48)
        features = self.hidden(x)                                                              # (B, T-2, 32)
        return features, self.head(functional.gelu(features)).unflatten(-1, (2, VELOCITIES))   # ..., (B, T-2, 2, 9)


class MovingDigitsNetwork(nn.Module):
    """Clips (B, T, H, W) in [0, 1] to features (B, 96), the mean over time, and logits of each frame (B, T, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.frames, self.motion = FrameNetwork(), MotionNetwork()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self.frames(x.flatten(0, 1).unsqueeze(1))                    # (B T, 64), (B T, 10)
        motion, _ = self.motion(x.unsqueeze(1))                                         # (B, T-2, 32)
        over_time = [features.unflatten(0, x.shape[:2]).mean(1), motion.mean(1)]        # (B, 64), (B, 32)
        return torch.cat(over_time, dim=1), logits.unflatten(0, x.shape[:2])            # (B, 96), (B, T, 10)


def velocity_classes(corners: NDArray[np.int64]) -> Tensor:
    """Which of the 9 velocities each step of paths (B, T, 2) has: (B, T-1)."""
    steps = np.diff(corners, axis=1) // STEP + 1
    return torch.from_numpy(steps[..., 0] * 3 + steps[..., 1])


def train() -> MovingDigitsNetwork:
    """The trained network; the same bits every time on one machine: one thread, fixed seeds, some twenty seconds.

    Each scan is seen once an epoch, on another path; a single frame of three teaches the digit, all three the motion.
    """
    data = MovingDigits(frames=FEWEST_FRAMES)
    scans = len(data.scans)
    threads = torch.get_num_threads()
    generator = torch.Generator().manual_seed(SEED)
    try:
        torch.set_num_threads(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            network = MovingDigitsNetwork()
        optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=EPOCHS * scans // BATCH)
        for epoch in range(EPOCHS):
            for rows in torch.randperm(scans, generator=generator).split(BATCH):
                chosen = (rows + epoch * scans).tolist()
                clips = torch.from_numpy(data.pixels(chosen)).float() / 255
                velocities = velocity_classes(np.stack([data.corners(index) for index in chosen]))
                frames = clips[torch.arange(len(rows)), torch.randint(FEWEST_FRAMES, (len(rows),), generator=generator)]
                optimizer.zero_grad()
                seen = functional.cross_entropy(network.frames(frames.unsqueeze(1))[1], data.labels(chosen))
                guessed = network.motion(clips.unsqueeze(1))[1].flatten(0, -2)
                (seen + functional.cross_entropy(guessed, velocities.flatten())).backward()
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


def extractor(weights: Weights, device: torch.device | str = "cpu") -> Extractor:
    """The extractor of clips (B, T, H, W, C) uint8, with these weights.

    Raises ValueError, when it is used, for clips of fewer than three frames.
    """
    network = MovingDigitsNetwork().eval().requires_grad_(False).to(device)
    network.load_state_dict(load(weights.content))
    identity: dict[str, object] = {
        "network": f"moving-digits network, version {VERSION}",
        "weights_sha256": weights.sha256,
        "published_weights": False,
        "resize": "none",
        "dtype": "float32",
    }
    return Extractor(identity, partial(_extract, network, device))


@torch.inference_mode()
def _extract(network: MovingDigitsNetwork, device: torch.device | str, clips: Tensor) -> dict[str, Tensor]:
    if clips.dim() != 5 or clips.shape[1] < FEWEST_FRAMES:
        raise ValueError(f"moving digits are clips of at least {FEWEST_FRAMES} frames, not {tuple(clips.shape[1:])}")
    clips = clips.to(device)
    with exact_arithmetic():
        features, logits = network(clips.float().mean(-1) / 255)
    steps = centres(clips).diff(dim=1).float()
    return {"pool": features, "logits": logits.flatten(1), "steps": steps.flatten(1)}
