"""A small classifier of Fashion-MNIST, which comes with the package: an Inception Score's counterpart, and accuracy.

The weights were trained once, by `python -m harness.metrics.features.train fashion-mnist --out FILE`, on the
photographs that models learn from; they are part of the project for the reason that `digits` gives. Distances are not
defined on them: a network that has seen nothing but this data does not say how natural a picture is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.metrics.features.space import Space
from harness.metrics.features.weights import WeightFile, Weights

if TYPE_CHECKING:
    import torch

    from harness.metrics.features.extractor import Extractor


def _open(weights: Weights, device: torch.device | str) -> Extractor:
    from harness.metrics.features.fashion_mnist_network import extractor

    return extractor(weights, device)


def _train() -> torch.nn.Module:
    from harness.metrics.features.fashion_mnist_network import train

    return train()


FASHION_MNIST = Space(
    name="fashion-mnist",
    items="images",
    streams=("logits",),
    weights=WeightFile(
        name="fashion-mnist",
        file="fashion-mnist.safetensors",
        sha256="0d02732c10577c15f4c9ac763f6cbef5f0cd05f1483ef0b968d61796c3476f05",
        licence="MIT",
    ),
    open=_open,
    train=_train,
    data="fashion-mnist",
    classes=10,
)
