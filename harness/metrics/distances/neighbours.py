"""The arithmetic of precision and recall by nearest neighbours (Kynkäänniemi et al., arXiv 1904.06991), as in ADM.

A set's manifold is the union of balls around its points, each reaching to the point's k-th nearest other. Precision is
the share of samples on the reference's manifold, recall the share of the reference on the samples' manifold. Distances
are squared, tile by tile, so memory does not grow with the sets.

Letters: R reference rows, S sample rows, D features, T rows of a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.metrics.distances.precision_recall import NEIGHBOURS
from harness.metrics.settings import ARITHMETICS


@dataclass(frozen=True)
class PrecisionRecall:
    """Shares in [0, 1], with who was covered: `sample_covered` (S,) and `reference_covered` (R,) bool."""

    precision: float
    recall: float
    sample_covered: NDArray[np.bool_]
    reference_covered: NDArray[np.bool_]


def precision_recall(
    *,
    reference: NDArray[np.float32],
    samples: NDArray[np.float32],
    arithmetic: str = "fp32",
    neighbours: int = NEIGHBOURS,
    tile: int | None = None,
    device: str | torch.device = "cpu",
) -> PrecisionRecall:
    """Precision and recall of samples (S, D) against a reference (R, D). Swapping the two swaps the answers.

    `fp32`, or `adm_fp16`, which rounds as ADM's half precision does (and so shifts recall by about 0.002). `tile`
    defaults to 2,000 rows, or to ADM's 10,000 for `adm_fp16`, whose overflow rule works on whole blocks.
    Raises ValueError for an unknown arithmetic, unequal features, or a set of no more than `neighbours` rows.
    """
    if arithmetic not in ARITHMETICS:
        raise ValueError(f"unknown arithmetic {arithmetic!r}; choose from {', '.join(ARITHMETICS)}")
    if reference.shape[1] != samples.shape[1]:
        raise ValueError(f"the reference has {reference.shape[1]} features, the samples {samples.shape[1]}")
    for name, count in (("reference", len(reference)), ("samples", len(samples))):
        if count <= neighbours:
            raise ValueError(f"precision and recall need more than {neighbours} images, the {name} has {count}")
    tile = tile or (2000 if arithmetic == "fp32" else 10_000)
    distances = _squared_fp32 if arithmetic == "fp32" else _squared_adm_fp16
    r, s = (torch.as_tensor(np.asarray(x, dtype=np.float32), device=device) for x in (reference, samples))
    radii_r = _radii(r, neighbours, tile, distances)
    radii_s = _radii(s, neighbours, tile, distances)
    covered_r = torch.zeros(len(r), dtype=torch.bool, device=device)
    covered_s = torch.zeros(len(s), dtype=torch.bool, device=device)
    for rows in _tiles(len(r), tile):
        for columns in _tiles(len(s), tile):
            d = distances(r[rows], s[columns])  # (T, T)
            covered_s[columns] |= (d <= radii_r[rows, None]).any(dim=0)
            covered_r[rows] |= (d <= radii_s[columns]).any(dim=1)
    return PrecisionRecall(
        covered_s.double().mean().item(),
        covered_r.double().mean().item(),
        covered_s.cpu().numpy(),
        covered_r.cpu().numpy(),
    )


def _tiles(count: int, tile: int) -> Iterator[slice]:
    for start in range(0, count, tile):
        yield slice(start, min(start + tile, count))


def _radii(x: Tensor, neighbours: int, tile: int, distances: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Squared distance of each row (N, D) to its k-th nearest other, (N,): the k+1-th smallest, itself included.

    Distances are symmetric, so a tile off the diagonal serves its rows and its columns.
    """
    nearest = torch.full((len(x), neighbours + 1), float("inf"), device=x.device)

    def keep(rows: slice, d: Tensor) -> None:
        smallest = d.topk(min(neighbours + 1, d.shape[1]), dim=1, largest=False, sorted=False).values
        candidates = torch.cat([nearest[rows], smallest], dim=1)
        nearest[rows] = candidates.topk(neighbours + 1, dim=1, largest=False).values

    for rows in _tiles(len(x), tile):
        for columns in _tiles(len(x), tile):
            if columns.start < rows.start:
                continue
            d = distances(x[rows], x[columns])
            keep(rows, d)
            if columns.start > rows.start:
                keep(columns, d.T.contiguous())
    return nearest.amax(dim=1)


def _squared_fp32(u: Tensor, v: Tensor) -> Tensor:
    """Squared distances (T, T) of rows u (T, D) and v (T, D): max(|u|^2 - 2 u.v + |v|^2, 0)."""
    d = torch.addmm((v * v).sum(dim=1).expand(len(u), -1), u, v.T, alpha=-2)
    return d.add_((u * u).sum(dim=1)[:, None]).clamp_(min=0)


def _squared_adm_fp16(u: Tensor, v: Tensor) -> Tensor:
    """As ADM: every step rounded to half precision, a block with any overflow redone in single precision."""
    hu, hv = u.half(), v.half()
    product = (hu.float() @ hv.float().T).half()  # cuBLAS adds halves up in single precision too
    norm_u, norm_v = ((h * h).float().sum(dim=1).half() for h in (hu, hv))
    d = ((norm_u[:, None] - 2 * product) + norm_v).clamp_(min=0).float()
    return d if torch.isfinite(d).all() else _squared_fp32(u, v)
