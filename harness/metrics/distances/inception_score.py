"""The Inception Score, exp E KL(p(y|x) || p(y)), with ADM's order rule, and a guard against sets sorted by class.

Letters: N samples, C classes, K chunks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.metrics import errorbars
from harness.metrics.distances.distance import Comparison, Distance
from harness.metrics.features.digits import DIGITS
from harness.metrics.features.fashion_mnist import FASHION_MNIST
from harness.metrics.features.inception import INCEPTION
from harness.metrics.moments import Array
from harness.metrics.results import Result

CHUNK = 5000  # ADM: consecutive samples, in file order
SORTED_EXCESS = 0.1  # share of neighbours of one predicted class, above that of a shuffled set, that is refused


def inception_score(logits: NDArray[Any], chunk: int = CHUNK) -> list[float]:
    """The score of each run of `chunk` consecutive rows of logits (N, C), K of them; ADM prints their plain mean.

    A short last chunk weighs as much as the others, as in ADM. Float64 throughout, by log-softmax, so that no
    probability underflows to 0 log 0. Raises ValueError when there are no rows.
    """
    if not len(logits):
        raise ValueError("an Inception Score needs at least one sample")
    scores = []
    for start in range(0, len(logits), chunk):
        negative_entropy, probabilities = predictions(logits[start : start + chunk])
        scores.append(_score(float(negative_entropy.mean()), probabilities.mean(axis=0)))
    return scores


def predictions(logits: NDArray[Any]) -> tuple[Array, Array]:
    """Of logits (N, C): sum p log p of each row (N,) in nats, and the probabilities p (N, C), float64."""
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    p = np.exp(log_p)
    return (p * log_p).sum(axis=1), p


def _score(negative_entropy: float, marginal: Array) -> float:
    seen = marginal[marginal > 0]
    return math.exp(negative_entropy - (seen * np.log(seen)).sum())


def bootstrap_scores(logits: NDArray[Any], replicates: int, seed: int, chunk: int = CHUNK) -> list[float]:
    """The mean score of resamples of the rows of each chunk with replacement, one value a replicate."""
    generator = np.random.default_rng(seed)
    scores = np.zeros(replicates)
    chunks = range(0, len(logits), chunk)
    for start in chunks:
        negative_entropy, p = predictions(logits[start : start + chunk])
        n = len(p)
        for replicate in range(replicates):
            weights = np.bincount(generator.integers(n, size=n), minlength=n) / n
            scores[replicate] += _score(float(weights @ negative_entropy), weights @ p) / len(chunks)
    return scores.tolist()


def refuse_sorted(logits: NDArray[Any], labels: NDArray[Any] | None = None, chunk: int = CHUNK) -> None:
    """Raise ValueError when the rows of logits (N, C), or their labels (N,), come class by class.

    Chunks of a sorted set hold few classes each, and its score is several times too low. Neighbours share a class more
    often in such a set than in a shuffled one, where they do with probability sum n_c (n_c - 1) / (N (N - 1)).
    A set of one chunk is safe in any order.
    """
    if len(logits) <= chunk:
        return
    for name, classes in (("predicted classes", logits.argmax(axis=1)), ("labels", labels)):
        if classes is None:
            continue
        n = len(classes)
        counts = np.unique(classes, return_counts=True)[1].astype(np.float64)
        expected = (counts * (counts - 1)).sum() / (n * (n - 1.0))
        observed = float((classes[1:] == classes[:-1]).mean())
        if observed - expected > SORTED_EXCESS:
            raise ValueError(
                f"the samples are sorted by class ({observed:.0%} of neighbours share their {name}, "
                f"{expected:.0%} would if shuffled), which spoils the Inception Score; give --permute-seed to shuffle"
            )


def measure(compared: Comparison) -> list[Result]:
    """The mean score of the chunks; in the details their spread, and the score of all samples as one chunk."""
    settings, logits = compared.settings, compared.rows
    if settings.permute_seed is None:
        refuse_sorted(logits, compared.labels)
    else:
        logits = logits[np.random.default_rng(settings.permute_seed).permutation(len(logits))]
    scores = inception_score(logits)
    value = float(np.mean(scores))
    error = None
    if settings.bootstrap > 1:
        replicates = bootstrap_scores(logits, settings.bootstrap, settings.metric_seed)
        error = errorbars.of_bootstrap(value, replicates)
    details = {"chunks": float(len(scores)), "one_chunk": float(inception_score(logits, chunk=len(logits))[0])}
    if len(scores) > 1:
        details["sd_over_chunks"] = float(np.std(scores))
    assert math.isfinite(value)
    return [compared.result("inception_score", value, "higher", error, details=details)]


INCEPTION_SCORE = Distance(
    name="is",
    measures="Inception Score",
    spaces=(INCEPTION, DIGITS, FASHION_MNIST),
    stream="logits",
    compares=False,
    labels="optional",
    measure=measure,
)
