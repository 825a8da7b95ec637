"""The Inception network of the ADM evaluation suite, by torch-fidelity: FID, sFID, IS and P/R of one pass.

Streams: `pool` (B, 2048), the last average pool; `spatial` (B, 2023), seven channels of 17 x 17 of the first branch of
Mixed_6d after its ReLU (`mixed_6/conv` of the TensorFlow graph), channel fastest; `logits` (B, 1008) without the bias.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from harness.metrics.features.extractor import Extractor, exact_arithmetic, rgb
from harness.metrics.features.weights import Weights

RESIZES = ("tf1", "clean")
SIDE = 299
SPATIAL_CHANNELS = 7
BLOCKS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool"),
)


def inception(
    weights: Weights,
    device: torch.device | str = "cpu",
    resize: str = "tf1",
    dtype: torch.dtype = torch.float32,
) -> Extractor:
    """The extractor, after TensorFlow 1's bilinear resize (`tf1`) or clean-fid's antialiased bicubic one (`clean`).

    `dtype` float64 is for audits: features no longer depend on the batch. Raises ValueError for another resize, when
    torch-fidelity is not installed, or when the weights are not of this network.
    """
    if resize not in RESIZES:
        raise ValueError(f"unknown resize {resize!r}; choose from {', '.join(RESIZES)}")
    network = _network(weights).to(device=device, dtype=dtype, memory_format=torch.channels_last)  # the faster layout
    held: list[Tensor] = []
    network.Mixed_6d.branch1x1.register_forward_hook(lambda module, inputs, output: held.append(output))

    @torch.inference_mode()
    def extract(images: Tensor) -> dict[str, Tensor]:
        with exact_arithmetic():
            x = _clean(images) if resize == "clean" else _tf1(rgb(images).permute(0, 3, 1, 2).to(device, dtype))
            x = (x.to(device, dtype, memory_format=torch.channels_last) - 128) / 128  # (B, 3, 299, 299)
            for name in BLOCKS:
                x = getattr(network, name)(x)
            pool = x.flatten(1)  # (B, 2048)
            spatial = held.pop()[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)  # (B, 17 * 17 * 7)
            logits = pool.mm(network.fc.weight.T)  # (B, 1008)
        return {"pool": pool.float(), "spatial": spatial.float(), "logits": logits.float()}

    identity: dict[str, object] = {
        "network": "inception-2015-12-05 by torch-fidelity",
        "weights_sha256": weights.sha256,
        "published_weights": weights.known,
        "resize": resize,
        "dtype": str(dtype).removeprefix("torch."),
    }
    return Extractor(identity, extract)


def _network(weights: Weights) -> Any:
    try:
        from torch_fidelity import feature_extractor_inceptionv3 as module
    except ImportError as error:
        raise ValueError("Inception metrics need torch-fidelity: pip install torch-fidelity") from error
    try:
        state = torch.load(weights.open(), map_location="cpu", weights_only=True)
        # Its own loader would unpickle anything; ours has already read plain tensors.
        with mock.patch.object(module, "load_state_dict_from_url", return_value=state):
            return module.FeatureExtractorInceptionV3("inception", ["2048"])
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"the file of sha256 {weights.sha256[:8]} is not weights of this Inception: {reason}"
        ) from error


def _tf1(x: Tensor) -> Tensor:
    """(B, 3, H, W) to (B, 3, 299, 299): bilinear without half-pixel centres or antialiasing, as in the TF graph.

    Along the width first, each row once, then along the height: the order that gives TensorFlow's own bits.
    """
    for dim in (3, 2):
        size = x.shape[dim]
        place = torch.arange(SIDE, dtype=torch.float32, device=x.device) * (size / SIDE)
        low = place.long()
        high = (low + 1).clamp(max=size - 1)
        share = (place - low).to(x.dtype)
        share = share if dim == 3 else share[:, None]
        first = x.index_select(dim, low)
        x = first + (x.index_select(dim, high) - first) * share
    return x


def _clean(images: Tensor) -> Tensor:
    """(B, H, W, C) uint8 to (B, 3, 299, 299) float32: PIL's bicubic on each channel in float, clipped, not rounded."""
    resized = [
        np.stack([np.asarray(Image.fromarray(plane).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for plane in image])
        for image in images.permute(0, 3, 1, 2).float().numpy()
    ]
    x = torch.from_numpy(np.stack(resized)).clamp(0, 255)
    return x.expand(-1, 3, -1, -1)
