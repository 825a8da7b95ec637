"""Exact cost of the models that a suite trains, at the suite's own task: no data is opened, nothing is built."""

from __future__ import annotations

from harness.core.store import Measurement, Provenance
from harness.core.workload import Workload
from harness.cost.analytic import analytic
from harness.suites.suite import Suite
from models import ModelSpec


def exact_costs(suite: Suite) -> list[Measurement]:
    """Parameters, and multiply-adds of a forward pass of one image or clip, of every model of a suite."""
    found: dict[ModelSpec, list[Measurement]] = {}
    for row in suite.rows:
        run = row.scores[0].run
        model, resolution = run.spec, run.config.resolution
        if model in found:
            continue
        cost, here = analytic(model, resolution), Provenance.here("none")
        key = {**Workload(spec=model, resolution=resolution).key(), "convention": "exact"}
        found[model] = [
            Measurement(quantity=quantity, value=value, unit=unit, method="analytic", workload=key, provenance=here)
            for quantity, value, unit in (("params", cost.params, "parameter"), ("cost", cost.macs, "MAC"))
        ]
    return [one for several in found.values() for one in several]
