"""The I3D network of the Fréchet video distance: StyleGAN-V's TorchScript file, a conversion of TF-Hub's.

Stream: `pool` (B, 400), the Kinetics-400 logits averaged over time, before any softmax: what FVD calls features.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from harness.metrics.features.extractor import Extractor, exact_arithmetic, rgb
from harness.metrics.features.weights import Weights

FEATURES = 400
FEWEST_FRAMES = 10  # below this its temporal pooling has nothing left


def i3d(weights: Weights, device: torch.device | str = "cpu") -> Extractor:
    """The extractor of clips (B, T, H, W, C) uint8; the script itself rescales to [-1, 1] and resizes to 224 x 224.

    TorchScript is a program: give only a file that you trust. Raises ValueError when it is none, when it does not
    return (B, 400), or for clips shorter than 10 frames.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of TorchScript's retirement: the published file is one
            network = torch.jit.load(weights.open(), map_location=device).eval()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"the file of sha256 {weights.sha256[:8]} is not a TorchScript network: {reason}") from error

    @torch.inference_mode()
    def extract(clips: Tensor) -> dict[str, Tensor]:
        if clips.shape[1] < FEWEST_FRAMES:
            raise ValueError(f"I3D needs clips of at least {FEWEST_FRAMES} frames, not {clips.shape[1]}")
        x = rgb(clips).permute(0, 4, 1, 2, 3).to(device).float()  # (B, 3, T, H, W), 0..255
        with exact_arithmetic():
            features = network(x, rescale=True, resize=True, return_features=True)
        if features.shape != (len(clips), FEATURES):
            raise ValueError(f"the I3D weights gave features {tuple(features.shape)}, not {(len(clips), FEATURES)}")
        return {"pool": features.float()}

    identity: dict[str, object] = {
        "network": "I3D by StyleGAN-V",
        "weights_sha256": weights.sha256,
        "published_weights": weights.published,
        "resize": "inside the script, to 224",
        "dtype": "float32",
    }
    return Extractor("i3d", ("pool",), identity, extract, batch=8)  # StyleGAN-V's, for 16 frames
