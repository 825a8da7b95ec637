"""The Fréchet distance between two Gaussians, |m1 - m2|^2 + Tr S1 + Tr S2 - 2 Tr (S1 S2)^(1/2), in float64.

For any square roots S1 = A A^T and S2 = B B^T the last trace is the nuclear norm of A^T B. With Cholesky's A its
squares are the eigenvalues of the symmetric A^T S2 A: the fast way, for covariances of full rank. Where rank is
missing, both roots are cut at their numerical rank; general eigenvalues or a matrix square root lose digits there.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from harness.metrics.moments import Array, Gaussian, stream


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
    trace, rank, solver = trace_of_root(a.covariance, b.covariance, full_rank=fewest > dimension)
    covariance_term = float(np.trace(a.covariance) + np.trace(b.covariance)) - 2 * trace
    return Frechet(mean_term + covariance_term, mean_term, covariance_term, rank, dimension, solver)


def trace_of_root(first: Array, second: Array, full_rank: bool = True) -> tuple[float, int, str]:
    """Tr (S1 S2)^(1/2) of two covariances (D, D), the numerical rank of S1 S2, and the solver that gave them.

    Where rank is missing, the covariance of lower rank comes first: the other's root is then not needed.
    """
    s1, s2 = torch.from_numpy(np.ascontiguousarray(first)), torch.from_numpy(np.ascontiguousarray(second))
    if full_rank:
        lower, info = torch.linalg.cholesky_ex(s1)
        if not info:
            values = torch.linalg.eigvalsh(_congruent(lower, s2))
            rank = _rank(values)
            if rank == len(values):
                return float(values.sqrt().sum()), rank, "cholesky"
    root = _root(s1)
    values = torch.linalg.eigvalsh(root.T @ s2 @ root)
    if _rank(values) == root.shape[1]:
        return float(values.sqrt().sum()), len(values), "eigh"
    singular = torch.linalg.svdvals(root.T @ _root(s2))  # eigenvalues of zero, but for rounding, have no roots to add
    return float(singular.sum()), _rank(singular.square()), "eigh"


def _congruent(lower: torch.Tensor, s2: torch.Tensor, block: int = 256) -> torch.Tensor:
    """The lower triangle of L^T S2 L, all that `eigvalsh` reads.

    By blocks that skip L's zeros and the upper triangle: a third of the arithmetic of two whole products.
    """
    right, both = torch.empty_like(s2), torch.zeros_like(s2)
    for start in range(0, len(s2), block):
        columns = slice(start, start + block)
        right[:, columns] = s2[:, start:] @ lower[start:, columns]
    for start in range(0, len(s2), block):
        rows = slice(start, start + block)
        both[rows, : start + block] = lower[start:, rows].T @ right[start:, : start + block]
    return both


def _rank(eigenvalues: torch.Tensor) -> int:
    largest = eigenvalues.max() if len(eigenvalues) else torch.zeros(())
    threshold = largest * len(eigenvalues) * torch.finfo(torch.float64).eps
    return int((eigenvalues > threshold).sum())


def _root(covariance: torch.Tensor) -> torch.Tensor:
    """(D, R), a square root cut at the numerical rank R."""
    values, vectors = torch.linalg.eigh(covariance)
    rank = _rank(values)
    first = len(values) - rank  # eigenvalues ascend
    return vectors[:, first:] * values[first:].sqrt()


def extrapolated(rows: NDArray, reference: Gaussian, seed: int, normalisation: str = "sample") -> float:
    """The distance at infinitely many samples: the intercept of a line in 1/N through 15 seeded subsets of rows (N, D).

    Chong & Forsyth, arXiv 1911.07023, with dgm-eval's sizes: from min(5000, N // 10) to N. Raises ValueError below 20.
    """
    count = len(rows)
    if count < 20:
        raise ValueError(f"an extrapolation needs at least 20 samples, not {count}")
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
