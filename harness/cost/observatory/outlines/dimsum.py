"""DiMSUM: Mamba over space and over wavelets, fused by attention (Phung et al., arXiv 2411.04168).

As in github.com/VinAIResearch/DiMSUM. Of each block's width, half is mixed token by token, half as two levels of Haar
wavelets; cross-attention fuses the halves. One attention block, whose weights are shared, follows every fourth block.
Letters: L tokens, T = B·L, D width, H = D/2 width of a half, N blocks.
"""

from __future__ import annotations

import dataclasses

from harness.cost.observatory.outlines.pieces import mamba
from models.operations import Op, elementwise, linear, repeat
from models.spec import TIMESTEP_FREQUENCIES

SIZES = {"L": (1024, 16), "XL": (1152, 24)}
"""Width and blocks."""

CHANNELS, DOWNSAMPLE, CONV, MLP_RATIO = 4, 8, 4, 4
SHARED_EVERY, LEVELS, HAAR = 4, 2, 4
"""Blocks to one run of the shared one; levels of wavelets; weights of a filter."""

LABELS = 1001


def operations(size: str, patch: int, pixels: int, batch: int) -> tuple[list[Op], dict[str, int]]:
    """Operations of a class-conditional DiMSUM, without learned variance, and its letters."""
    D, N = SIZES[size]
    L, B, values = (pixels // DOWNSAMPLE // patch) ** 2, batch, CHANNELS * patch**2
    T = B * L
    shared = [_runs(op, N // SHARED_EVERY) for op in _shared(D, L, B)]
    ops = [
        Op("conv", T * D * values, 0, "x_embedder.proj", params=(values + 1) * D),
        linear("t_embedder.mlp.*", B, TIMESTEP_FREQUENCIES, D),
        linear("t_embedder.mlp.*", B, D, D),
        Op("gate", 0, 0, "", params=(LABELS + L) * D),  # labels, positions
        *(repeat(op, N) for op in _block(D, L, B)),
        *shared,
        elementwise("norm", T * D, "final_layer.norm_final", via="module"),
        linear("final_layer.adaLN_modulation.*", B, D, 2 * D),
        linear("final_layer.linear", T, D, values),
        elementwise("activation", B * D * (3 * N + N // SHARED_EVERY + 2), "adaLN_modulation.*", via="module"),
    ]
    return ops, {"N": N, "L": L, "D": D, "S": 16}


def _block(D: int, L: int, B: int) -> list[Op]:
    H, T, where = D // 2, B * L, "blocks.*"
    ops = [Op("norm", 0, 0, f"{where}.norm", via="kernel", params=2 * D)]
    for _ in ("spatial", "freq"):
        ops += [
            *mamba(f"{where}.*_mamba.mixer", T, H, CONV),
            linear(f"{where}.*_mamba.mixer.cond_proj", B, D, D),
            linear(f"{where}.*_mamba.adaLN_modulation.*", B, D, 3 * H),
        ]
    for transform in ("dwt", "idwt"):
        ops.append(Op("conv", LEVELS * HAAR * T * H, 0, f"{where}.freq_mamba.{transform}"))
    return [
        *ops,
        linear(f"{where}.proj.qkv1", T, H, 3 * H),
        linear(f"{where}.proj.qkv2", T, H, 3 * H),
        Op("attention", 2 * 2 * T * L * H, 0, f"{where}.proj", via="function"),
        linear(f"{where}.proj.proj", T, D, D),
        linear(f"{where}.adaLN_modulation.*", B, D, 3 * D),
        *_gated_mlp(f"{where}.mlp", T, D),
    ]


def _shared(D: int, L: int, B: int) -> list[Op]:
    T, where = B * L, "attn_block"
    return [
        elementwise("norm", 2 * T * D, f"{where}.norm", via="module"),
        linear(f"{where}.attn.qkv", T, D, 3 * D),
        Op("attention", 2 * T * L * D, 0, f"{where}.attn", via="function"),
        linear(f"{where}.attn.proj", T, D, D),
        linear(f"{where}.adaLN_modulation.*", B, D, 6 * D),
        *_gated_mlp(f"{where}.mlp", T, D),
    ]


def _gated_mlp(where: str, rows: int, D: int) -> list[Op]:
    inner = MLP_RATIO * D
    return [
        linear(f"{where}.w12", rows, D, 2 * inner),
        elementwise("activation", rows * inner, where, via="module"),
        linear(f"{where}.w3", rows, inner, D),
    ]


def _runs(op: Op, times: int) -> Op:
    """So many runs of the same weights."""
    return dataclasses.replace(repeat(op, times), params=op.params)
