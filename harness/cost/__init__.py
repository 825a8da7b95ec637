"""Exact costs, counted twice, and every other tool's figure for the same models.

`analytic` needs no torch. `count(model, *inputs)` counts any module, yours too: it returns the same `Cost`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.cost.analytic import analytic, crossover, equal_macs_depth, rivals
from harness.cost.conventions import CONVENTIONS, FORMULAS, Convention
from harness.cost.operations import Cost
from harness.cost.sweep import Timing, measure_latency
from models.operations import MAC_KINDS, Op

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.core.workload import Workload
    from harness.cost.memory import Peak

__all__ = [
    "CONVENTIONS",
    "FORMULAS",
    "MAC_KINDS",
    "Convention",
    "Cost",
    "Op",
    "Timing",
    "analytic",
    "count",
    "crossover",
    "equal_macs_depth",
    "measure_latency",
    "predict_memory",
    "rivals",
]


def count(model: nn.Module, *inputs: Tensor) -> Cost:
    """The exact cost of `model(*inputs)` for any module, traced on meta tensors: nothing is computed or changed.

    Raises ValueError, with the reason, for a model that cannot run on meta tensors.
    """
    from harness.cost.trace import count as traced

    return traced(model, *inputs)


def predict_memory(workload: Workload) -> Peak:
    """The peak of memory of one workload, predicted by following every allocation of the real model on fake tensors.

    `nbytes`, `parts` by category, and `breaks(budget)`: the tensor that does not fit. Nothing is computed.
    """
    from harness.cost.memory import predict_memory as predicted

    return predicted(workload)
