"""Exact costs, counted twice, and every other tool's figure for the same models.

    from harness.core.workload import Workload
    from harness.cost import CONVENTIONS, analytic, count, measure
    from models import spec

    analytic(spec("DiM-XL/2"), resolution=512).gmacs                  # the closed form; needs no torch
    count(model, x).by_module()                                       # any module of yours, traced
    measure([Workload(spec=spec("DiM-XL/2"), resolution=512)], [CONVENTIONS["exact"], CONVENTIONS["thop"]])

Importing this package imports neither torch nor pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.cost.analytic import analytic, crossover, equal_macs_depth, rivals
from harness.cost.conventions import CONVENTIONS, FORMULAS, Convention
from harness.cost.operations import Cost
from harness.cost.records import closed_form, crossovers, measure, measure_module, workloads_of_tables
from harness.cost.sweep import measure_latency
from harness.cost.timing import Timing
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
    "build",
    "closed_form",
    "count",
    "crossover",
    "crossovers",
    "equal_macs_depth",
    "measure",
    "measure_latency",
    "measure_module",
    "predict_memory",
    "rivals",
    "workloads_of_tables",
]


def count(model: nn.Module, *inputs: Tensor) -> Cost:
    """The exact cost of `model(*inputs)` for any module, traced on meta tensors: nothing is computed or changed.

    Raises ValueError, with the reason, for a model that cannot run on meta tensors.
    """
    from harness.cost.trace import count as traced

    return traced(model, *inputs)


def predict_memory(workload: Workload, device: str = "cuda") -> Peak:
    """The peak of memory of one workload, predicted by following every allocation of the real model on fake tensors.

    `nbytes`, `parts` by category, and `breaks(budget)`: the tensor that does not fit. Nothing is computed, and a device
    of that type ("cuda", "cpu") need not be there.
    """
    from harness.cost.memory import predict_memory as predicted

    return predicted(workload, device)


def build(name: str, meta: bool = True) -> nn.Module:
    """The module that `package.module:factory` makes, in eval mode; modules of the working directory come first.

    It has no values (`meta`) where that works, which a tool that computes the model needs.
    Raises ValueError, in one line, for what cannot be imported, is not there, cannot be called so, or is no module.
    """
    from harness.cost.factory import build as built

    return built(name, meta)
