"""The share of samples that a classifier recognises as the class that they were drawn for."""

from __future__ import annotations

from harness.metrics import errorbars
from harness.metrics.distances.distance import Comparison, Distance
from harness.metrics.features.bouncing_digits import BOUNCING_DIGITS
from harness.metrics.features.digits import DIGITS
from harness.metrics.features.fashion_mnist import FASHION_MNIST
from harness.metrics.features.moving_digits import MOVING_DIGITS
from harness.metrics.results import Result


def measure(compared: Comparison) -> list[Result]:
    """The share of images, or of the frames of clips; in the details, of clips whose frames are all recognised."""
    labels, classes, count = compared.labels, compared.recipe.space.classes, compared.samples.count
    assert labels is not None, "its labels are required"
    assert classes is not None, "its space has classes"
    logits = compared.rows.reshape(count, -1, classes)  # (N, frames, classes)
    right = logits.argmax(axis=-1) == labels[:, None]
    shares = right.mean(axis=1)
    error = errorbars.of_resamples(lambda rows: float(shares[rows].mean()), count, compared.settings, most=1.0)
    details = {"frames": float(right.shape[1]), "all_frames": float(right.all(axis=1).mean())}
    return [compared.result("accuracy", float(right.mean()), "higher", error, details=details)]


ACCURACY = Distance(
    name="accuracy",
    measures="share recognised as the class that the samples were drawn for",
    spaces=(DIGITS, MOVING_DIGITS, BOUNCING_DIGITS, FASHION_MNIST),
    stream="logits",
    compares=False,
    labels="required",
    measure=measure,
)
