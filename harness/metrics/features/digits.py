"""Features of a small network of the embedded digits, which comes with the package: metrics without a download.

The weights were trained once, by `python -m harness.metrics.features.train digits --out FILE` with torch 2.15.0 and
numpy 2.4.6 on one thread of an AMD EPYC. Another version of torch trains other weights, whose scores cannot be
compared with those in the tables; so these bytes are part of the project.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.metrics.features.space import Space
from harness.metrics.features.weights import WeightFile, Weights

if TYPE_CHECKING:
    import torch

    from harness.metrics.features.extractor import Extractor


def _open(weights: Weights, device: torch.device | str) -> Extractor:
    from harness.metrics.features.digits_network import extractor

    return extractor(weights, device)


def _train() -> torch.nn.Module:
    from harness.metrics.features.digits_network import train

    return train()


DIGITS = Space(
    name="digits",
    items="images",
    streams=("pool", "logits"),
    weights=WeightFile(
        name="digits",
        file="digits.safetensors",
        sha256="a2dcde76d57dc77074fc295350db4dadd644f846e96ed631308a81efd30447b6",
        licence="MIT",
    ),
    open=_open,
    train=_train,
    data="digits",
    classes=10,
)
