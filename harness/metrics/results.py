"""What a distance finds: numbers with their error bars, and the results of repeats as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from harness.metrics import errorbars
from harness.metrics.errorbars import ErrorBar


@dataclass(frozen=True)
class Result:
    """One number of a recipe, in `unit`. `details` are further numbers by name; `better` is `lower` or `higher`."""

    recipe: str
    quantity: str
    value: float
    better: str
    error: ErrorBar | None
    samples: int
    reference: int | None
    details: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    repeats: tuple[float, ...] = ()
    unit: str = "1"


def combine(runs: Sequence[list[Result]], same_samples: bool = False) -> list[Result]:
    """The results of repeats as one: their mean, its error, their standard deviation and extremes.

    The error is that of disjoint sets of samples. With the `same_samples` in each, what varies is the reference alone,
    which says nothing of other samples: the error is the first run's, around the mean.
    """
    if len(runs) == 1:
        return runs[0]
    combined = []
    for results in zip(*runs, strict=True):
        values = [result.value for result in results]
        mean = float(np.mean(values))
        own = results[0].error and errorbars.moved(results[0].error, mean - values[0])
        details = {name: float(np.mean([r.details[name] for r in results])) for name in results[0].details}
        notes = tuple(dict.fromkeys(note for result in results for note in result.notes))
        combined.append(
            replace(
                results[0],
                value=mean,
                error=own if same_samples else errorbars.of_repeats(values),
                details={**details, "sd": float(np.std(values, ddof=1)), "min": min(values), "max": max(values)},
                notes=notes,
                repeats=tuple(values),
            )
        )
    return combined
