"""The kernel distance KID: squared maximum mean discrepancy under (x.y / D + 1)^3, unbiased, over random subsets.

Binkowski et al., arXiv 1801.01401. Draws and arithmetic follow torch-fidelity 0.4, so that values agree to rounding.
Letters: N rows, D features, M rows of a subset.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SUBSETS, SUBSET_SIZE, SEED = 100, 1000, 2020


def kernel_distances(
    *, samples: NDArray, reference: NDArray, subsets: int = SUBSETS, size: int = SUBSET_SIZE, seed: int = SEED
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


def discrepancy(x: NDArray, y: NDArray) -> float:
    """Unbiased squared discrepancy of x (M, D) and y (M, D)."""
    m, features = x.shape
    kxx, kyy, kxy = ((a @ b.T / features + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = kxx.sum() - np.trace(kxx) + kyy.sum() - np.trace(kyy)
    return float(within / (m * (m - 1)) - 2 * kxy.mean())
