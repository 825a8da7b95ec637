"""FDr: a Fréchet distance in units of that of ImageNet's validation photographs from its training photographs.

Yang et al., arXiv 2604.28190. The mean of six of them is FDr6 (harness.metrics.panel).
"""

from __future__ import annotations

from dataclasses import replace

from harness.metrics.distances import frechet
from harness.metrics.distances.distance import Comparison, Distance
from harness.metrics.features.backbones import PANEL_SPACES
from harness.metrics.features.inception import INCEPTION
from harness.metrics.results import Result

VALIDATION_FD = {
    "inception": 1.68,
    "panel-convnextv2": 56.87,
    "panel-dinov2": 14.19,
    "panel-mae": 0.04,
    "panel-siglip2": 0.60,
    "panel-clip": 5.60,
}
"""By feature space, at 256 pixels: Jiawei-Yang/FD-loss, eval_all_fds.py, FDR_VALIDATION_FD, and scripts/README.md; also
End2End-Diffusion/diffusionbench-evals, fd_evaluator/catalogue.yaml. They are printed to two decimals: 0.04 may be
anything between 0.035 and 0.045."""


def measure(compared: Comparison) -> list[Result]:
    """The Fréchet distance on these features, divided; its details have the distance itself and what divides it."""
    (found,) = frechet.measure(compared)
    space = compared.recipe.space
    unit = VALIDATION_FD[space.name.partition("#")[0]]
    details = {"fd": found.value, "validation_fd": unit} | {
        name: value / unit if name == "infinite_samples" else value for name, value in found.details.items()
    }
    error = found.error and replace(
        found.error,
        standard_error=found.error.standard_error / unit,
        low=found.error.low / unit,
        high=found.error.high / unit,
        bias=found.error.bias / unit,
    )
    quantity = compared.quantity if space.label else f"{compared.quantity}_{space.name}"
    return [replace(found, quantity=quantity, value=found.value / unit, error=error, details=details)]


FDR = Distance(
    name="fdr",
    measures="Fréchet distance by that of real photographs",
    spaces=(*PANEL_SPACES, INCEPTION),
    reads="moments",
    measure=measure,
)
