"""MIND, the Monge Inception distance: 3 D times the mean squared 2-Wasserstein distance along random directions.

Berthet et al., arXiv 2605.06797. Constants, draws and arithmetic follow torch-fidelity (metric_mind.py, defaults.py),
as End2End-Diffusion/diffusionbench-evals does, so that values agree to rounding.
Letters: N rows of either set, D features, P directions.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.metrics import errorbars
from harness.metrics.distances.distance import Comparison, Distance
from harness.metrics.features.digits import DIGITS
from harness.metrics.features.efficientnet_lite0 import EFFICIENTNET_LITE0
from harness.metrics.features.inception import INCEPTION
from harness.metrics.results import Result

DIRECTIONS, SEED = 1000, 2020
AT_ONCE = 100  # directions: 20 MB of projections at 50,000 rows


def mind(
    *,
    samples: NDArray[np.float32],
    reference: NDArray[np.float32],
    resamples: Sequence[NDArray[np.int64]] = (),
    directions: int = DIRECTIONS,
    seed: int = SEED,
    device: str = "cpu",
) -> list[float]:
    """The distance of samples (N, D) from a reference (N, D), then that of each of `resamples` of the samples' rows.

    Of the larger set as many rows are drawn as the smaller one has, and `resamples` are of these. Raises ValueError
    for different numbers of features.
    """
    import torch

    from harness.metrics.features.extractor import exact_arithmetic

    if samples.shape[1] != reference.shape[1]:
        raise ValueError(f"the samples have {samples.shape[1]} features, the reference {reference.shape[1]}")
    generator = torch.Generator().manual_seed(seed)  # the stream that torch-fidelity draws from
    count, features = min(len(samples), len(reference)), samples.shape[1]

    def kept(rows: NDArray[np.float32]) -> torch.Tensor:
        every = torch.as_tensor(rows, dtype=torch.float32)
        chosen = torch.randperm(len(rows), generator=generator)[:count] if len(rows) > count else slice(None)
        return every[chosen].to(device)

    x, y = kept(samples), kept(reference)
    normal = torch.randn(directions, features, generator=generator)
    unit = (normal / normal.norm(dim=1, keepdim=True).clamp_min(1e-12)).to(device)
    drawn = [torch.arange(count), *(torch.as_tensor(rows) for rows in resamples)]
    totals = [0.0] * len(drawn)
    with exact_arithmetic():
        for some in unit.split(AT_ONCE):
            ours, theirs = x @ some.T, (y @ some.T).sort(dim=0).values.double()  # (N, some of P)
            for place, chosen in enumerate(drawn):
                along = ours[chosen.to(device)].sort(dim=0).values.double()
                totals[place] += float((along - theirs).square().mean(dim=0).sum())
    return [3 * features * total / directions for total in totals]


def measure(compared: Comparison) -> list[Result]:
    """One value; its error bar is a bootstrap of the samples, the directions and the reference held fixed."""
    real, settings = compared.reference_rows, compared.settings
    count = min(compared.samples.count, len(real))
    if len(real) != compared.samples.count:
        warnings.warn(f"{count:,} of {max(compared.samples.count, len(real)):,} rows are compared", stacklevel=2)
    resamples = settings.bootstrap if settings.bootstrap > 1 else 0
    generator = np.random.default_rng(settings.metric_seed)
    drawn = [generator.integers(count, size=count) for _ in range(resamples)]
    value, *replicates = mind(samples=compared.rows, reference=real, resamples=drawn, device=compared.device)
    error = errorbars.of_bootstrap(value, replicates) if replicates else None
    return [compared.result(compared.quantity, value, "lower", error, reference=len(real))]


MIND = Distance(
    name="mind",
    measures="sliced Wasserstein distance",
    spaces=(INCEPTION, DIGITS, EFFICIENTNET_LITE0),
    backbones=True,
    paired=True,
    measure=measure,
)
