"""Scores as the results store keeps them: never a number without its protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from harness.core.distributed import Ranks, device_name
from harness.core.provenance import Provenance
from harness.core.records import ScoreRecord
from harness.metrics.results import Result
from harness.metrics.settings import Settings


def record(
    result: Result, about: Mapping[str, object], settings: Settings, here: Ranks, seed: int | None = None
) -> ScoreRecord:
    """A result with all that it depends on: counts, hashes, seeds, arithmetic, versions. `seed` is of the samples."""
    source = about["source_identity"]
    assert isinstance(source, dict), "an identity has names"
    workload = {
        "metric": result.recipe,
        "model": source.get("model"),
        **about,
        "n_samples": result.samples,
        "n_reference": result.reference,
        "arithmetic": settings.arithmetic if result.quantity in ("precision", "recall") else "fp64",
        "metric_seed": settings.metric_seed,
        "permute_seed": settings.permute_seed if result.quantity == "inception_score" else None,
        "processes": here.world,
        "threads": torch.get_num_threads(),
    }
    parts, notes = dict(result.details), list(result.notes)
    if result.error:
        error = result.error
        parts |= {"standard_error": error.standard_error, "low": error.low, "high": error.high, "bias": error.bias}
        notes = [error.method, *notes]
    return ScoreRecord(
        quantity=result.quantity,
        value=result.value,
        unit=result.unit,
        method=f"{result.recipe}, {result.better} is better",
        workload=workload,
        provenance=Provenance.here(device_name(here.device)),
        parts={name: value for name, value in parts.items() if math.isfinite(value)},
        samples=list(result.repeats),
        seed=seed,
        note="; ".join(notes),
    )
