"""A recipe applied: features of samples and a reference to values with error bars."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from harness.metrics import errorbars
from harness.metrics.distances import kernel, motion
from harness.metrics.distances.frechet import extrapolated, frechet_distance
from harness.metrics.distances.inception_score import bootstrap_scores, inception_score, refuse_sorted
from harness.metrics.distances.precision_recall import precision_recall
from harness.metrics.errorbars import ErrorBar
from harness.metrics.features.digits import CLASSES
from harness.metrics.moments import Moments, stream
from harness.metrics.recipes import Recipe
from harness.metrics.references import Reference
from harness.metrics.shards import Features


@dataclass(frozen=True)
class Settings:
    """How values are computed, beside the recipe: `bootstrap` resamples (0: none), arithmetic, and seeds."""

    bootstrap: int = 20
    seed: int = 0
    arithmetic: str = "fp32"
    permute_seed: int | None = None
    extrapolate: bool = False
    covariance: str = "sample"
    device: str = "cpu"


@dataclass(frozen=True)
class Result:
    """One number of a recipe, in `unit`. `details` are further numbers by name; `better` is `lower` or `higher`."""

    recipe: str
    quantity: str
    value: float
    better: str
    error: ErrorBar | None
    samples: int
    reference: int | None
    details: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    repeats: tuple[float, ...] = ()
    unit: str = "1"


def evaluate(
    recipe: Recipe, samples: Features, reference: Reference | None, settings: Settings, labels: np.ndarray | None = None
) -> list[Result]:
    """The values of one recipe on one set of samples: two for precision and recall, three for motion.

    `labels` (N,) are the classes that were asked for. Warnings become notes.

    Raises ValueError for what the recipe cannot be applied to.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if recipe.distance == "is":
            results = _inception_score(recipe, samples, settings, labels)
        elif recipe.distance == "accuracy":
            results = _accuracy(recipe, samples, settings, labels)
        else:
            assert reference is not None, "every other distance has a reference"
            measure = {"pr": _precision_recall, "kid": _kernel, "motion": _motion}.get(recipe.distance, _frechet)
            results = measure(recipe, samples, reference, settings)
    notes = tuple(dict.fromkeys(str(warning.message) for warning in caught))
    return [replace(result, notes=notes) for result in results]


def combine(runs: Sequence[list[Result]]) -> list[Result]:
    """The results of repeats on disjoint seeds as one: their mean, with their standard deviation and minimum."""
    if len(runs) == 1:
        return runs[0]
    combined = []
    for results in zip(*runs, strict=True):
        values = [result.value for result in results]
        details = {name: float(np.mean([r.details[name] for r in results])) for name in results[0].details}
        notes = tuple(dict.fromkeys(note for result in results for note in result.notes))
        combined.append(
            replace(
                results[0],
                value=float(np.mean(values)),
                error=errorbars.of_draws(values, f"{len(values)} repeats"),
                details={**details, "min": min(values), "max": max(values)},
                notes=notes,
                repeats=tuple(values),
            )
        )
    return combined


def _frechet(recipe: Recipe, samples: Features, reference: Reference, settings: Settings) -> list[Result]:
    target = reference.gaussians[recipe.stream]
    found = frechet_distance(stream(samples.stream(recipe.stream)).gaussian(settings.covariance), target)
    details = {
        "mean_term": found.mean_term,
        "covariance_term": found.covariance_term,
        "rank": float(found.rank),
        "dimension": float(found.dimension),
    }
    error = None
    if settings.bootstrap > 1:

        def distance(moments: Moments) -> float:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # said once, of the samples themselves
                return frechet_distance(moments.gaussian(settings.covariance), target).value

        rows = samples.rows(recipe.stream)
        values = errorbars.bootstrap_moments(rows, distance, settings.bootstrap, settings.seed)
        error = errorbars.of_bootstrap(found.value, values)
    if settings.extrapolate:
        rows = samples.rows(recipe.stream)
        details["infinite_samples"] = extrapolated(rows, target, settings.seed, settings.covariance)
    quantity = recipe.distance
    return [Result(recipe.name, quantity, found.value, "lower", error, samples.count, target.count, details)]


def _precision_recall(recipe: Recipe, samples: Features, reference: Reference, settings: Settings) -> list[Result]:
    rows = _rows(reference, recipe)
    found = precision_recall(
        reference=rows, samples=samples.rows("pool"), arithmetic=settings.arithmetic, device=settings.device
    )
    shares = (("precision", found.precision, samples.count), ("recall", found.recall, len(rows)))
    return [
        Result(recipe.name, name, share, "higher", errorbars.of_share(share, of), samples.count, len(rows))
        for name, share, of in shares
    ]


