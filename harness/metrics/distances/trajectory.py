"""Where things go: whether a step follows from the one before it, and how fast things are, beside real clips.

What a motion is cannot be known from one frame where things have several speeds: a frame that is copied, moved by
chance or drawn anew does not go on as the two before it did. Letters: N clips, T frames, two axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.metrics import errorbars
from harness.metrics.distances.distance import Comparison, Distance
from harness.metrics.distances.motion import wasserstein
from harness.metrics.features.bouncing_digits import BOUNCING_DIGITS
from harness.metrics.features.moving_digits import MOVING_DIGITS
from harness.metrics.moments import Array
from harness.metrics.results import Result

SLACK = 0.5  # pixels on an axis: nearer to where the motion leads than to any other whole pixel
Steps = tuple[Array, Array, Array]


def steps(centres: NDArray[Any]) -> Steps:
    """Of centres (N, T, 2): each step but the last, the one after it, and where to it would lead again, (N, T-2, 2)."""
    moved = np.diff(centres.astype(np.float64), axis=1)
    before, after = moved[:, :-1], moved[:, 1:]
    return before, after, centres[:, 1:-1] + before


def walls(centres: NDArray[Any]) -> tuple[Array, Array]:
    """Where real things turn round, on each axis (2,): if the next step led there or beyond, towards zero and away.

    Infinite where none does. Scans are centred differently, so that these are the walls of the one that turns first.
    """
    before, after, ahead = steps(centres)
    turned = np.abs(after + before) < np.abs(after - before)
    low: Array = ahead.max(axis=(0, 1), where=turned & (before < 0), initial=-np.inf)
    high: Array = ahead.min(axis=(0, 1), where=turned & (before > 0), initial=np.inf)
    return low, high


def continuing(centres: NDArray[Any], reference: NDArray[Any]) -> NDArray[np.bool_]:
    """Of every three frames, whether the second step continues the first: (N, T-2).

    On both axes it is the first again, or its opposite where real things turn round; and the first is no slower than
    the slowest of the reference, on each axis and on one that moves, so that what stands still continues nothing. Steps
    are compared to half a pixel.
    """
    before, after, ahead = steps(centres)
    low, high = walls(reference)
    straight = np.abs(after - before) <= SLACK
    turned = (np.abs(after + before) <= SLACK) & ((ahead <= low) | (ahead >= high))
    real, fast = speeds(reference), np.abs(before)
    moves = (fast >= real.min() - SLACK).all(axis=-1)
    moves &= (fast >= real.min(where=real > SLACK, initial=np.inf) - SLACK).any(axis=-1)  # one axis of two may rest
    found: NDArray[np.bool_] = (straight | turned).all(axis=-1) & moves
    return found


def speeds(centres: NDArray[Any]) -> Array:
    """How far each axis moves in each step, in pixels: (N, T-1, 2)."""
    found: Array = np.abs(np.diff(centres.astype(np.float64), axis=1))
    return found


def measure(compared: Comparison) -> list[Result]:
    """The share of steps that continue the one before, and how far the speeds are from those of real clips.

    The details have the share of clips of which all steps do: what goes to and fro turns where it may now and then.

    The distance is 1-Wasserstein between the speeds of an axis, in pixels: 0 for the reference itself, the mean speed
    for frozen clips. The first is what motion is, the second that all of it occurs: each can be had without the other.
    """
    ours, real = (rows.reshape(len(rows), -1, 2) for rows in (compared.rows, compared.reference_rows))
    goes_on = continuing(ours, real)  # (N, T-2)
    shares = goes_on.mean(axis=1)
    error = errorbars.of_resamples(lambda rows: float(shares[rows].mean()), len(ours), compared.settings, most=1.0)
    details = {"all_steps": float(goes_on.all(axis=1).mean()), "of_reference": float(continuing(real, real).mean())}
    going = compared.result("continuing", float(shares.mean()), "higher", error, reference=len(real), details=details)
    fast, usual = speeds(ours), speeds(real)
    error = errorbars.of_resamples(lambda rows: wasserstein(fast[rows], usual), len(ours), compared.settings)
    means = {"mean": float(fast.mean()), "mean_of_reference": float(usual.mean())}
    distance = compared.result(
        "speed_distance", wasserstein(fast, usual), "lower", error, reference=len(real), details=means, unit="px"
    )
    return [going, distance]


TRAJECTORY = Distance(
    name="trajectory",
    measures="motion over three frames",
    spaces=(MOVING_DIGITS, BOUNCING_DIGITS),
    stream="centres",
    measure=measure,
)
