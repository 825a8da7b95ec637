"""DiG: gated linear attention in DiT's skeleton (Zhu et al., arXiv 2405.18428; modules as in github.com/hustvl/DiG).

Letters: L tokens, T = B·L, D width, H heads, N blocks, I inner width of the SwiGLU.
A state of (D/2H, D/H) a head has three multiplications a value and token: its decay, its update, its product with q.
"""

from __future__ import annotations

from harness.cost.observatory.outlines.pieces import skeleton
from models import spec
from models.operations import Op, elementwise, linear, repeat

SIZES = {"S": 6, "B": 12, "L": 16, "XL": 18}
"""Heads; widths and depths are DiT's."""

GATE_RANK = 16


def operations(size: str, pixels: int, batch: int, convolution: bool = True) -> tuple[list[Op], dict[str, int]]:
    """Operations of a DiG with patches of 2, and its letters; without the convolution as in the paper's ablation."""
    dit = spec(f"DiT-{size}/2")
    N, D, H, L = dit.depth, dit.width, SIZES[size], dit.tokens(pixels)
    T, inner = batch * L, inner_width(dit.width)
    attn = "blocks.*.attn"
    ops = [
        linear("blocks.*.adaLN_modulation.*", batch, D, 6 * D),
        elementwise("norm", 2 * T * D, "blocks.*.norm", via="module"),
        linear(f"{attn}.q_proj", T, D, D // 2, bias=False),
        linear(f"{attn}.k_proj", T, D, D // 2, bias=False),
        linear(f"{attn}.v_proj", T, D, D, bias=False),
        linear(f"{attn}.g_proj", T, D, D, bias=False),
        linear(f"{attn}.gk_proj.0", T, D, GATE_RANK, bias=False),
        linear(f"{attn}.gk_proj.1", T, GATE_RANK, D // 2),
        Op("scan", 3 * T * D // 2 * D // H, 0, attn, via="kernel"),
        linear(f"{attn}.o_proj", T, D, D, bias=False),
        linear("blocks.*.mlp.gate_proj", T, D, 2 * inner, bias=False),
        linear("blocks.*.mlp", T, inner, D, bias=False, via="kernel"),
    ]
    if convolution:
        ops.append(Op("conv", 9 * T * D, 0, "blocks.*.dw_conv", params=10 * D))
    blocks = [repeat(op, N) for op in ops]
    return [*skeleton(dit, L, batch), *blocks], {"N": N, "L": L, "D": D, "S": D // H // 2}


def inner_width(D: int) -> int:
    """Two thirds of 4 D, up to a multiple of 256."""
    return -(-int(D * 4 * 2 / 3) // 256) * 256
