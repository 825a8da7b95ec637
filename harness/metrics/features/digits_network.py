"""The network behind the `digits` features, and how it is trained: on 1,500 of the embedded digits.

Streams: `pool` (B, 64), the last hidden layer before its activation; `logits` (B, 10). Expected: it recognises 99 % of
the 297 digits that it has not seen.
Letters: B batch, H height, W width, C channels.
"""

from __future__ import annotations

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from harness.data.images import TRAINING_DIGITS, Digits
from harness.metrics.features.extractor import Extractor, exact_arithmetic
from harness.metrics.features.weights import Weights

VERSION = 1  # of the network and its training; a change of either is a new feature space
SIDE, FEATURES, CLASSES = 8, 64, 10
EPOCHS, BATCH, LEARNING_RATE, SEED = 8, 50, 2e-3, 0


class DigitsNetwork(nn.Module):
    """Two convolutions and a hidden layer: images (B, 1, 8, 8) in [0, 1] to features (B, 64) and logits (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.hidden = nn.Linear(64 * 4 * 4, FEATURES)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.convolutions(x)                               # (B, 64, 4, 4)
        features = self.hidden(x.flatten(1))                   # (B, 64) before the activation: no dead unit costs rank
        return features, self.head(functional.gelu(features))  # (B, 64), (B, 10)


def prepare(images: Tensor) -> Tensor:
    """uint8 (B, H, W, C) to (B, 1, 8, 8) in [0, 1]: channels averaged, other sizes by antialiased bicubic resizing."""
    x = images.permute(0, 3, 1, 2).float().mean(dim=1, keepdim=True) / 255
    if x.shape[-2:] != (SIDE, SIDE):
        x = functional.interpolate(x, size=(SIDE, SIDE), mode="bicubic", antialias=True)
    return x


def train() -> DigitsNetwork:
    """The trained network; the same bits every time on one machine: one thread, fixed seeds, a few seconds."""
    digits = Digits()
    images, labels = digits.pixels.float() / 255, digits.labels
    chosen, _ = Digits.split()
    threads = torch.get_num_threads()
    generator = torch.Generator().manual_seed(SEED)
    try:
        torch.set_num_threads(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            network = DigitsNetwork()
        optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * TRAINING_DIGITS // BATCH)
        for _ in range(EPOCHS):
            for rows in torch.randperm(TRAINING_DIGITS, generator=generator).split(BATCH):
                batch = chosen[rows.numpy()]
                optimizer.zero_grad()
                functional.cross_entropy(network(images[batch])[1], labels[batch]).backward()
                optimizer.step()
                schedule.step()
    finally:
        torch.set_num_threads(threads)
    return network.eval().requires_grad_(False)


def extractor(weights: Weights, device: torch.device | str = "cpu") -> Extractor:
    """The extractor of images (B, H, W, C) uint8, with these weights."""
    network = DigitsNetwork().eval().requires_grad_(False).to(device)
    network.load_state_dict(load(weights.content))

    @torch.inference_mode()
    def extract(images: Tensor) -> dict[str, Tensor]:
        with exact_arithmetic():
            features, logits = network(prepare(images.to(device)))
        return {"pool": features, "logits": logits}

    identity: dict[str, object] = {
        "network": f"digits network, version {VERSION}",
        "weights_sha256": weights.sha256,
        "published_weights": False,
        "resize": f"antialiased bicubic to {SIDE}",
        "dtype": "float32",
    }
    return Extractor(identity, extract)
