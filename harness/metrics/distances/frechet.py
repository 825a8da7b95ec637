"""The Fréchet distance between two Gaussians, |m1 - m2|^2 + Tr S1 + Tr S2 - 2 Tr (S1 S2)^(1/2), in float64.

Under names that state the features: FID and sFID are of Inception, clean-fid's after another resize, FVD of a network
of video, CD-FVD of VideoMAE; on the features of any other network of images it is FD, and sFD on its spatial ones.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.metrics import errorbars
from harness.metrics.distances.distance import Comparison, Distance
from harness.metrics.features.bouncing_digits import BOUNCING_DIGITS
from harness.metrics.features.cleanfid import CLEANFID as CLEANFID_SPACE
from harness.metrics.features.digits import DIGITS
from harness.metrics.features.efficientnet_lite0 import EFFICIENTNET_LITE0
from harness.metrics.features.i3d import I3D
from harness.metrics.features.inception import INCEPTION
from harness.metrics.features.moving_digits import MOVING_DIGITS
from harness.metrics.features.videomae import VIDEOMAE
from harness.metrics.moments import Gaussian, Moments, stream
from harness.metrics.results import Result

FEWEST = 20
"""Samples that an extrapolation needs."""


@dataclass(frozen=True)
class Frechet:
    """A distance with its parts: `mean_term` + `covariance_term`; `rank` of the product, of `dimension`; `solver`."""

    value: float
    mean_term: float
    covariance_term: float
    rank: int
    dimension: int
    solver: str


def frechet_distance(a: Gaussian, b: Gaussian) -> Frechet:
    """Distance of two Gaussians; symmetric in them.

    Warns when either has no more samples than features: its covariance is singular and the distance badly biased.
    Raises ValueError for different numbers of features, or for values that are not finite.
    """
    from harness.metrics.distances.matrix_root import trace_of_root

    if a.mean.shape != b.mean.shape:
        raise ValueError(f"one set has {len(a.mean)} features, the other {len(b.mean)}")
    dimension = len(a.mean)
    for gaussian in (a, b):
        if not (np.isfinite(gaussian.mean).all() and np.isfinite(gaussian.covariance).all()):
            raise ValueError("a mean or covariance is not finite")
    if (a.count or dimension + 1) > (b.count or dimension + 1):
        a, b = b, a  # the set that may lack rank first
    fewest = a.count or dimension + 1
    if fewest <= dimension:
        warnings.warn(
            f"{fewest} samples for {dimension} features: the covariance is singular and the distance biased upwards",
            stacklevel=2,
        )
    mean_term = float(((a.mean - b.mean) ** 2).sum())
    trace, rank, solver = trace_of_root(a.covariance, b.covariance, fewest if fewest <= dimension else None)
    covariance_term = float(np.trace(a.covariance) + np.trace(b.covariance)) - 2 * trace
    return Frechet(mean_term + covariance_term, mean_term, covariance_term, rank, dimension, solver)


def extrapolated(rows: NDArray[np.float32], reference: Gaussian, seed: int, normalisation: str = "sample") -> float:
    """The distance at infinitely many samples: the intercept of a line in 1/N through 15 seeded subsets of rows (N, D).

    Chong & Forsyth, arXiv 1911.07023, with dgm-eval's sizes: from min(5000, N // 10) to N. Raises ValueError below 20.
    """
    count = len(rows)
    if count < FEWEST:
        raise ValueError(f"an extrapolation needs at least {FEWEST} samples, not {count}")
    sizes = np.unique(np.linspace(min(5000, max(count // 10, 2)), count, 15).astype(int))
    generator = np.random.default_rng(seed)
    distances = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small subsets are the point here
        for size in sizes:
            chosen = np.sort(generator.choice(count, size, replace=False))
            distances.append(frechet_distance(stream([rows[chosen]]).gaussian(normalisation), reference).value)
    _, intercept = np.polyfit(1 / sizes, distances, 1)
    return float(intercept)


def measure(compared: Comparison) -> list[Result]:
    """One value, with the parts of the distance; its error bar is a bootstrap of the samples."""
    settings, target, normalisation = compared.settings, compared.gaussian, compared.covariance
    found = frechet_distance(compared.moments.gaussian(normalisation), target)
    details = {
        "mean_term": found.mean_term,
        "covariance_term": found.covariance_term,
        "rank": float(found.rank),
        "dimension": float(found.dimension),
    }
    error = None
    if settings.bootstrap > 1:

        def distance(moments: Moments) -> float:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the samples themselves have given these warnings once
                return frechet_distance(moments.gaussian(normalisation), target).value

        values = errorbars.bootstrap_moments(compared.rows, distance, settings.bootstrap, settings.metric_seed)
        error = errorbars.of_bootstrap(found.value, values)
    if settings.extrapolate:
        details["infinite_samples"] = extrapolated(compared.rows, target, settings.metric_seed, normalisation)
    return [compared.result(compared.quantity, found.value, "lower", error, reference=target.count, details=details)]


FID = Distance(
    name="fid",
    measures="Fréchet distance of Inception features",
    spaces=(INCEPTION,),
    reads="moments",
    measure=measure,
)
SFID = Distance(
    name="sfid",
    measures="Fréchet distance of Inception's spatial features",
    spaces=(INCEPTION,),
    stream="spatial",
    reads="moments",
    measure=measure,
)
CLEANFID = Distance(
    name="cleanfid",
    measures="Fréchet distance of Inception features after clean-fid's resize",
    spaces=(CLEANFID_SPACE,),
    reads="moments",
    measure=measure,
)
FD = Distance(
    name="fd",
    measures="Fréchet distance",
    spaces=(DIGITS, EFFICIENTNET_LITE0),
    backbones=True,
    reads="moments",
    measure=measure,
)
SFD = Distance(
    name="sfd",
    measures="Fréchet distance of spatial features",
    spaces=(EFFICIENTNET_LITE0,),
    stream="spatial",
    reads="moments",
    measure=measure,
)
FVD = Distance(
    name="fvd",
    measures="Fréchet distance of video features",
    spaces=(I3D, MOVING_DIGITS, BOUNCING_DIGITS),
    reads="moments",
    measure=measure,
)
CDFVD = Distance(
    name="cdfvd",
    measures="Fréchet distance of VideoMAE's features (content-debiased FVD)",
    spaces=(VIDEOMAE,),
    reads="moments",
    measure=measure,
)
