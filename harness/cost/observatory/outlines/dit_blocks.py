"""DiT-XL/2 with the other three blocks of its paper (Peebles & Xie, arXiv 2212.09748, section 3.2 and Figure 3).

in-context: timestep and label are two more tokens, there is no adaLN. cross-attention: a third sublayer attends over
those two, there is no adaLN. adaLN: without the gates, so that it regresses four chunks.
Letters: L tokens, T = B·L, D width, N blocks.
"""

from __future__ import annotations

from harness.cost.observatory.outlines.pieces import skeleton
from models import spec
from models.operations import Op, elementwise, linear, repeat

BLOCKS = ("in-context", "cross-attention", "adaLN")
CONDITIONS = 2
"""Timestep and label."""


def operations(block: str, pixels: int, batch: int) -> tuple[list[Op], dict[str, int]]:
    """Operations of DiT-XL/2 with that block, and its letters."""
    dit = spec("DiT-XL/2")
    N, D, L, B = dit.depth, dit.width, dit.tokens(pixels), batch
    seen = L + (CONDITIONS if block == "in-context" else 0)
    T = B * seen
    ops = [
        linear("blocks.*.attn.qkv", T, D, 3 * D),
        Op("attention", 2 * T * seen * D, 0, "blocks.*.attn", via="function"),
        linear("blocks.*.attn.proj", T, D, D),
        linear("blocks.*.mlp.fc1", T, D, 4 * D),
        linear("blocks.*.mlp.fc2", T, 4 * D, D),
        elementwise("norm", 2 * T * D, "blocks.*.norm", via="module"),
    ]
    if block == "adaLN":
        ops.append(linear("blocks.*.adaLN_modulation.*", B, D, 4 * D))
    if block == "cross-attention":
        ops += [
            linear("blocks.*.cross_attn.q", T, D, D),
            linear("blocks.*.cross_attn.kv", B * CONDITIONS, D, 2 * D),
            Op("attention", 2 * T * CONDITIONS * D, 0, "blocks.*.cross_attn", via="function"),
            linear("blocks.*.cross_attn.proj", T, D, D),
            elementwise("norm", T * D, "blocks.*.norm", via="module"),
        ]
    around = skeleton(dit, L, B)
    if block != "adaLN":
        around = [op for op in around if not op.where.startswith("final_layer.adaLN")]
    return [*around, *(repeat(op, N) for op in ops)], {"N": N, "L": L, "D": D, "S": dit.state}
