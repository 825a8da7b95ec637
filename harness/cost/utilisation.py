"""Model FLOPs utilisation: which share of a device's peak a measured step makes of the arithmetic that it needs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from harness.core.cards import ARITHMETICS, card
from harness.core.options import check, option
from harness.core.workload import Workload
from harness.cost.analytic import step_macs


@dataclass(frozen=True, kw_only=True)
class MeasuredStep:
    """One step as it was measured, and the peak of the device, in 10^12 FLOP/s of the step's dtype without sparsity.

    A `card` by its name among the data sheets gives the peak of its products in `arithmetic`.
    Raises ValueError for a field out of bounds.
    """

    step_seconds: float = option(0.0, "seconds that the step took", least=0)
    peak_tflops: float = option(0.0, "peak of the device in 10^12 FLOP/s, of the step's dtype, dense", least=0)
    card: str = option("", "GPU model whose data sheet has the peak, such as H100; instead of --peak-tflops")
    arithmetic: str = option("bfloat16", "arithmetic of matrix products on that GPU", choices=ARITHMETICS)
    action: str = option("train", "what the step was", choices=("train", "sample", "forward"))

    def __post_init__(self) -> None:
        check(self)
        if self.card and self.peak_tflops:
            raise ValueError("give --card or --peak-tflops, not both")
        if self.card:
            object.__setattr__(self, "peak_tflops", card(self.card).flop_per_s[self.arithmetic] / 1e12)
        for name, value in (("step_seconds", self.step_seconds), ("peak_tflops", self.peak_tflops)):
            if not value:
                raise ValueError(
                    f"{name} must be positive: utilisation needs --step-seconds, and --peak-tflops or --card"
                )


@dataclass(frozen=True)
class Utilisation:
    """The exact FLOPs of a step beside what the device could have done in its time.

    `mfu` counts what the step needs: the passes of `NETWORK_PASSES`, and no recomputation (Chowdhery et al., arXiv
    2204.02311, appendix B). Elementwise work is not counted, so that 1 is out of reach.
    """

    workload: Workload
    step_seconds: float
    peak_flops: float

    @property
    def flops(self) -> int:
        """Two for each multiply-add of the step."""
        return 2 * step_macs(self.workload)

    @property
    def mfu(self) -> float:
        """FLOPs of the step over time times peak."""
        return self.flops / self.step_seconds / self.peak_flops


def mfu(workload: Workload, step: MeasuredStep) -> Utilisation:
    """The utilisation of a measured step of a workload, whose action is that of the step.

    Raises ValueError where the step would have been faster than the peak: one of the two is wrong then.
    """
    found = Utilisation(dataclasses.replace(workload, action=step.action), step.step_seconds, step.peak_tflops * 1e12)
    if found.mfu > 1:
        raise ValueError(
            f"{workload.spec.name} needs {found.flops / 1e12:.4g} TFLOP a step, at {step.peak_tflops:g} TFLOP/s at "
            f"least {found.flops / found.peak_flops:.3g} s, not {step.step_seconds:g}"
        )
    return found
