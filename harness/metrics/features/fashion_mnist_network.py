"""The classifier behind `is10k@fashion-mnist` and `accuracy10k@fashion-mnist`, and how it is trained.

Stream: `logits` (B, 10). Expected: it recognises 91.6 % of the 10,000 photographs of the test part.
Letters: B batch, H height, W width, C channels.
"""

from __future__ import annotations

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from harness.data.fashion_mnist import FashionMNIST
from harness.metrics.features.extractor import Extractor, exact_arithmetic
from harness.metrics.features.weights import Weights

VERSION = 1  # of the network and its training; a change of either is a new feature space
SIDE, CLASSES = 32, 10
CHANNELS, STRIDES = (16, 32, 64, 64), (2, 2, 1, 2)
EPOCHS, BATCH, LEARNING_RATE, SEED = 8, 100, 4e-3, 0


class FashionNetwork(nn.Module):
    """Four convolutions and an average: images (B, 1, 32, 32) in [0, 1] to logits (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in zip((1, *CHANNELS), CHANNELS, STRIDES, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Linear(CHANNELS[-1], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolutions(x)                          # (B, 64, 4, 4)
        logits: Tensor = self.head(x.mean(dim=(2, 3)))    # (B, 10)
        return logits


def prepare(images: Tensor) -> Tensor:
    """uint8 (B, H, W, C) to (B, 1, 32, 32) in [0, 1]: channels averaged, other sizes by antialiased resizing."""
    x = images.permute(0, 3, 1, 2).float().mean(dim=1, keepdim=True) / 255
    if x.shape[-2:] != (SIDE, SIDE):
        x = functional.interpolate(x, size=(SIDE, SIDE), mode="bicubic", antialias=True)
    return x


def train() -> FashionNetwork:
    """The trained network; the same bits every time on one machine: one thread, fixed seeds, some minutes."""
    data = FashionMNIST(SIDE)
    threads = torch.get_num_threads()
    generator = torch.Generator().manual_seed(SEED)
    try:
        torch.set_num_threads(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            network = FashionNetwork()
        optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * len(data) // BATCH)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(data), generator=generator).split(BATCH):
                mirrored = torch.rand(len(rows), generator=generator) < 0.5
                images = data.pixels[rows].float() / 255
                images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
                optimizer.zero_grad()
                functional.cross_entropy(network(images), data.labels[rows]).backward()
                optimizer.step()
                schedule.step()
    finally:
        torch.set_num_threads(threads)
    return network.eval().requires_grad_(False)


def extractor(weights: Weights, device: torch.device | str = "cpu") -> Extractor:
    """The extractor of images (B, H, W, C) uint8, with these weights."""
    network = FashionNetwork().eval().requires_grad_(False).to(device)
    network.load_state_dict(load(weights.content))

    @torch.inference_mode()
    def extract(images: Tensor) -> dict[str, Tensor]:
        with exact_arithmetic():
            return {"logits": network(prepare(images.to(device)))}

    identity: dict[str, object] = {
        "network": f"Fashion-MNIST network, version {VERSION}",
        "weights_sha256": weights.sha256,
        "published_weights": False,
        "resize": f"antialiased bicubic to {SIDE}",
        "dtype": "float32",
    }
    return Extractor(identity, extract)