def _kernel(recipe: Recipe, samples: Features, reference: Reference, settings: Settings) -> list[Result]:
    rows = _rows(reference, recipe)
    distances = kernel.kernel_distances(samples=samples.rows("pool"), reference=rows)
    error = errorbars.of_draws(distances, f"{len(distances)} subsets of {kernel.SUBSET_SIZE}, seed {kernel.SEED}")
    return [Result(recipe.name, "kid", float(np.mean(distances)), "lower", error, samples.count, len(rows))]


def _rows(reference: Reference, recipe: Recipe) -> np.ndarray:
    if reference.features is None:
        raise ValueError(f"{recipe.name} needs images in the reference, and {reference.name} has none")
    return reference.features(recipe.stream)


def _inception_score(recipe: Recipe, samples: Features, settings: Settings, labels: np.ndarray | None) -> list[Result]:
    logits = samples.rows("logits")
    if settings.permute_seed is None:
        refuse_sorted(logits, labels)
    else:
        logits = logits[np.random.default_rng(settings.permute_seed).permutation(len(logits))]
    scores = inception_score(logits)
    value = float(np.mean(scores))
    error = None
    if settings.bootstrap > 1:
        error = errorbars.of_bootstrap(value, bootstrap_scores(logits, settings.bootstrap, settings.seed))
    details = {"chunks": float(len(scores)), "one_chunk": float(inception_score(logits, chunk=len(logits))[0])}
    if len(scores) > 1:
        details["sd_over_chunks"] = float(np.std(scores))
    assert math.isfinite(value)
    return [Result(recipe.name, "inception_score", value, "higher", error, samples.count, None, details)]


def _accuracy(recipe: Recipe, samples: Features, settings: Settings, labels: np.ndarray | None) -> list[Result]:
    """The share of images, or of the frames of clips, whose class is seen as it was asked for."""
    if labels is None:
        raise ValueError(
            f"{recipe.name} needs the classes that were asked for: an .npz with arr_1, or harness.sample's"
        )
    logits = samples.rows("logits").reshape(samples.count, -1, CLASSES)  # (N, frames, classes)
    right = logits.argmax(axis=-1) == labels[:, None]
    shares = right.mean(axis=1)
    error = _resampled(lambda rows: float(shares[rows].mean()), samples.count, settings)
    details = {"frames": float(right.shape[1]), "all_frames": float(right.all(axis=1).mean())}
    return [Result(recipe.name, "accuracy", float(right.mean()), "higher", error, samples.count, None, details)]


def _motion(recipe: Recipe, samples: Features, reference: Reference, settings: Settings) -> list[Result]:
    """The share of steps as long as real ones, and how far lengths of steps and of turns are from those of real clips.

    Distances are 1-Wasserstein, in pixels: 0 for the reference itself, the mean step for frozen clips.
    """
    ours, real = (rows.reshape(len(rows), -1, 2) for rows in (samples.rows("steps"), _rows(reference, recipe)))
    means = {"mean": float(motion.lengths(ours).mean()), "mean_of_reference": float(motion.lengths(real).mean())}

    def result(quantity: str, unit: str, better: str, statistic: Callable[[np.ndarray], float]) -> Result:
        error = _resampled(lambda rows: statistic(ours[rows]), samples.count, settings)
        value = statistic(ours)
        return Result(recipe.name, quantity, value, better, error, samples.count, len(real), means, unit=unit)

    def between(measure: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], float]:
        return lambda steps: motion.wasserstein(measure(steps), measure(real))

    return [
        result("moving", "1", "higher", lambda steps: float(motion.moving(steps, real).mean())),
        result("step_distance", "px", "lower", between(motion.lengths)),
        result("turn_distance", "px", "lower", between(motion.turns)),
    ]


def _resampled(statistic: Callable[[np.ndarray], float], count: int, settings: Settings) -> ErrorBar | None:
    """The error bar of `statistic(rows)` from resamples of the samples' rows with replacement."""
    if settings.bootstrap < 2:
        return None
    generator = np.random.default_rng(settings.seed)
    values = [statistic(generator.integers(count, size=count)) for _ in range(settings.bootstrap)]
    return errorbars.of_bootstrap(statistic(np.arange(count)), values)
