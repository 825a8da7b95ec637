"""Exact costs, counted twice, and every other tool's figure for the same models.

`analytic` needs no torch. `count(model, *inputs)` counts any module, yours too: it returns the same `Cost`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.cost.analytic import analytic, crossover, equal_macs_depth, rivals
from harness.cost.conventions import CONVENTIONS, FORMULAS, Convention
from harness.cost.operations import Cost
from models.operations import MAC_KINDS, Op

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "CONVENTIONS",
    "FORMULAS",
    "MAC_KINDS",
    "Convention",
    "Cost",
    "Op",
    "analytic",
    "count",
    "crossover",
    "equal_macs_depth",
    "rivals",
]


def count(model: nn.Module, *inputs: Tensor) -> Cost:
    """The exact cost of `model(*inputs)` for any module, traced on meta tensors: nothing is computed or changed.

    Raises ValueError, with the reason, for a model that cannot run on meta tensors.
    """
    from harness.cost.trace import count as traced

    return traced(model, *inputs)
