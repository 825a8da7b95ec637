"""The kernel distance KID: squared maximum mean discrepancy under (x.y / D + 1)^3, unbiased, over random subsets.

Binkowski et al., arXiv 1801.01401. Draws and arithmetic follow torch-fidelity 0.4, so that values agree to rounding.
Letters: N rows, D features, M rows of a subset.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.metrics import errorbars
from harness.metrics.distances.distance import Comparison, Distance
from harness.metrics.features.bouncing_digits import BOUNCING_DIGITS
from harness.metrics.features.digits import DIGITS
from harness.metrics.features.efficientnet_lite0 import EFFICIENTNET_LITE0
from harness.metrics.features.inception import INCEPTION
from harness.metrics.features.moving_digits import MOVING_DIGITS
from harness.metrics.results import Result

SUBSETS, SUBSET_SIZE, SEED = 100, 1000, 2020


def kernel_distances(
    *, samples: NDArray[Any], reference: NDArray[Any], subsets: int = SUBSETS, size: int = SUBSET_SIZE, seed: int = SEED
) -> list[float]:
    """The distance of each of `subsets` pairs of random subsets of `size` rows of (N, D); KID is their mean.

    May be slightly negative for like sets. Raises ValueError when either set has fewer than `size` rows.
    """
    for name, rows in (("samples", samples), ("reference", reference)):
        if len(rows) < size:
            raise ValueError(f"KID draws subsets of {size} images; the {name} has only {len(rows)}")
    generator = np.random.RandomState(seed)  # the stream that torch-fidelity draws from
    distances = []
    for _ in range(subsets):
        x = samples[generator.choice(len(samples), size, replace=False)].astype(np.float64)
        y = reference[generator.choice(len(reference), size, replace=False)].astype(np.float64)
        distances.append(discrepancy(x, y))
    return distances


def discrepancy(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Unbiased squared discrepancy of x (M, D) and y (M, D)."""
    m, features = x.shape
    kxx, kyy, kxy = ((a @ b.T / features + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = kxx.sum() - np.trace(kxx) + kyy.sum() - np.trace(kyy)
    return float(within / (m * (m - 1)) - 2 * kxy.mean())


def measure(compared: Comparison) -> list[Result]:
    """One value; `sd` is the standard deviation over the subsets, which others print as its error."""
    real = compared.reference_rows
    distances = kernel_distances(samples=compared.rows, reference=real)
    error = errorbars.of_subsets(distances, SUBSET_SIZE, min(len(compared.rows), len(real)))
    spread = {"sd": float(np.std(distances, ddof=1))}
    return [compared.result("kid", float(np.mean(distances)), "lower", error, reference=len(real), details=spread)]


KID = Distance(
    name="kid",
    measures="kernel distance",
    spaces=(INCEPTION, DIGITS, MOVING_DIGITS, BOUNCING_DIGITS, EFFICIENTNET_LITE0),
    backbones=True,
    fewest=SUBSET_SIZE,
    measure=measure,
)
