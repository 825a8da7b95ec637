"""Means and covariances of features that stream by: float64, mergeable, and the same to the last bit every time.

Letters: N rows seen, B rows of one block, D features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 4000  # rows a block: large enough for a fast product, 65 MB at 2048 features

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Gaussian:
    """Mean (D,) and covariance (D, D), float64; `count` of the samples behind them, None where nobody recorded it."""

    mean: Array
    covariance: Array
    count: int | None = None


@dataclass(frozen=True)
class Moments:
    """Count, mean (D,) and scatter sum (x - mean)(x - mean)^T (D, D), float64."""

    count: int
    mean: Array
    scatter: Array

    def gaussian(self, normalisation: str = "sample") -> Gaussian:
        """Mean and covariance, divided by N - 1 (`sample`, as ADM and numpy) or by N (`population`, as StyleGAN-V).

        Raises ValueError for another normalisation, or for fewer than two rows.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, not {self.count}")
        divisors = {"sample": self.count - 1, "population": self.count}
        if normalisation not in divisors:
            raise ValueError(f"unknown covariance normalisation {normalisation!r}; choose from {', '.join(divisors)}")
        return Gaussian(self.mean, self.scatter / divisors[normalisation], self.count)


def of_block(rows: NDArray[Any]) -> Moments:
    """Moments of rows (B, D), centred on their own mean first, so that a large mean costs no digits."""
    x = np.array(rows, dtype=np.float64)
    return _consume(x, x.mean(axis=0))


def _consume(x: Array, mean: Array) -> Moments:
    """As `of_block`, leaving x centred: memory that is not allocated anew saves a tenth of the time."""
    x -= mean
    return Moments(len(x), mean, x.T @ x)  # numpy sees one array twice and computes one triangle


def of_weighted(rows: NDArray[Any], weights: NDArray[Any]) -> Moments:
    """Moments of rows (N, D) of which row i stands weights[i] times, as in a bootstrap resample; weights (N,) >= 0."""
    drawn = np.flatnonzero(weights)
    total = Moments(0, np.zeros(rows.shape[1]), np.zeros((rows.shape[1],) * 2))
    for start in range(0, len(drawn), BLOCK):
        chosen = drawn[start : start + BLOCK]
        x, w = rows[chosen].astype(np.float64), weights[chosen].astype(np.float64)
        mean = w @ x / w.sum()
        x -= mean
        x *= np.sqrt(w)[:, None]
        total = merge(total, Moments(int(w.sum()), mean, x.T @ x))
    return total


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of both sets together (Chan, Golub & LeVeque 1983). Associative but for rounding: keep one order."""
    if not a.count or not b.count:
        return a if a.count else b
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"cannot merge moments of {len(a.mean)} and of {len(b.mean)} features")
    count = a.count + b.count
    delta = b.mean - a.mean
    mean = a.mean + delta * (b.count / count)
    scatter = np.outer(delta * (a.count * b.count / count), delta)
    scatter += a.scatter
    scatter += b.scatter
    return Moments(count, mean, scatter)


class Stream:
    """Moments of batches (., D) that are added in order, in memory for one block.

    Rows are regrouped into the same blocks whatever the batches, and blocks merge from the first to the last: the
    result is the same to the last bit for any batch size and for any number of processes that made the batches.
    """

    def __init__(self, block: int = BLOCK) -> None:
        self.block = block
        self._total: Moments | None = None
        self._pending: Array | None = None
        self._filled = 0

    def add(self, batch: NDArray[Any]) -> None:
        """Take the next rows. Raises ValueError for NaN or infinite features, naming the first such row."""
        if self._pending is None:
            self._pending = np.empty((self.block, batch.shape[1]))
        start = 0
        while start < len(batch):
            taken = min(self.block - self._filled, len(batch) - start)
            self._pending[self._filled : self._filled + taken] = batch[start : start + taken]
            self._filled, start = self._filled + taken, start + taken
            if self._filled == self.block:
                self._flush()

    def moments(self) -> Moments:
        """Of all rows so far; the last. Raises ValueError as `add` does, and where there are no rows."""
        if self._filled:
            self._flush()
        if self._total is None:
            raise ValueError("no features to take moments of")
        return self._total

    def _flush(self) -> None:
        assert self._pending is not None, "there are rows"
        rows = self._pending[: self._filled]
        mean = rows.mean(axis=0)
        if not np.isfinite(mean).all():
            before = self._total.count if self._total else 0
            first = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0]) + before
            raise ValueError(f"the features of sample {first} are not finite")
        moments = _consume(rows, mean)
        self._total = merge(self._total, moments) if self._total else moments
        self._filled = 0


def stream(batches: Iterable[NDArray[Any]], block: int = BLOCK) -> Moments:
    """Moments of batches (., D) in order; see Stream."""
    whole = Stream(block)
    for batch in batches:
        whole.add(batch)
    return whole.moments()
