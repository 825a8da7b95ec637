"""What outlines share: DiT's skeleton without its blocks, Mamba's mixer, multiplications that some tools count."""

from __future__ import annotations

from harness.cost.analytic import at_tokens
from models import ModelSpec
from models.families.dim import SCAN_MACS
from models.operations import Op, elementwise, linear

PRODUCT = "product"
"""The last part of the name of an operation that multiplies two tensors element by element, one result a product."""


def skeleton(spec: ModelSpec, L: int, batch: int) -> list[Op]:
    """All of a model of DiT's skeleton but its blocks, for L tokens an image."""
    return [op for op in at_tokens(spec, L, batch).ops if not op.where.startswith("blocks.")]


def product(where: str, results: int) -> Op:
    """An elementwise product of tensors."""
    return elementwise("gate", results, f"{where}.{PRODUCT}")


def mamba(where: str, rows: int, width: int, conv: int, state: int = 16) -> list[Op]:
    """Mamba's mixer in one direction over so many tokens, by the names of its layers; expansion 2."""
    inner, rank = 2 * width, -(-width // 16)
    return [
        linear(f"{where}.in_proj", rows, width, 2 * inner, bias=False),
        Op("conv", rows * inner * conv, 0, f"{where}.conv1d", via="kernel", params=(conv + 1) * inner),
        linear(f"{where}.x_proj", rows, inner, rank + 2 * state, bias=False),
        linear(f"{where}.dt_proj", rows, rank, inner),
        Op("scan", SCAN_MACS * rows * inner * state, rows * inner * state, where, "kernel", (state + 1) * inner),
        linear(f"{where}.out_proj", rows, inner, width, bias=False),
    ]
