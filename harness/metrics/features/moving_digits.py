"""Features of a small network of the embedded moving digits, which comes with the package: what a frame shows, and
how it moves on.

The weights were trained once, by `python -m harness.metrics.features.train moving-digits --out FILE` with torch 2.15.0
and numpy 2.4.6 on one thread of an AMD EPYC; they are part of the project for the reason that `digits` gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.metrics.features.space import Space
from harness.metrics.features.weights import WeightFile, Weights

if TYPE_CHECKING:
    import torch

    from harness.metrics.features.extractor import Extractor

STREAMS = ("pool", "logits", "steps", "centres")


def _open(weights: Weights, device: torch.device | str) -> Extractor:
    from harness.metrics.features.digits_in_motion_network import extractor_of
    from harness.metrics.features.moving_digits_network import NAME, network

    return extractor_of(network(), NAME, STREAMS, weights, device)


def _train() -> torch.nn.Module:
    from harness.metrics.features.moving_digits_network import train

    return train()


MOVING_DIGITS = Space(
    name="moving-digits",
    items="clips",
    streams=STREAMS,
    weights=WeightFile(
        name="moving-digits",
        file="moving-digits.safetensors",
        sha256="65140f228273c0b98bcd9605da876427692b6dd05c9569b4dade6c6dfd7aba1d",
        licence="MIT",
    ),
    open=_open,
    train=_train,
    data="moving-digits",
    classes=10,
)
