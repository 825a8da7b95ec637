"""Exact cost of the models that a suite trains, at the suite's own task: no data is opened, nothing is built."""

from __future__ import annotations

from functools import cache

from harness.cost import Cost, analytic
from harness.suites.run import Run


@cache
def exact_cost(run: Run) -> Cost:
    """Parameters, and multiply-adds of a forward pass of one image or clip, of what a run trains."""
    return analytic(run.spec, run.config.resolution)
