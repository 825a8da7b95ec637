"""Exact cost of the models that a suite trains, at the suite's own task: no data is opened, nothing is built."""

from __future__ import annotations

from harness.cost.analytic import analytic
from harness.presets import TrainConfig
from harness.store import Measurement, Provenance
from harness.suites import Suite
from models import ModelSpec, spec

PIXEL_CHANNELS = {"digits": 1}  # of embedded data; pictures have three
LATENT = {"channels": 4, "downsample": 8}  # Stable Diffusion's


def spec_of(config: TrainConfig) -> ModelSpec:
    """What `python -m harness.train` would train under a configuration."""
    pixels = {"channels": PIXEL_CHANNELS.get(config.data, 3), "downsample": 1}
    task = {**(pixels if config.vae == "identity" else LATENT), "num_classes": config.num_classes}
    return spec(config.model, **({"depth": config.depth} if config.depth else {}), **task)


def exact_costs(suite: Suite) -> list[Measurement]:
    """Parameters, and multiply-adds of one forward pass of one image, of every model of a suite's image tables."""
    found: dict[ModelSpec, list[Measurement]] = {}
    for row in suite.rows:
        config = row.scores[0].run.config
        model = spec_of(config)
        if row.table == 3 or model in found:
            continue
        cost, here = analytic(model, config.resolution), Provenance.here("none")
        key: dict[str, object] = {"model": model.name, "resolution": config.resolution, "batch": 1}
        key |= {"action": "forward", "convention": "exact"}
        found[model] = [
            Measurement(quantity=quantity, value=value, unit=unit, method="analytic", workload=key, provenance=here)
            for quantity, value, unit in (("params", cost.params, "parameter"), ("cost", cost.macs, "MAC"))
        ]
    return [one for several in found.values() for one in several]
