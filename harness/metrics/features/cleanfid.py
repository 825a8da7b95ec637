"""Features of the same Inception network after clean-fid's antialiased resize."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.metrics.features.inception import STREAMS, WEIGHTS
from harness.metrics.features.space import Space
from harness.metrics.features.weights import Weights

if TYPE_CHECKING:
    import torch

    from harness.metrics.features.extractor import Extractor


def _open(weights: Weights, device: torch.device | str) -> Extractor:
    from harness.metrics.features.inception_network import inception

    return inception(weights, device, resize="clean")


CLEANFID = Space(name="cleanfid", items="images", streams=STREAMS, weights=WEIGHTS, open=_open)
