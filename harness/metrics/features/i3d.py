"""Features of I3D: StyleGAN-V's TorchScript file, a conversion of TF-Hub's.

Stream: `pool` (B, 400), the Kinetics-400 logits averaged over time, before any softmax: what FVD calls features.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from harness.metrics.features.space import Space
from harness.metrics.features.weights import WeightFile, Weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from harness.metrics.features.extractor import Extractor

FEATURES = 400
FEWEST_FRAMES = 10  # below this its temporal pooling has nothing left
BATCH = 8  # StyleGAN-V's, for 16 frames


def i3d(weights: Weights, device: torch.device | str = "cpu") -> Extractor:
    """The extractor of clips (B, T, H, W, C) uint8; the script itself rescales to [-1, 1] and resizes to 224 x 224.

    TorchScript is a program: give only a file that you trust. Raises ValueError when it is none, when it does not
    return (B, 400), or for clips shorter than 10 frames.
    """
    import torch

    from harness.metrics.features.extractor import Extractor, exact_arithmetic, rgb

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
        "published_weights": weights.known,
        "resize": "inside the script, to 224",
        "dtype": "float32",
    }
    return Extractor(identity, extract, BATCH)


I3D = Space(
    name="i3d",
    items="clips",
    streams=("pool",),
    weights=WeightFile(
        name="i3d",
        file="i3d_torchscript.pt",
        sha256="bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
        licence="not stated by StyleGAN-V; the original I3D is Apache-2.0",
        url="https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1",
    ),
    open=i3d,
    cuts_clips=True,
    fewest_frames=FEWEST_FRAMES,
)
