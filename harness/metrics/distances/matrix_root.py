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
    root: torch.Tensor = vectors[:, first:] * values[first:].sqrt()
    return root
