"""The network behind the `digits` features, and how it is trained: on 1,500 of the embedded digits.

Streams: `pool` (B, 64), the last hidden layer before its activation; `logits` (B, 10). Expected: it recognises 99 % of
the 297 digits that it has not seen.
Letters: B batch, H height, W width, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.data.digits import Digits
from harness.metrics.features import classifier
from harness.metrics.features.extractor import Extractor
from harness.metrics.features.weights import Weights

VERSION = 1  # of the network and its training; a change of either is a new feature space
SIDE, FEATURES, CLASSES = 8, 64, 10
RECIPE = classifier.Recipe(epochs=8, batch=50, learning_rate=2e-3, optimizer=torch.optim.Adam)


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


def train() -> DigitsNetwork:
    """The trained network: a few seconds."""
    digits = Digits()
    chosen, _ = Digits.split()
    return RECIPE.train(DigitsNetwork, digits.pixels[chosen], digits.labels[chosen])


def extractor(weights: Weights, device: torch.device | str = "cpu") -> Extractor:
    """The extractor of images (B, H, W, C) uint8, with these weights."""
    name = f"digits network, version {VERSION}"
    return classifier.extractor(DigitsNetwork(), name, SIDE, weights, device, ("pool", "logits"))
