"""Precision and recall: how much of the samples lies on the reference's manifold, and of the reference on theirs."""

from __future__ import annotations

from harness.metrics import errorbars
from harness.metrics.distances.distance import Comparison, Distance
from harness.metrics.features.bouncing_digits import BOUNCING_DIGITS
from harness.metrics.features.digits import DIGITS
from harness.metrics.features.efficientnet_lite0 import EFFICIENTNET_LITE0
from harness.metrics.features.inception import INCEPTION
from harness.metrics.features.moving_digits import MOVING_DIGITS
from harness.metrics.results import Result

NEIGHBOURS = 3
"""Of an image, as in ADM: its manifold reaches as far as the last of them."""


def measure(compared: Comparison) -> list[Result]:
    """Two shares; their error bars are binomial, the manifolds held fixed."""
    from harness.metrics.distances.neighbours import precision_recall
    from harness.metrics.features.extractor import exact_arithmetic

    real, count = compared.reference_rows, compared.samples.count
    with exact_arithmetic():
        found = precision_recall(
            reference=real, samples=compared.rows, arithmetic=compared.settings.arithmetic, device=compared.device
        )
    shares = (("precision", found.precision, count), ("recall", found.recall, len(real)))
    return [
        compared.result(name, share, "higher", errorbars.of_share(share, of), reference=len(real))
        for name, share, of in shares
    ]


PRECISION_RECALL = Distance(
    name="pr",
    measures="precision and recall",
    spaces=(INCEPTION, DIGITS, MOVING_DIGITS, BOUNCING_DIGITS, EFFICIENTNET_LITE0),
    backbones=True,
    fewest=NEIGHBOURS + 1,
    measure=measure,
)
