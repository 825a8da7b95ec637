"""Tr (S1 S2)^(1/2) of two covariances, in float64: the one hard term of the Fréchet distance.

For any square roots S1 = A A^T and S2 = B B^T it is the nuclear norm of A^T B. With Cholesky's A its squares are the
eigenvalues of the symmetric A^T S2 A: the fast way, for covariances of full rank. Where rank is missing, both roots are
cut at their numerical rank; general eigenvalues or a matrix square root lose digits there.
Letters: D features, R rank.
"""

from __future__ import annotations

import numpy as np
import torch

from harness.metrics.moments import Array

SPARSE = 8
"""Features a sample above which a covariance is reduced to the few directions that it has."""


def trace_of_root(first: Array, second: Array, samples: int | None = None) -> tuple[float, int, str]:
    """Tr (S1 S2)^(1/2) of two covariances (D, D), the numerical rank of S1 S2, and the solver that gave them.

    Where rank is missing, the covariance of lower rank comes first, with the number of `samples` that it is of: the
    other's root is then not needed.
    """
    s1, s2 = torch.from_numpy(np.ascontiguousarray(first)), torch.from_numpy(np.ascontiguousarray(second))
    if samples is None:
        lower, info = torch.linalg.cholesky_ex(s1)
        if not info:
            values = torch.linalg.eigvalsh(_congruent(lower, s2))
            rank = _rank(values)
            if rank == len(values):
                return float(values.sqrt().sum()), rank, "cholesky"
    root = _root(s1, samples)
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


def _rank(eigenvalues: torch.Tensor, size: int | None = None) -> int:
    """How many are not zero, of all or some eigenvalues of a matrix of so many rows."""
    largest = eigenvalues.max() if len(eigenvalues) else torch.zeros(())
    threshold = largest * (size or len(eigenvalues)) * torch.finfo(torch.float64).eps
    return int((eigenvalues > threshold).sum())


def _root(covariance: torch.Tensor, samples: int | None = None) -> torch.Tensor:
    """(D, R), a square root cut at the numerical rank R, which is below the number of `samples`, if that is known."""
    values, vectors = _few(covariance, samples) if samples else torch.linalg.eigh(covariance)
    rank = _rank(values, len(covariance))
    first = len(values) - rank  # eigenvalues ascend
    root: torch.Tensor = vectors[:, first:] * values[first:].sqrt()
    return root


def _few(covariance: torch.Tensor, samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues and vectors, all or those that are not zero: of few samples they lie in what a product spans.

    The range of a matrix of rank R is that of its product with R random columns or more (Halko et al., arXiv
    0909.4061); where the eigenvalues there do not make up the trace, there were more samples than was said.
    """
    if samples < len(covariance) // SPARSE:
        generator = torch.Generator().manual_seed(0)
        columns = torch.randn(len(covariance), samples, dtype=covariance.dtype, generator=generator)
        basis = torch.linalg.qr(covariance @ columns).Q
        values, vectors = torch.linalg.eigh(basis.T @ covariance @ basis)
        if torch.isclose(values.sum(), covariance.trace(), rtol=1e-9):
            return values, basis @ vectors
    values, vectors = torch.linalg.eigh(covariance)
    return values, vectors
