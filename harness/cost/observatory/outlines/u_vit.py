"""U-ViT: attention with long skips, timestep and label as tokens (Bao et al., arXiv 2209.12152; baofff/U-ViT).

Letters: L tokens with those two, T = B·L, D width, N = depth + 1 blocks, half of which begin with a projection.
"""

from __future__ import annotations

from harness.cost.observatory.outlines.pieces import product
from models.operations import Op, linear, repeat

SIZES = {"L": (1024, 20, 16), "H": (1152, 28, 16)}
"""Width, depth, heads."""

CONVOLVED = ("L",)
"""Sizes whose configuration ends in a convolution of the image."""

CHANNELS, DOWNSAMPLE, EXTRAS, LABELS = 4, 8, 2, 1001


def operations(size: str, patch: int, pixels: int, batch: int) -> tuple[list[Op], dict[str, int]]:
    """Operations of a class-conditional U-ViT, and its letters."""
    D, depth, heads = SIZES[size]
    side = pixels // DOWNSAMPLE
    patches = (side // patch) ** 2
    L = patches + EXTRAS
    T, values = batch * L, patch**2 * CHANNELS
    block = [
        Op("norm", 0, 2 * T * D, "blocks.*.norm", params=4 * D),
        linear("blocks.*.attn.qkv", T, D, 3 * D, bias=False),
        Op("attention", 2 * T * L * D, 0, "blocks.*.attn", via="function"),
        product("blocks.*.attn", heads * T * L),  # the scores, scaled
        linear("blocks.*.attn.proj", T, D, D),
        linear("blocks.*.mlp.fc1", T, D, 4 * D),
        linear("blocks.*.mlp.fc2", T, 4 * D, D),
    ]
    ops = [
        Op("conv", batch * patches * D * values, 0, "patch_embed.proj", params=(values + 1) * D),
        Op("gate", 0, 0, "", params=(LABELS + L) * D),  # labels, positions
        *(repeat(op, depth + 1) for op in block),
        repeat(linear("out_blocks.*.skip_linear", T, 2 * D, D), depth // 2),
        Op("norm", 0, T * D, "norm", params=2 * D),
        linear("decoder_pred", T, D, values),
    ]
    if size in CONVOLVED:
        weights = 9 * CHANNELS**2
        ops.append(Op("conv", batch * side**2 * weights, 0, "final_layer", params=weights + CHANNELS))
    return ops, {"N": depth + 1, "L": L, "D": D, "S": 0}
