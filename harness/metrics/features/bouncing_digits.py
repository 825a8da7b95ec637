"""Features of a small network of the embedded bouncing digits, which comes with the package: what a frame shows, how it
moves on, and where the ink is.

The weights were trained once, by `python -m harness.metrics.features.train bouncing-digits --out FILE` with torch
2.14.1 and numpy 2.4.6 on one thread of an AMD EPYC; they are part of the project for the reason that `digits` gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.metrics.features.space import Space
from harness.metrics.features.weights import WeightFile, Weights

if TYPE_CHECKING:
    import torch

    from harness.metrics.features.extractor import Extractor

STREAMS = ("pool", "logits", "centres")


def _open(weights: Weights, device: torch.device | str) -> Extractor:
    from harness.metrics.features.bouncing_digits_network import NAME, network
    from harness.metrics.features.digits_in_motion_network import extractor_of

    return extractor_of(network(), NAME, STREAMS, weights, device)


def _train() -> torch.nn.Module:
    from harness.metrics.features.bouncing_digits_network import train

    return train()


BOUNCING_DIGITS = Space(
    name="bouncing-digits",
    items="clips",
    streams=STREAMS,
    weights=WeightFile(
        name="bouncing-digits",
        file="bouncing-digits.safetensors",
        sha256="128a03c77788822a70122201c1a37c3b4d23e8b8e9e55af2e5180b90abf1da92",
        licence="MIT",
    ),
    open=_open,
    train=_train,
    data="bouncing-digits",
    classes=10,
)
