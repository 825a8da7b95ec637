"""CMMD: the squared maximum mean discrepancy of CLIP's embeddings under exp(-|x - y|^2 / (2 * 10^2)), a thousandfold.

Jayasumana et al., arXiv 2401.09603, equation 3; the estimator is the biased one, over all pairs, equation 5 of Gretton
et al. (JMLR 13, 2012), as in google-research/google-research, cmmd/distance.py, whose constants these are.
Letters: N samples, R items of the reference, D features, K weightings.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.metrics import errorbars
from harness.metrics.distances.distance import Comparison, Distance
from harness.metrics.features.backbones import CLIP_SPACE
from harness.metrics.moments import Array
from harness.metrics.results import Result

SIGMA, SCALE = 10, 1000
TILE = 4000  # rows of a block of the kernel: 128 MB


def cmmd(
    *,
    samples: NDArray[np.float32],
    reference: NDArray[np.float32],
    weights: Array | None = None,
    device: str = "cpu",
) -> Array:
    """The discrepancy of samples (N, D) from a reference (R, D), for each of K weightings (K, N) of the samples: (K,).

    Weights of a row add up to one; without any, K is 1 and all samples weigh the same. In float64. Raises ValueError
    for different numbers of features.
    """
    import torch

    if samples.shape[1] != reference.shape[1]:
        raise ValueError(f"the samples have {samples.shape[1]} features, the reference {reference.shape[1]}")
    x, y = (torch.as_tensor(rows, dtype=torch.float64, device=device) for rows in (samples, reference))
    even = np.full((1, len(samples)), 1 / len(samples)) if weights is None else weights
    w = torch.as_tensor(even, dtype=torch.float64, device=device)
    v = torch.full((1, len(y)), 1 / len(y), dtype=torch.float64, device=device)

    def mean(a: torch.Tensor, b: torch.Tensor, of_a: torch.Tensor, of_b: torch.Tensor) -> torch.Tensor:
        """The weighted mean of the kernel over all pairs, (K,)."""
        total = torch.zeros(len(of_a), dtype=torch.float64, device=device)
        for i in range(0, len(a), TILE):
            for j in range(0, len(b), TILE):
                kernel = torch.cdist(a[i : i + TILE], b[j : j + TILE]).square_().mul_(-1 / (2 * SIGMA**2)).exp_()
                total += ((of_a[:, i : i + TILE] @ kernel) * of_b[:, j : j + TILE]).sum(dim=1)
        return total

    found: Array = (mean(x, x, w, w) + mean(y, y, v, v) - 2 * mean(x, y, w, v)).cpu().numpy() * SCALE
    return found


def measure(compared: Comparison) -> list[Result]:
    """One value; its error bar is a bootstrap of the samples, the reference held fixed."""
    real, count, settings = compared.reference_rows, compared.samples.count, compared.settings
    resamples = settings.bootstrap if settings.bootstrap > 1 else 0
    generator = np.random.default_rng(settings.metric_seed)
    drawn = [np.bincount(generator.integers(count, size=count), minlength=count) for _ in range(resamples)]
    weights = np.stack([np.ones(count), *drawn]) / count
    value, *replicates = cmmd(samples=compared.rows, reference=real, weights=weights, device=compared.device).tolist()
    error = errorbars.of_bootstrap(value, replicates) if replicates else None
    return [compared.result("cmmd", value, "lower", error, reference=len(real))]


CMMD = Distance(
    name="cmmd",
    measures="maximum mean discrepancy of CLIP's embeddings",
    spaces=(CLIP_SPACE,),
    paired=True,
    measure=measure,
)
