"""Features of the Inception network of the ADM evaluation suite: those of FID, sFID, IS, precision and recall, KID."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.metrics.features.space import Space
from harness.metrics.features.weights import WeightFile, Weights

if TYPE_CHECKING:
    import torch

    from harness.metrics.features.extractor import Extractor

WEIGHTS = WeightFile(
    name="inception",
    file="weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    licence="Apache-2.0",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)
STREAMS = ("pool", "spatial", "logits")


def _open(weights: Weights, device: torch.device | str) -> Extractor:
    from harness.metrics.features.inception_network import inception

    return inception(weights, device)


INCEPTION = Space(name="inception", items="images", streams=STREAMS, weights=WEIGHTS, open=_open)
