"""DiCo: convolutions in a U of three levels (Ai et al., arXiv 2505.11196; github.com/shallowdream204/DiCo).

Letters: P positions of a level, D its width, r ratio of the feed-forward part.
"""

from __future__ import annotations

from harness.cost.observatory.outlines.pieces import product
from models.operations import Op, elementwise, linear, repeat
from models.spec import TIMESTEP_FREQUENCIES

SIZES = {
    "S": (128, (5, 4, 4, 4, 4), 2),
    "B": (256, (5, 4, 4, 4, 4), 2),
    "L": (352, (9, 8, 9, 8, 9), 2),
    "XL": (416, (9, 9, 10, 9, 9), 2),
    "H": (416, (14, 12, 10, 12, 14), 4),
}
"""Width of the first level, blocks of the five stages, ratio."""

CHANNELS, DOWNSAMPLE = 4, 8
LEVELS = ((1, 1), (2, 2), (4, 4), (2, 2), (2, 1))
"""Of each stage: its width over the first one's, and its side over the latent's, inverted."""


def operations(size: str, pixels: int, batch: int) -> tuple[list[Op], dict[str, int]]:
    """Operations of a DiCo, and its letters."""
    width, depths, ratio = SIZES[size]
    positions = [batch * (pixels // DOWNSAMPLE // shrink) ** 2 for _, shrink in LEVELS]
    first, second, third = positions[:3]
    ops = [_conv("x_embedder", first, CHANNELS, width, 3)]
    for factor in (1, 2, 4):
        D = factor * width
        ops += [
            linear("t_embedder.*", batch, TIMESTEP_FREQUENCIES, D),
            linear("t_embedder.*", batch, D, D),
            product("t_embedder", TIMESTEP_FREQUENCIES // 2 * batch),
            product("t_embedder", TIMESTEP_FREQUENCIES // 2),  # frequencies
        ]
    for (factor, _), P, blocks in zip(LEVELS, positions, depths, strict=True):
        ops += [repeat(op, blocks) for op in _block(factor * width, P, ratio, batch)]
    ops += [
        _conv("down", first, width, width // 2, 3),
        _conv("down", second, 2 * width, width, 3),
        _conv("up", third, 4 * width, 8 * width, 3),
        _conv("reduce_chan", second, 4 * width, 2 * width, 1),
        _conv("up", second, 2 * width, 4 * width, 3),
        _conv("reduce_chan", first, 2 * width, 2 * width, 1),
        linear("final_layer.adaLN_modulation.*", batch, 2 * width, 4 * width),
        elementwise("norm", first * 2 * width, "final_layer.norm_final", via="module"),
        product("final_layer", first * 2 * width),
        _conv("final_layer.out_proj", first, 2 * width, 2 * CHANNELS, 3),
    ]
    return ops, {"N": sum(depths), "L": first // batch, "D": width, "S": 0}


def _block(D: int, P: int, ratio: int, B: int) -> list[Op]:
    where = "blocks.*"
    return [
        linear(f"{where}.adaLN_modulation.*", B, D, 6 * D),
        elementwise("norm", 2 * P * D, f"{where}.norm", via="module"),
        _conv(f"{where}.conv", P, D, D, 1),
        Op("conv", 9 * P * D, 0, f"{where}.conv", params=10 * D),
        product(f"{where}.ca", B * D),  # the pooled values; torchprofile counts one each
        _conv(f"{where}.ca", B, D, D, 1),
        _conv(f"{where}.conv", P, D, D, 1),
        _conv(f"{where}.ffn", P, D, ratio * D, 1),
        _conv(f"{where}.ffn", P, ratio * D, D, 1),
        product(where, 5 * P * D),  # two modulations, two gates, the channels' attention
    ]


def _conv(where: str, positions: int, inputs: int, outputs: int, kernel: int) -> Op:
    return Op("conv", positions * inputs * outputs * kernel**2, 0, where, params=(inputs * kernel**2 + 1) * outputs)
