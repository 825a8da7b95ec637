"""The classifier behind `is10k@fashion-mnist` and `accuracy10k@fashion-mnist`, and how it is trained.

Stream: `logits` (B, 10). Expected: it recognises 91.6 % of the 10,000 photographs of the test part.
Letters: B batch, H height, W width, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.data.fashion_mnist import FashionMNIST
from harness.metrics.features import classifier
from harness.metrics.features.extractor import Extractor
from harness.metrics.features.weights import Weights

VERSION = 1  # of the network and its training; a change of either is a new feature space
SIDE, CLASSES = 32, 10
CHANNELS, STRIDES = (16, 32, 64, 64), (2, 2, 1, 2)
RECIPE = classifier.Recipe(epochs=8, batch=100, learning_rate=4e-3, optimizer=torch.optim.AdamW, mirrored=True)


class FashionNetwork(nn.Module):
    """Four convolutions and an average: images (B, 1, 32, 32) in [0, 1] to features (B, 64) and logits (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in zip((1, *CHANNELS), CHANNELS, STRIDES, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Linear(CHANNELS[-1], CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.convolutions(x)              # (B, 64, 4, 4)
        features = x.mean(dim=(2, 3))         # (B, 64)
        return features, self.head(features)  # (B, 64), (B, 10)


def train() -> FashionNetwork:
    """The trained network: some minutes."""
    data = FashionMNIST(SIDE)
    return RECIPE.train(FashionNetwork, data.pixels, data.labels)


def extractor(weights: Weights, device: torch.device | str = "cpu") -> Extractor:
    """The extractor of images (B, H, W, C) uint8, with these weights."""
    name = f"Fashion-MNIST network, version {VERSION}"
    return classifier.extractor(FashionNetwork(), name, SIDE, weights, device, ("logits",))
