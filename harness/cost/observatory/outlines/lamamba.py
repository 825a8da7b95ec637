"""LaMamba-Diff: VMamba and attention in windows, in a U of three levels (Fu et al., arXiv 2408.02615).

As in github.com/yunxiangfu2001/LaMamba-Diff. Two stages are run at the lowest resolution. The state is 16,
which is the code's default; the one configuration file that is public has a state of 1, with which none of the
printed savings comes out.
Letters: L tokens of a level, T = B·L, D its width, E = 2D inner width, S state, R rank of the step size, K convolution.
"""

from __future__ import annotations

from harness.cost.observatory.outlines.pieces import product
from models.families.dim import SCAN_MACS
from models.operations import Op, linear, repeat
from models.spec import TIMESTEP_FREQUENCIES

WIDTH, STATE = 320, 16
"""Of the model XL: the first level's width."""

LEVELS = ((1, 1, 2), (2, 2, 2), (4, 4, 2), (4, 4, 2), (4, 4, 2), (4, 4, 3), (4, 4, 3), (2, 2, 3), (1, 1, 3))
"""Of each stage down, in the middle and up: its width over the first one's, its side over the latent's, inverted; its
blocks."""


FIRST_UP = 5
"""Stages from there on project the condition whatever its width, those before only to a width of their own."""

CHANNELS, DOWNSAMPLE, WINDOW, HEADS, DIRECTIONS, CONV, MLP_RATIO, LABELS = 4, 8, 8, 16, 4, 3, 4, 1001


def operations(width: int, state: int, pixels: int, batch: int) -> tuple[list[Op], dict[str, int]]:
    """Operations of a class-conditional LaMamba-Diff of that width and state, and the letters of its first level."""
    side, B, C = pixels // DOWNSAMPLE, batch, 4 * width
    T = B * side**2
    ops = [
        Op("conv", T * width * CHANNELS, 0, "patch_embed.proj", params=(CHANNELS + 1) * width),
        _norm("patch_embed.norm", T, width),
        linear("t_embedder.mlp.*", B, TIMESTEP_FREQUENCIES, C),
        linear("t_embedder.mlp.*", B, C, C),
        Op("gate", 0, 0, "", params=LABELS * C + side**2 * width),  # labels, positions
    ]
    for place, (wider, shrunk, blocks) in enumerate(LEVELS):
        projected = wider < 4 or place >= FIRST_UP
        ops += [repeat(op, blocks) for op in _block(wider * width, side // shrunk, state, B, C if projected else 0)]
    for wider in (1, 2):  # rows and columns are halved and doubled
        D, low = wider * width, B * (side // wider // 2) ** 2
        ops += [
            _norm("downsample.norm", low, 4 * D),
            linear("downsample.reduction", low, 4 * D, 2 * D, bias=False),
            linear("upsample.expand", low, 2 * D, 4 * D, bias=False),
            _norm("upsample.norm", 4 * low, D),
        ]
    ops += [
        linear("final_condition_projection", B, C, width),
        linear("final_adaLN_modulation.*", B, width, 2 * width),
        linear("final_up.expand", T, width, width, bias=False),
        _norm("final_up.norm", T, width),
        Op("norm", 0, T * width, "norm_final"),
        linear("final_linear", T, width, 2 * CHANNELS),
    ]
    return ops, {"N": sum(blocks for *_, blocks in LEVELS), "L": side**2, "D": width, "S": state}


def _block(D: int, side: int, S: int, B: int, condition: int) -> list[Op]:
    """A block at a level of that side, whose condition is projected from so many values, or from none."""
    L, E, R, K, window = side**2, 2 * D, -(-D // 16), DIRECTIONS, min(WINDOW, side) ** 2
    T, where = B * L, "blocks.*"
    projection = [linear(f"{where}.condition_projection", B, condition, D)] if condition else []
    return [
        *projection,
        linear(f"{where}.adaLN_modulation.*", B, D, 9 * D),
        *(_norm(f"{where}.norm", T, D) for _ in range(3)),
        linear(f"{where}.op.in_proj", T, D, 2 * E, bias=False),
        Op("conv", T * E * CONV**2, 0, f"{where}.op.conv2d", params=CONV**2 * E),
        *(linear(f"{where}.op.x_proj", T, E, R + 2 * S, bias=False) for _ in range(K)),
        *(linear(f"{where}.op.dt_proj", T, R, E) for _ in range(K)),
        Op("scan", SCAN_MACS * K * T * E * S, K * T * E * S, f"{where}.op", via="kernel", params=K * (S + 1) * E),
        product(f"{where}.op", K * T * E),  # the values, weighted beside the state
        _norm(f"{where}.op.out_norm", T, E),
        linear(f"{where}.op.out_proj", T, E, D, bias=False),
        linear(f"{where}.attn.qkv", T, D, 3 * D),
        Op("attention", 2 * T * window * D, 0, f"{where}.attn", via="function", params=(2 * WINDOW - 1) ** 2 * HEADS),
        linear(f"{where}.attn.proj", T, D, D),
        linear(f"{where}.mlp.fc1", T, D, MLP_RATIO * D),
        linear(f"{where}.mlp.fc2", T, MLP_RATIO * D, D),
    ]


def _norm(where: str, rows: int, width: int) -> Op:
    return Op("norm", 0, rows * width, where, params=2 * width)
