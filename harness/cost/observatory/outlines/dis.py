"""DiS: Vim's bidirectional mixer with long skips and no MLP (Fei et al., arXiv 2402.05608; github.com/feizc/DiS).

In pixel space, without labels: 3 channels, a token for the timestep, learned variance. `depth` blocks and one in the
middle; each of the second half begins with a projection of its input beside that of its partner.
Letters: L tokens, T = B·L, D width, E = 2D inner width, S state, K convolution, R rank of the step size, N = depth + 1.
"""

from __future__ import annotations

from models.families.dim import DIRECTIONS, SCAN_MACS
from models.operations import Op, elementwise, linear, repeat

SIZES = {"S": (368, 24), "B": (768, 24), "M": (768, 48), "L": (1024, 48), "H": (1536, 48)}
"""Width and depth."""

CHANNELS, STATE, CONV = 3, 16, 4


def operations(size: str, patch: int, pixels: int, batch: int) -> tuple[list[Op], dict[str, int]]:
    """Operations of an unconditional DiS on images of so many pixels, and its letters."""
    D, depth = SIZES[size]
    patches = (pixels // patch) ** 2
    L, E, S, K, R, B = patches + 1, 2 * D, STATE, CONV, -(-D // 16), batch
    T, mixer = B * L, "blocks.*.mixer"
    direction = [
        Op("conv", T * E * K, 0, mixer, via="kernel", params=E * K + E),
        linear(mixer, T, E, R + 2 * S, bias=False, via="kernel"),
        linear(mixer, T, R, E, via="kernel"),
        Op("scan", SCAN_MACS * T * E * S, T * E * S, mixer, via="kernel", params=E * S + E),
    ]
    block = [
        Op("norm", 0, T * D, "blocks.*.norm", via="kernel", params=D),
        linear(mixer, T, D, 2 * E, bias=False, via="kernel"),
        *(repeat(op, DIRECTIONS) for op in direction),
        linear(mixer, T, E, D, bias=False, via="kernel"),
    ]
    ops = [
        Op("conv", B * patches * D * CHANNELS * patch**2, 0, "patch_embed.proj", params=(CHANNELS * patch**2 + 1) * D),
        linear("time_embed.*", B, D, 4 * D),
        linear("time_embed.*", B, 4 * D, D),
        *(repeat(op, depth + 1) for op in block),
        repeat(linear("out_blocks.*.skip_linear", T, 2 * D, D), depth // 2),
        elementwise("norm", T * D, "final_layer.norm_final", via="module"),
        linear("final_layer.linear", T, D, patch**2 * 2 * CHANNELS),
    ]
    return ops, {"N": depth + 1, "L": L, "D": D, "S": S}
