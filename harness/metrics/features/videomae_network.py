"""VideoMAE V2's transformer of clips, on verified weights, with the preprocessing of cd-fvd 0.1.1.

Letters: B batch, T frames, H height, W width, S side of the input, N tokens, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from harness.metrics.features.extractor import Extractor, exact_arithmetic, rgb
from harness.metrics.features.state_dicts import state_dict
from harness.metrics.features.videomae import TUBELET
from harness.metrics.features.weights import Weights

FRAMES = 16
"""Of the clips that the network learnt from."""
BATCH = 16  # cd-fvd's


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The sizes of a network; inputs have `side` x `side` pixels."""

    width: int
    depth: int
    heads: int
    mlp_ratio: float
    patch: int
    side: int


GIANT = Architecture(width=1408, depth=40, heads=16, mlp_ratio=48 / 11, patch=14, side=224)
"""ViT-g/14: OpenGVLab/VideoMAEv2, vit_giant_patch14_224."""


class VideoMAE(nn.Module):
    """The encoder, by the parameter names of its authors, but for the biases of attention (`converted`)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        width, patch = architecture.width, architecture.patch
        self.grid = architecture.side // patch
        size = (TUBELET, patch, patch)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, width, kernel_size=size, stride=size)})
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(
            Block(width, architecture.heads, mlp_ratio=architecture.mlp_ratio, qkv_bias=True, norm_layer=norm)
            for _ in range(architecture.depth)
        )
        self.fc_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, clips: Tensor) -> Tensor:
        """The features (B, D) of clips (B, 3, T, S, S), float32 in 0..1, of an even T."""
        x: Tensor = self.patch_embed["proj"](clips)  # (B, D, T/2, S/patch, S/patch)
        x = x.flatten(2).transpose(1, 2)  # (B, N, D)
        x = x + positions(clips.shape[2], self.grid, x.shape[2]).to(x)
        for block in self.blocks:
            x = block(x)
        features: Tensor = self.fc_norm(x.mean(dim=1))  # (B, D)
        return features


def positions(frames: int, grid: int, width: int) -> Tensor:
    """Sines and cosines, alternating, of each token's place in a clip of 16 frames: (1, N, D), float32.

    Those of clips of other lengths are interpolated as cd-fvd does it: by the scale (T/2 + 0.1) / 8.
    """
    usual, wanted = FRAMES // TUBELET, frames // TUBELET
    place = torch.arange(usual * grid * grid, dtype=torch.float64)[:, None]
    angle = place / 10_000 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    table = torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1).float()[None]  # (1, N, D)
    if wanted == usual:
        return table
    volume = table.transpose(1, 2).unflatten(2, (usual, grid, grid))
    volume = functional.interpolate(volume, scale_factor=((wanted + 0.1) / usual, 1, 1), mode="trilinear")
    return volume.flatten(2).transpose(1, 2)


def converted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' state dict without the classifier, in float32.

    The biases of an attention's queries and values become one tensor, with zeros between them for its keys.
    """
    found = {name: tensor.float() for name, tensor in state.items() if not name.startswith("head.")}
    for name in [name for name in found if name.endswith(".q_bias")]:
        q = found.pop(name)
        v = found.pop(name.replace("q_bias", "v_bias"), torch.zeros(0))
        found[name.replace("q_bias", "qkv.bias")] = torch.cat([q, torch.zeros_like(q), v])
    return found


def prepared(clips: Tensor, side: int) -> Tensor:
    """uint8 (B, T, H, W, C) to (B, 3, T, side, side) in 0..1: bilinear, not antialiased, the aspect not kept."""
    frames = rgb(clips).permute(0, 4, 1, 2, 3).float() / 255  # (B, 3, T, H, W)
    resized = functional.interpolate(frames.flatten(0, 1), size=(side, side), mode="bilinear", align_corners=False)
    squashed: Tensor = resized.unflatten(0, frames.shape[:2])
    return squashed


def extractor(weights: Weights, device: torch.device | str, architecture: Architecture) -> Extractor:
    """The extractor of clips (B, T, H, W, C) uint8 of an even T.

    Raises ValueError when the weights are not of this network, or for clips of an odd number of frames.
    """
    try:
        with torch.device("meta"):
            network = VideoMAE(architecture)
        network.load_state_dict(converted(state_dict(weights)), assign=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"the file of sha256 {weights.sha256[:8]} is not weights of VideoMAE: {reason}") from error
    network = network.to(device).eval().requires_grad_(False)

    @torch.inference_mode()
    def extract(clips: Tensor) -> dict[str, Tensor]:
        if clips.shape[1] % TUBELET:
            raise ValueError(f"VideoMAE needs clips of an even number of frames, not {clips.shape[1]}")
        with exact_arithmetic():
            features: Tensor = network(prepared(clips.to(device), architecture.side))
        return {"pool": features.float()}

    identity: dict[str, object] = {
        "network": "VideoMAE V2 ViT-g/14 by OpenGVLab",
        "weights_sha256": weights.sha256,
        "published_weights": weights.known,
        "resize": f"bilinear to {architecture.side}, not rounded",
        "dtype": "float32",
    }
    return Extractor(identity, extract, BATCH)
