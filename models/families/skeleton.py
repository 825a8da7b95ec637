"""What stands around the blocks of a family: embeddings, order of the blocks, final layer. Imports no torch.

Letters: B batch, F frames (1 of an image), L tokens of a frame, T = B·F·L, D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.operations import Op, elementwise, linear, repeat
from models.sizes import TIMESTEP_FREQUENCIES

if TYPE_CHECKING:
    from models.denoiser import Denoiser
    from models.spec import ModelSpec
    from models.video import VideoDenoiser

BlockForm = Callable[["ModelSpec", tuple[str, ...], int, int], list[Op]]
"""The closed form of a block: (spec, axes, batch, tokens of a frame) to operations."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Skeleton:
    """A network but for its blocks, as a closed form and in torch.

    `operations(spec, block, B, L)` is the closed form of a forward pass with blocks of the closed form `block`.
    `denoiser()` and `video_denoiser()` import and return the networks' types; without the latter there is no video.
    `period`: every so many further blocks add the same to each total, as in a network with skips two do.
    """

    operations: Callable[[ModelSpec, BlockForm, int, int], list[Op]]
    denoiser: Callable[[], type[Denoiser]]
    video_denoiser: Callable[[], type[VideoDenoiser]] | None = None
    period: int = 1


def timestep_features(count: int, B: int, where: str) -> list[Op]:
    """Cosines and sines of B timesteps, `count` of both."""
    half = count // 2
    return [
        elementwise("gate", 2 * half + B * half, where),  # frequencies, and their products with t
        elementwise("activation", half + 2 * B * half, where),  # exp; cos, sin
    ]


def final_layer(spec: ModelSpec, B: int, T: int) -> list[Op]:
    """T rows of tokens to the pixels of their patch, under an adaLN of B conditions."""
    D = spec.width
    return [
        elementwise("norm", T * D, "final_layer.norm_final", via="module"),
        elementwise("activation", B * D, "final_layer.adaLN_modulation.*"),
        linear("final_layer.adaLN_modulation.*", B, D, 2 * D),
        elementwise("gate", B * D + 2 * T * D, "final_layer"),
        linear("final_layer.linear", T, D, spec.patch_area * spec.out_channels),
    ]


def _adaln(spec: ModelSpec, block: BlockForm, B: int, L: int) -> list[Op]:
    """The closed form of `AdaLNDenoiser`, and of the VideoDenoiser."""
    D, values = spec.width, spec.channels * spec.patch_area
    T = B * max(1, spec.frames) * L
    kinds = Counter(spec.axes(i) for i in range(spec.depth))
    over_time = set(kinds) != {("space",)}
    return [
        Op("conv", T * D * values, 0, "x_embedder.proj", params=(values + 1) * D),
        elementwise("gate", T * D, ""),  # + position table
        *timestep_features(TIMESTEP_FREQUENCIES, B, "t_embedder"),
        linear("t_embedder.mlp.*", B, TIMESTEP_FREQUENCIES, D),
        elementwise("activation", B * D, "t_embedder.mlp.*"),
        linear("t_embedder.mlp.*", B, D, D),
        Op("gate", 0, 0, "y_embedder.embedding_table", params=(spec.num_classes + 1) * D),
        elementwise("gate", B * D, ""),  # timestep + label
        *([elementwise("gate", T * D, "")] if over_time else []),  # + table of frame positions
        *(repeat(op, blocks) for axes, blocks in kinds.items() for op in block(spec, axes, B, L)),
        *final_layer(spec, B, T),
    ]


def _denoiser() -> type[Denoiser]:
    from models.denoiser import AdaLNDenoiser

    return AdaLNDenoiser


def _video_denoiser() -> type[VideoDenoiser]:
    from models.video import VideoDenoiser

    return VideoDenoiser


ADALN = Skeleton(operations=_adaln, denoiser=_denoiser, video_denoiser=_video_denoiser)
"""DiT's (Peebles & Xie, arXiv 2212.09748): fixed positions; timestep and label are the condition of each adaLN."""
