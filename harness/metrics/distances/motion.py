"""How things move: how far the centre of the ink steps from frame to frame, beside how far it does in real clips.

Letters: N clips, T frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.metrics import errorbars
from harness.metrics.distances.distance import Comparison, Distance
from harness.metrics.features.moving_digits import MOVING_DIGITS
from harness.metrics.moments import Array
from harness.metrics.results import Result

SLACK = 0.5  # pixels, beside the range of the reference's steps


def lengths(steps: NDArray[Any]) -> Array:
    """Lengths in pixels of the steps (N, T-1, 2) between frames: (N, T-1)."""
    found: Array = np.linalg.norm(steps.astype(np.float64), axis=-1)
    return found


def turns(steps: NDArray[Any]) -> Array:
    """How much each step differs from the one before, in pixels: (N, T-2); 0 where the motion goes straight on."""
    return lengths(np.diff(steps, axis=1))


def moving(samples: NDArray[Any], reference: NDArray[Any]) -> NDArray[np.bool_]:
    """Of steps (N, T-1, 2): whether each is as long as the reference's are, to half a pixel: (N, T-1)."""
    real, ours = lengths(reference), lengths(samples)
    within: NDArray[np.bool_] = (ours >= real.min() - SLACK) & (ours <= real.max() + SLACK)
    return within


def wasserstein(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The 1-Wasserstein distance of two samples of a number: the area between their distribution functions."""
    a, b = np.sort(a, axis=None), np.sort(b, axis=None)
    places = np.concatenate([a, b])
    places.sort()
    shares = [np.searchsorted(x, places[:-1], side="right") / len(x) for x in (a, b)]
    return float((np.abs(shares[0] - shares[1]) * np.diff(places)).sum())


def measure(compared: Comparison) -> list[Result]:
    """The share of steps as long as real ones, and how far lengths of steps and of turns are from those of real clips.

    Distances are 1-Wasserstein, in pixels: 0 for the reference itself, the mean step for frozen clips.
    """
    ours, real = (rows.reshape(len(rows), -1, 2) for rows in (compared.rows, compared.reference_rows))
    means = {"mean": float(lengths(ours).mean()), "mean_of_reference": float(lengths(real).mean())}

    def between(length: Callable[[NDArray[Any]], Array]) -> Callable[[NDArray[Any]], float]:
        return lambda steps: wasserstein(length(steps), length(real))

    def result(name: str, unit: str, better: Any, statistic: Callable[[NDArray[Any]], float]) -> Result:
        most = 1.0 if unit == "1" else math.inf
        error = errorbars.of_resamples(lambda rows: statistic(ours[rows]), len(ours), compared.settings, most)
        return compared.result(name, statistic(ours), better, error, reference=len(real), details=means, unit=unit)

    return [
        result("moving", "1", "higher", lambda steps: float(moving(steps, real).mean())),
        result("step_distance", "px", "lower", between(lengths)),
        result("turn_distance", "px", "lower", between(turns)),
    ]


MOTION = Distance(
    name="motion",
    measures="displacement between frames",
    spaces=(MOVING_DIGITS,),
    stream="steps",
    measure=measure,
)
