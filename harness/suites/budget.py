"""What a training run and its scores cost: parameters, multiply-adds, and how the run fits the memory of a card.

Costs are exact, at the suite's own task; no data is opened, nothing is built. All of it is of the denoiser alone: an
autoencoder's passes come on top, and end before the denoiser's begin.
"""

from __future__ import annotations

import dataclasses
from functools import cache

from harness.core.capacity import GIB
from harness.cost import Cost, analytic
from harness.suites.fitting import Fitting, fit
from harness.suites.run import Run
from harness.suites.score import Score

BACKWARD = 3
"""A training step costs a forward pass and a backward one of twice its multiply-adds."""


@cache
def exact_cost(run: Run) -> Cost:
    """Parameters, and multiply-adds of a forward pass of one image or clip, of what a run trains."""
    return analytic(run.spec, run.config.resolution)


@cache
def macs_per_item(run: Run) -> int:
    """Multiply-adds of a forward pass over an image, or over a clip and the single frames trained beside it."""
    config, model = run.config, run.spec
    macs = exact_cost(run).macs
    if config.joint_images:  # they pass through the blocks over space, which are every other one
        still = dataclasses.replace(model, frames=0, depth=-(-model.depth // 2))
        macs += config.joint_images * analytic(still, config.resolution).macs
    return macs


def training_macs(run: Run, recomputed: bool = False) -> int:
    """Multiply-adds of a whole run; activations that are recomputed cost its forward passes once more."""
    return (BACKWARD + recomputed) * macs_per_item(run) * run.config.batch * run.config.steps


def scoring_macs(score: Score) -> int:
    """Multiply-adds of drawing the samples of a score; with guidance each step is two passes."""
    guided = 1 if score.cfg_scale == 1 else 2
    return exact_cost(score.run).macs * score.samples * score.sampling_steps * guided


def fitted(run: Run, processes: int, card_gib: float) -> Fitting:
    """How a run fits cards of so many GiB."""
    return fit(run.config, run.spec, processes, card_gib * GIB, further_averages=len(run.further_decays))
