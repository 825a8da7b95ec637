"""DiG without its convolution: the first models of its paper's ablation (Zhu et al., arXiv 2405.18428)."""

from __future__ import annotations

from harness.cost.analytic import analytic
from models import spec
from models.operations import Op

SIZES = ("S", "B", "L", "XL")


def operations(size: str, pixels: int, batch: int) -> tuple[list[Op], dict[str, int]]:
    """Operations of a DiG with patches of 2 that is not convolved, and its letters."""
    dig = spec(f"DiG-{size}/2")
    ops = [op for op in analytic(dig, pixels, batch).ops if op.where != "blocks.*.dw_conv"]
    return ops, {"N": dig.depth, "L": dig.tokens(pixels), "D": dig.width, "S": dig.width // dig.heads // 2}
