"""DiS (Fei et al., arXiv 2402.05608): Vim's bidirectional Mamba with long skips; timestep and label are tokens.

Shapes and names as in github.com/feizc/DiS, always with a label. Letters: B batch, L tokens of the image, X = 2 tokens
of timestep and label, T = B·(L + X), D width.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from models.families.dim import SCAN, bidirectional_mamba
from models.families.family import Family
from models.families.skeleton import BlockForm, Skeleton, final_layer, timestep_features
from models.operations import Op, elementwise, linear, repeat
from models.sizes import SIZES, Size

if TYPE_CHECKING:
    from models.block import Block
    from models.denoiser import Denoiser
    from models.spec import ModelSpec

EXTRAS = 2
"""Tokens of timestep and label, in front of the image's."""


def blocks_of(depth: int) -> dict[str, int]:
    """How many blocks stand where: half of them, the middle one of an odd number, half of them with skips."""
    pairs, rest = divmod(depth, 2)
    return {"in_blocks.*": pairs, "mid_block": rest, "out_blocks.*": pairs}


def operations(spec: ModelSpec, axes: tuple[str, ...], B: int, L: int) -> list[Op]:
    """The closed form of one block but for the residual and the skip, over B sequences of L tokens."""
    return [*rms_norm("blocks.*.norm", B * L, spec.width), *bidirectional_mamba(spec, B, L, "blocks.*.mixer")]


def rms_norm(where: str, rows: int, width: int) -> list[Op]:
    """`RMSNorm` (models/layers.py)."""
    return [
        elementwise("activation", rows * (width + 1), where),  # square, inverse root
        Op("gate", 0, rows * (3 * width + 1), where, via="function", params=width),  # mean, + eps, two products
    ]


def network(spec: ModelSpec, block: BlockForm, B: int, L: int) -> list[Op]:
    """The closed form of `DiSDenoiser`."""
    D, values = spec.width, spec.channels * spec.patch_area
    T = B * (L + EXTRAS)
    ops = [
        Op("conv", B * L * D * values, 0, "patch_embed.proj", params=(values + 1) * D),
        *timestep_features(D, B, ""),
        linear("time_embed.*", B, D, 4 * D),
        elementwise("activation", B * 4 * D, "time_embed.*"),
        linear("time_embed.*", B, 4 * D, D),
        Op("gate", 0, 0, "label_emb.embedding_table", params=(spec.num_classes + 1) * D),
        Op("gate", 0, T * D, "", via="function", params=(L + EXTRAS) * D),  # + position table, which is learned
        elementwise("gate", B * D, ""),  # timestep + label, for the final layer
        elementwise("gate", T * D, ""),  # the last residual
        *rms_norm("norm_f", T, D),
        *final_layer(spec, B, T),
    ]
    first = True
    for path, count in blocks_of(spec.depth).items():
        if count:
            form = [repeat(op, count) for op in block(spec, ("space",), B, L + EXTRAS)]
            ops += [dataclasses.replace(op, where=op.where.replace("blocks.*", path)) for op in form]
            ops.append(elementwise("gate", (count - first) * T * D, path))  # the residual, which the first block begins
            first = False
    ops.append(repeat(linear("out_blocks.*.skip_linear", T, 2 * D, D), spec.depth // 2))
    return ops


def _block() -> type[Block]:
    from models.families.dis.block import DiSBlock

    return DiSBlock


def _denoiser() -> type[Denoiser]:
    from models.families.dis.block import DiSDenoiser

    return DiSDenoiser


DIS = Family(
    name="DiS",
    depths={
        # S to H: the repository's depth, an even number, and the block in the middle; N and T of this project
        "": {"N": 3, "T": 13, "S": 25, "B": 25, "M": 49, "L": 49, "H": 49},
        "matched": {"N": 5, "T": 11, "S": 29, "B": 27, "L": 55, "H": 37},
    },
    sizes=SIZES | {"S": Size(368, 1), "M": Size(768, 12)},
    patches=(2, 4),
    fields={"merge": "sum"},
    operations=operations,
    block=_block,
    skeleton=Skeleton(operations=network, denoiser=_denoiser, period=2),
    implementations=SCAN,
    counterpart="DiT",
    against={"M": "", "H": "XL"},
)
