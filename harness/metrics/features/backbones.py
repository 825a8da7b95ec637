"""Any network of timm as a feature space, and what published metrics take from some of them.

`timm:NAME` is the network that timm has by that name, weights and all, after the preprocessing that its own
pretrained_cfg states; its features are what its classifier reads. `timm:NAME#1a2b3c4d` states how the sha256 of the
file of weights begins. Files are never downloaded: a user puts them into the weights' directory.

Some networks a published metric reads in a way of its own, which is a Protocol, with its source.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Literal

from harness.metrics.features.space import Space
from harness.metrics.features.weights import WeightFile, Weights
from harness.metrics.settings import TIMM

if TYPE_CHECKING:
    import torch

    from harness.metrics.features.extractor import Extractor


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How features are taken from a network of timm.

    `side`: pixels that images are brought to, where it is not the network's own. `resize`: `own`, by the network's
    pretrained_cfg; `squash`, both sides alone; `crop`, the middle square; these three by PIL, rounded to bytes. `float`
    squashes by torch's antialiased bicubic, not rounded. `features`: `head`, what the classifier reads (a class token,
    an average, an attention pool); `mean`, of the last map, before any norm of the head; `embedding`, the output at
    unit length. `positions`: how learnt positions are brought to another grid, by `timm` or as `dinov2` does it.
    `dynamic` pads images to whole patches and resizes positions for each.
    """

    network: str
    side: int | None = None
    resize: Literal["own", "squash", "crop", "float"] = "own"
    features: Literal["head", "mean", "embedding"] = "head"
    positions: Literal["timm", "dinov2"] = "timm"
    dynamic: bool = False


FD_DINOV2 = Protocol(network="vit_large_patch14_dinov2.lvd142m", side=224, resize="squash", positions="dinov2")
"""Of FD-DINOv2: layer6ai-labs/dgm-eval, dgm_eval/models/dinov2.py (Stein et al., arXiv 2306.04675), which loads
facebookresearch/dinov2, dinov2/hub/backbones.py."""

CMMD = Protocol(network="vit_large_patch14_clip_quickgelu_336.openai", side=336, resize="crop", features="embedding")
"""Of CMMD: google-research/google-research, cmmd/embedding.py and cmmd/io_util.py (Jayasumana et al., arXiv
2401.09603); the embedding at unit length: google-research/scenic, projects/baselines/clip/layers.py."""

PANEL = {
    "panel-convnextv2": Protocol(
        network="convnextv2_base.fcmae_ft_in22k_in1k", side=224, resize="float", features="mean"
    ),
    "panel-dinov2": Protocol(network="vit_large_patch14_dinov2.lvd142m", side=256, resize="float", dynamic=True),
    "panel-mae": Protocol(network="vit_large_patch16_224.mae", side=224, resize="float", dynamic=True),
    "panel-siglip2": Protocol(network="vit_so400m_patch16_siglip_256.v2_webli", side=224, resize="float", dynamic=True),
    "panel-clip": Protocol(network="vit_large_patch14_clip_224.openai", side=256, resize="float", dynamic=True),
}
"""Of FDr6, beside Inception: Jiawei-Yang/FD-loss, frechet_distance/repr_models.py, with the sizes of eval_all_fds.py
(Yang et al., arXiv 2604.28190)."""


def _open(protocol: Protocol, weights: Weights, device: torch.device | str) -> Extractor:
    from harness.metrics.features.backbones_network import extractor

    return extractor(protocol, weights, device)


def _had_at(network: str) -> str:
    from harness.metrics.features.backbones_network import had_at

    return had_at(network)


def _space(name: str, protocol: Protocol, label: str = "", stated: bool = True) -> Space:
    return Space(
        name=name,
        items="images",
        streams=("pool",),
        weights=WeightFile(
            name=f"{TIMM}{protocol.network}",
            file=protocol.network,
            sha256="",
            licence="the network's own, in its pretrained_cfg",
            had_at=partial(_had_at, protocol.network),
        ),
        open=partial(_open, protocol),
        stated=stated,
        backbone=True,
        label=label,
    )


DINOV2_SPACE = _space(f"{TIMM}{FD_DINOV2.network}", FD_DINOV2, label="dinov2")
CLIP_SPACE = _space("cmmd-clip", CMMD, stated=False)  # a name of its own: timm:NAME is a network's own protocol
PANEL_SPACES = tuple(_space(name, protocol, label=name.replace("-", "_")) for name, protocol in PANEL.items())


@cache
def backbone(name: str) -> Space | None:
    """The space of `timm:NAME`, None of another name. Whether timm knows the network shows when it is opened."""
    match = re.fullmatch(rf"{TIMM}([\w.]+)", name, re.ASCII)
    return _space(name, Protocol(network=match[1])) if match else None


@cache
def pinned(space: Space, sha256: str) -> Space:
    """The same space on a file whose sha256 begins as stated. Raises ValueError for a beginning that is none."""
    if not space.backbone:
        raise ValueError(f"{space.name} is of one known file: leave out #{sha256}")
    if not re.fullmatch("[0-9a-f]{8,64}", sha256):
        raise ValueError(f"{space.name}#{sha256}: give 8 to 64 hexadecimal digits, the beginning of the file's sha256")
    return replace(space, name=f"{space.name}#{sha256}", weights=replace(space.weights, sha256=sha256))
