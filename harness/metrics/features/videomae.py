"""Features of VideoMAE V2's ViT-g/14, fine-tuned on Something-Something v2: what the content-debiased FVD compares.

Stream: `pool` (B, 1408), the normed mean over all tokens, which its classifier reads.
Ge et al., arXiv 2404.12391; songweige/content-debiased-fvd, whose package is cd-fvd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.metrics.features.space import Space
from harness.metrics.features.weights import WeightFile, Weights

if TYPE_CHECKING:
    import torch

    from harness.metrics.features.extractor import Extractor

TUBELET = 2
"""Frames of a token."""
FILE = "vit_g_hybrid_pt_1200e_ssv2_ft"
URL = f"https://pjlab-gvm-data.oss-cn-shanghai.aliyuncs.com/internvideo/videomaev2/{FILE}.pth"


def _open(weights: Weights, device: torch.device | str) -> Extractor:
    from harness.metrics.features import videomae_network

    return videomae_network.extractor(weights, device, videomae_network.GIANT)


VIDEOMAE = Space(
    name="videomae",
    items="clips",
    streams=("pool",),
    weights=WeightFile(
        name="videomae",
        file=FILE,
        sha256="",  # its publishers state none
        licence="not stated for the file; OpenGVLab/VideoMAEv2 offers it on request",
        had_at=lambda: URL,
    ),
    open=_open,
    cuts_clips=True,
    fewest_frames=TUBELET,
    frame_multiple=TUBELET,
)
