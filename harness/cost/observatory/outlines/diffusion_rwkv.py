"""Diffusion-RWKV: bidirectional RWKV with long skips and adaLN-Zero (Fei et al., arXiv 2404.04478).

As in github.com/feizc/Diffusion-RWKV. Letters: L tokens, T = B·L, D width, N blocks; half begin with a projection.
"""

from __future__ import annotations

from models.operations import Op, elementwise, linear, repeat
from models.spec import TIMESTEP_FREQUENCIES

SIZES = {"S": (384, 13), "B": (384, 25), "M": (512, 25), "L": (768, 37), "H": (1024, 37)}
"""Width and blocks."""

CHANNELS, DOWNSAMPLE, MLP_RATIO, LABELS = 4, 8, 4, 1001
WKV_MACS = 11
"""Multiplications for each token and channel of the kernel's last pass: three a direction to update a numerator and
its denominator, five to read both."""

AFFINE = 2
"""A normalisation with weights counts twice with thop."""


def operations(size: str, patch: int, pixels: int, batch: int) -> tuple[list[Op], dict[str, int]]:
    """Operations of a class-conditional Diffusion-RWKV on latents, and its letters."""
    D, N = SIZES[size]
    L, B, values = (pixels // DOWNSAMPLE // patch) ** 2, batch, CHANNELS * patch**2
    T, where = B * L, "blocks.*"
    block = [
        linear(f"{where}.adaLN_modulation.*", B, D, 6 * D),
        Op("norm", 0, AFFINE * 2 * T * D, f"{where}.ln", params=4 * D),
        *(linear(f"{where}.att.{name}", T, D, D, bias=False) for name in ("key", "value", "receptance", "output")),
        Op("recurrence", WKV_MACS * T * D, T * D, f"{where}.att", via="kernel", params=5 * D),  # decay, first, mixes
        linear(f"{where}.ffn.key", T, D, MLP_RATIO * D, bias=False),
        linear(f"{where}.ffn.value", T, MLP_RATIO * D, D, bias=False),
        linear(f"{where}.ffn.receptance", T, D, D, bias=False),
        Op("gate", 0, 0, f"{where}.ffn", params=2 * D),  # mixes
    ]
    ops = [
        Op("conv", T * D * values, 0, "patch_embed.proj", params=(values + 1) * D),
        linear("time_embed.mlp.*", B, TIMESTEP_FREQUENCIES, D),
        linear("time_embed.mlp.*", B, D, D),
        Op("gate", 0, 0, "", params=(LABELS + L) * D),  # labels, positions
        *(repeat(op, N) for op in block),
        repeat(linear("out_blocks.*.skip_linear", T, 2 * D, D), N // 2),
        Op("norm", 0, AFFINE * 2 * T * D, "norm_f", params=4 * D),  # and the first block's
        elementwise("norm", T * D, "final_layer.norm_final", via="module"),
        linear("final_layer.adaLN_modulation.*", B, D, 2 * D),
        linear("final_layer.linear", T, D, 2 * values),
    ]
    return ops, {"N": N, "L": L, "D": D, "S": 0}
