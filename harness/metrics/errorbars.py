"""How far a metric would move with another set of samples: bootstrap, binomial, or repeats with other seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.metrics.moments import Moments, of_weighted
from harness.metrics.settings import Settings

LEVEL = 0.95


@dataclass(frozen=True)
class ErrorBar:
    """Standard error and a 95 % interval [low, high] of a value; `method` says of what. `bias` is the bootstrap's."""

    standard_error: float
    low: float
    high: float
    method: str
    bias: float = 0.0


def of_bootstrap(value: float, replicates: Sequence[float]) -> ErrorBar:
    """From the values of resamples, moved back by their bias.

    A resample has duplicates, hence a lower effective N, and a Fréchet distance lies higher on it: resamples give the
    spread, not the place. With few samples a feature the spread is too wide (about twice, at eight a
    feature; right at twenty): repeats on disjoint seeds are better there.
    """
    x = np.asarray(replicates)
    bias = float(x.mean() - value)
    low, high = np.quantile(x - bias, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    method = f"bootstrap of the samples, {len(x)} resamples, bias-corrected"
    return ErrorBar(float(x.std(ddof=1)), float(low), float(high), method, bias)


def of_share(share: float, count: int) -> ErrorBar:
    """Of a share of `count` items, as a binomial: the manifolds are held fixed."""
    error = math.sqrt(share * (1 - share) / count)
    return ErrorBar(error, max(0.0, share - 1.96 * error), min(1.0, share + 1.96 * error), "binomial, fixed manifolds")


def of_draws(values: Sequence[float], what: str) -> ErrorBar:
    """Of the mean of values that scatter: their standard deviation (N - 1), and mean -+ 1.96 of it."""
    x = np.asarray(values)
    spread = float(x.std(ddof=1)) if len(x) > 1 else math.nan
    return ErrorBar(spread, float(x.mean() - 1.96 * spread), float(x.mean() + 1.96 * spread), f"sd over {what}")


def of_resamples(statistic: Callable[[NDArray[np.int64]], float], count: int, settings: Settings) -> ErrorBar | None:
    """Of `statistic(rows)` by resampling `count` rows with replacement; None where no resamples are wanted."""
    if settings.bootstrap < 2:
        return None
    generator = np.random.default_rng(settings.metric_seed)
    values = [statistic(generator.integers(count, size=count)) for _ in range(settings.bootstrap)]
    return of_bootstrap(statistic(np.arange(count)), values)


def bootstrap_moments(
    rows: NDArray[Any], statistic: Callable[[Moments], float], replicates: int, seed: int
) -> list[float]:
    """`statistic` of the moments of each of `replicates` resamples of rows (N, D) with replacement."""
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(replicates):
        weights = np.bincount(generator.integers(len(rows), size=len(rows)), minlength=len(rows))
        values.append(statistic(of_weighted(rows, weights)))
    return values
