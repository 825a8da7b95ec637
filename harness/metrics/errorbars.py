"""How far a metric would move with another set of samples: bootstrap, binomial, or repeats with other seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.metrics.moments import Moments, of_weighted
from harness.metrics.settings import Settings

LEVEL = 0.95


@dataclass(frozen=True)
class ErrorBar:
    """Standard error and a 95 % interval [low, high] of a value; `method` says how. `bias` is the bootstrap's."""

    standard_error: float
    low: float
    high: float
    method: str
    bias: float = 0.0


def of_bootstrap(value: float, replicates: Sequence[float]) -> ErrorBar:
    """From the standard deviation of the values of resamples, around `value`.

    A resample has duplicates, hence a lower effective N, and a Fréchet distance lies higher on it: resamples give the
    spread, not the place. With few samples a feature the spread is too wide (about twice, at eight a
    feature; right at twenty): repeats on disjoint seeds are better there. The interval is Student's, because the
    quantiles of few resamples lie too close to each other.
    """
    x = np.asarray(replicates)
    error = float(x.std(ddof=1))
    return ErrorBar(
        error, *_interval(value, error, len(x) - 1), f"bootstrap of the samples, {len(x)} resamples",
        float(x.mean() - value),
    )  # fmt: skip


def of_share(share: float, count: int) -> ErrorBar:
    """Of a share of `count` items, as a binomial: the manifolds are held fixed."""
    error = math.sqrt(share * (1 - share) / count)
    return ErrorBar(error, max(0.0, share - 1.96 * error), min(1.0, share + 1.96 * error), "binomial, fixed manifolds")


def of_repeats(values: Sequence[float]) -> ErrorBar:
    """Of the mean of two or more independent values: their standard deviation over the root of their number."""
    x = np.asarray(values)
    error = float(x.std(ddof=1)) / math.sqrt(len(x))
    return ErrorBar(error, *_interval(float(x.mean()), error, len(x) - 1), f"mean of {len(x)} repeats")


def moved(bar: ErrorBar, by: float) -> ErrorBar:
    """The same error of a value that lies `by` higher."""
    return replace(bar, low=bar.low + by, high=bar.high + by)


def of_subsets(values: Sequence[float], size: int, count: int) -> ErrorBar | None:
    """Of the mean of values on random subsets of `size` of `count` items; None where a subset is all there is.

    The variance on m of n items, drawn without replacement, is s^2 / m (1 - m / n), where it is s^2 / n on all of them
    (Cochran, Sampling Techniques, theorem 2.2).
    """
    if count <= size:
        return None
    x = np.asarray(values)
    error = float(x.std(ddof=1)) * math.sqrt(size / (count - size))
    method = f"sd over {len(x)} subsets of {size:,}, scaled to {count:,} items"
    return ErrorBar(error, *_interval(float(x.mean()), error, len(x) - 1), method)


def _interval(value: float, error: float, df: int) -> tuple[float, float]:
    from scipy import stats

    reach = float(stats.t.ppf((1 + LEVEL) / 2, df)) * error
    return value - reach, value + reach


def of_resamples(
    statistic: Callable[[NDArray[np.int64]], float], count: int, settings: Settings, most: float = math.inf
) -> ErrorBar | None:
    """Of `statistic(rows)`, in [0, most], by resampling `count` rows with replacement; None where none are wanted."""
    if settings.bootstrap < 2:
        return None
    generator = np.random.default_rng(settings.metric_seed)
    values = [statistic(generator.integers(count, size=count)) for _ in range(settings.bootstrap)]
    bar = of_bootstrap(statistic(np.arange(count)), values)
    return replace(bar, low=max(0.0, bar.low), high=min(most, bar.high))


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
