"""DiT (Peebles & Xie, arXiv 2212.09748), multi-head self-attention; over clips Latte (Ma et al., arXiv 2401.03048)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.families.adaln_zero import adaln_zero
from models.families.family import Family, Implementations
from models.operations import Op, elementwise, linear

if TYPE_CHECKING:
    from models.block import Block
    from models.spec import ModelSpec
    from models.video import VideoBlock


def operations(spec: ModelSpec, axes: tuple[str, ...], B: int, L: int) -> list[Op]:
    """The closed form of one block."""
    return adaln_zero(spec, axes, B, L, attention, "attn")


def attention(spec: ModelSpec, B: int, L: int, where: str) -> list[Op]:
    """Attention over B sequences of L tokens: a token costs 4D² multiply-adds in projections, 2LD in QKᵀ and AV."""
    D, T = spec.width, B * L
    return [
        linear(f"{where}.qkv", T, D, 3 * D),
        elementwise("gate", 2 * T * D, where),  # q and k, scaled by d^-1/4 each
        Op("attention", 2 * B * L * L * D, 0, where, via="kernel"),  # QKᵀ and AV
        elementwise("activation", B * spec.heads * L * L, where),  # softmax
        linear(f"{where}.proj", T, D, D),
    ]


def _block() -> type[Block]:
    from models.families.dit.block import DiTBlock

    return DiTBlock


def _video_block() -> type[VideoBlock]:
    from models.families.dit.block import DiTVideoBlock

    return DiTVideoBlock


DIT = Family(
    name="DiT",
    depths={
        # S to XL: Peebles & Xie, Table 1; the others are of this project
        "": {"P": 3, "N": 3, "U": 6, "M": 7, "T": 6, "S": 12, "B": 12, "L": 24, "XL": 28},
    },
    operations=operations,
    block=_block,
    video_block=_video_block,
    implementations=Implementations(
        field="attention",
        usual=("sdpa", "naive"),  # torch's fused operator; scores of all pairs of tokens in memory
        choices=lambda: ("sdpa", "naive"),
    ),
)
