"""Teng's DiM: Mamba with long skips, scanned in four orders in turn (Teng et al., arXiv 2405.14224).

As in github.com/tyshiwo1/DiM-DiffusionMamba. The scan sees PAD learned tokens at the end of each row and of each
column, as many in front of the image, timestep and label. Letters: L tokens with all of those, P without, T = B·L, D
width, N blocks; the last (N - 1)/2 begin with a projection each of their input and of their partner's output.
"""

from __future__ import annotations

from harness.cost.observatory.outlines.pieces import mamba
from models.operations import Op, linear, repeat
from models.spec import TIMESTEP_FREQUENCIES

SIZES = {"H": (1536, 49)}
"""Width and blocks."""

CHANNELS, DOWNSAMPLE, PATCH, CONV, PAD, EXTRAS, LABELS = 4, 8, 2, 3, 3, 2, 1001


def operations(size: str, pixels: int, batch: int) -> tuple[list[Op], dict[str, int]]:
    """Operations of a class-conditional DiM of Teng et al., and its letters."""
    D, N = SIZES[size]
    side, B, values = pixels // DOWNSAMPLE // PATCH, batch, CHANNELS * PATCH**2
    L, P, T = EXTRAS + PAD + (side + PAD) ** 2, B * side**2, B * (EXTRAS + PAD + (side + PAD) ** 2)
    skips = N // 2
    ops = [
        Op("conv", P * D * values, 0, "pos_embed.proj", params=(values + 1) * D),
        linear("adaln_single.emb.*", B, TIMESTEP_FREQUENCIES, D),
        linear("adaln_single.emb.*", B, D, D),
        linear("adaln_single.linear", B, D, 3 * D),
        Op("gate", 0, 0, "", params=(2 * LABELS + EXTRAS + side**2 + 2 * PAD) * D),  # labels twice, positions, pads
        Op("conv", 2 * 9 * P * D, 0, "a4m_adapter.*_smoother", params=2 * 10 * D),
        *(repeat(op, N) for op in mamba("transformer_blocks.*.attn1", T, D, CONV)),
        Op("norm", 0, 0, "transformer_blocks.*.norm1", via="kernel", params=(N + 1) * D),
        Op("gate", 0, 0, "transformer_blocks.*", params=N * 3 * D),  # tables of adaLN
        repeat(linear("transformer_blocks.*.skip_linear.*", T, D, D), 2 * skips),
        linear("proj_out_1", B, D, 2 * D),
        linear("proj_out_2", P, D, values),
    ]
    return ops, {"N": N, "L": L, "D": D, "S": 16}
