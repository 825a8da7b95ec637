"""DiffuSSM-XL by the expression of its paper (Yan et al., arXiv 2311.18257): no code of it is public.

A layer costs 13 (L/M) D² + L D² in the hourglass of ratio M = 2 and 2 L log₂ L D in the convolution by FFT, each of a
latent position, without patches. What conditions it, and the kernels of S4D, are not part of the expression.
"""

from __future__ import annotations

import math

from models.operations import Op

LAYERS, WIDTH, RATIO, DOWNSAMPLE = 29, 1152, 2, 8


def operations(pixels: int, batch: int) -> tuple[list[Op], dict[str, int]]:
    """Operations by the paper's expression, and its letters."""
    N, D, L = LAYERS, WIDTH, (pixels // DOWNSAMPLE) ** 2
    T = batch * L
    ops = [
        Op("linear", N * (13 * T // RATIO + T) * D**2, 0, "layers.*.hourglass"),
        Op("scan", N * round(2 * T * math.log2(L) * D), 0, "layers.*.ssm", via="kernel"),
    ]
    return ops, {"N": N, "L": L, "D": D, "S": 0}
