"""A small network trained on the spot on moving digits: what a frame shows, and how it moves on.

Streams: `pool` (B, 96), features of frames and of motion, averaged over time; `logits` (B, 10 T), the digits seen in
each frame alone; `steps` (B, 2 (T-1)), rows and columns by which the ink's centre moves, in pixels, which needs no
network. A Fréchet distance on `pool` is of these features, and comparable with no other.
Letters: B batch, T frames, H height, W width, C channels.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional

from harness.data.moving_digits import STEP, MovingDigits
from harness.metrics.distances.motion import centres
from harness.metrics.features.extractor import Extractor, exact_arithmetic
from harness.metrics.features.weights import cached, weights_directory

VERSION = 2  # of the network and its training; a change of either is a new feature space
CLASSES, FEATURES_OF_FRAMES, FEATURES_OF_MOTION = 10, 64, 32
VELOCITIES = 9  # -1, 0 or 1 steps on each axis
FEWEST_FRAMES = 3  # what the two convolutions over time span
EPOCHS, BATCH, LEARNING_RATE, SEED = 8, 50, 4e-3, 0


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
        x = self.convolutions(x).amax((-2, -1))  # (B, 96)
        features = self.hidden(functional.gelu(x))  # (B, 64)
        return features, self.head(functional.gelu(features))


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
        x = self.convolutions(x).amax((-2, -1)).transpose(1, 2)  # (B, T-2, 48)
        features = self.hidden(x)  # (B, T-2, 32)
        return features, self.head(functional.gelu(features)).unflatten(-1, (2, VELOCITIES))


class MovingDigitsNetwork(nn.Module):
    """Clips (B, T, H, W) in [0, 1] to features (B, 96), the mean over time, and logits of each frame (B, T, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.frames, self.motion = FrameNetwork(), MotionNetwork()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self.frames(x.flatten(0, 1).unsqueeze(1))
        over_time = [features.unflatten(0, x.shape[:2]).mean(1), self.motion(x.unsqueeze(1))[0].mean(1)]
        return torch.cat(over_time, dim=1), logits.unflatten(0, x.shape[:2])


def velocity_classes(corners: np.ndarray) -> Tensor:
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


def moving_digits_extractor(directory: Path | None = None, device: torch.device | str = "cpu") -> Extractor:
    """The extractor, from the cache of weights where it holds one whose hash stands, else trained and cached.

    Raises ValueError, when it is used, for clips of fewer than three frames.
    """
    place = weights_directory(directory) / f"moving-digits-network-{VERSION}.safetensors"
    content = cached(place, lambda: save(train().state_dict()))
    network = MovingDigitsNetwork().eval().requires_grad_(False).to(device)
    network.load_state_dict(load(content))
    identity: dict[str, object] = {
        "network": f"moving-digits network, version {VERSION}",
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "published_weights": False,
        "resize": "none",
        "dtype": "float32",
    }
    return Extractor("moving-digits", ("pool", "logits", "steps"), identity, partial(_extract, network, device))


@torch.inference_mode()
def _extract(network: MovingDigitsNetwork, device: torch.device | str, clips: Tensor) -> dict[str, Tensor]:
    if clips.dim() != 5 or clips.shape[1] < FEWEST_FRAMES:
        raise ValueError(f"moving digits are clips of at least {FEWEST_FRAMES} frames, not {tuple(clips.shape[1:])}")
    clips = clips.to(device)
    with exact_arithmetic():
        features, logits = network(clips.float().mean(-1) / 255)
    steps = centres(clips).diff(dim=1).float()
    return {"pool": features, "logits": logits.flatten(1), "steps": steps.flatten(1)}
