"""What small classifiers of images that come with the package share: how one is trained, and read for its features.

Letters: N images, B batch, R pixels a side, H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from harness.metrics.features.extractor import Extractor, exact_arithmetic
from harness.metrics.features.weights import Weights

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a classifier is trained: its rate falls along a cosine; `mirrored` flips half of the images of each batch."""

    epochs: int
    batch: int
    learning_rate: float
    optimizer: type[torch.optim.Optimizer]
    mirrored: bool = False
    seed: int = 0

    def train(self, build: Callable[[], Network], pixels: Tensor, labels: Tensor) -> Network:
        """The trained network of images uint8 (N, 1, R, R) and labels (N,).

        The same bits every time on one machine: one thread, a fixed seed.
        """
        threads = torch.get_num_threads()
        generator = torch.Generator().manual_seed(self.seed)
        try:
            torch.set_num_threads(1)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                network = build()
            optimizer = self.optimizer(network.parameters(), lr=self.learning_rate)  # type: ignore[call-arg]
            steps = self.epochs * len(labels) // self.batch
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            for _ in range(self.epochs):
                for rows in torch.randperm(len(labels), generator=generator).split(self.batch):
                    images = pixels[rows].float() / 255
                    if self.mirrored:
                        flipped = torch.rand(len(rows), generator=generator) < 0.5
                        images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
                    optimizer.zero_grad()
                    functional.cross_entropy(network(images)[1], labels[rows]).backward()
                    optimizer.step()
                    schedule.step()
        finally:
            torch.set_num_threads(threads)
        return network.eval().requires_grad_(False)


def prepare(images: Tensor, side: int) -> Tensor:
    """uint8 (B, H, W, C) to (B, 1, R, R) in [0, 1]: channels averaged, other sizes by antialiased bicubic resizing."""
    x = images.permute(0, 3, 1, 2).float().mean(dim=1, keepdim=True) / 255
    if x.shape[-2:] != (side, side):
        x = functional.interpolate(x, size=(side, side), mode="bicubic", antialias=True)
    return x


def extractor(
    network: nn.Module, name: str, side: int, weights: Weights, device: torch.device | str, streams: Sequence[str]
) -> Extractor:
    """The extractor of images (B, H, W, C) uint8 by a network that gives features and logits, with these weights.

    `streams` are those of `pool`, the features, and `logits` that a space has.
    """
    network.load_state_dict(load(weights.content))
    network.eval().requires_grad_(False).to(device)

    @torch.inference_mode()
    def extract(images: Tensor) -> dict[str, Tensor]:
        with exact_arithmetic():
            features, logits = network(prepare(images.to(device), side))
        found = {"pool": features, "logits": logits}
        return {stream: found[stream] for stream in streams}

    identity: dict[str, object] = {
        "network": name,
        "weights_sha256": weights.sha256,
        "published_weights": False,
        "resize": f"antialiased bicubic to {side}",
        "dtype": "float32",
    }
    return Extractor(identity, extract)
