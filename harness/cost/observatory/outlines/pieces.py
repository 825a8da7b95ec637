"""What outlines share: DiT's skeleton without its blocks, and multiplications that some tools count."""

from __future__ import annotations

from harness.cost.analytic import at_tokens
from models import ModelSpec
from models.operations import Op, elementwise

PRODUCT = "product"
"""The last part of the name of an operation that multiplies two tensors element by element, one result a product."""


def skeleton(spec: ModelSpec, L: int, batch: int) -> list[Op]:
    """All of a model of DiT's skeleton but its blocks, for L tokens an image."""
    return [op for op in at_tokens(spec, L, batch).ops if not op.where.startswith("blocks.")]


def product(where: str, results: int) -> Op:
    """An elementwise product of tensors."""
    return elementwise("gate", results, f"{where}.{PRODUCT}")
