"""What must hold of metrics, samples and reference; each check raises ValueError, in one line that names what does not.

Flags of the command are named; from Python they are fields of the settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.metrics.distances.frechet import FEWEST
from harness.metrics.recipes import Recipe
from harness.metrics.settings import TIMM, ClipProtocol, Extraction, Settings

if TYPE_CHECKING:
    from harness.data.sources import Source
    from harness.metrics.moments import Gaussian
    from harness.metrics.statistics import Statistics


INCEPTIONS = {"pool": 2048, "spatial": 2023}
"""Features of the published Inception by stream: of the last pool, and of 7 channels of 17 x 17."""


def together(recipes: Sequence[Recipe], reference: object, clips: ClipProtocol) -> None:
    """Metrics of one kind of item, a reference where one is needed, choices of clips only where clips are cut."""
    if not recipes:
        raise ValueError("no metric is given")
    for recipe in recipes:
        if recipe.needs_reference and reference is None and recipe.space.data is None:
            raise ValueError(f"{recipe.name} compares with a reference: give --ref")
    if len({recipe.of_clips for recipe in recipes}) > 1:
        raise ValueError("image and video metrics score different samples: give them one at a time")
    if not any(recipe.space.cuts_clips for recipe in recipes) and clips.changed():
        flag = f"--{clips.changed()[0].replace('_', '-')}"
        raise ValueError(f"{flag} is of metrics that cut clips, like fvd2048_16f; {recipes[0].name} does not")


def counts(recipes: Sequence[Recipe], settings: Settings) -> None:
    """As many samples in a set as the metric is defined on."""
    for recipe in recipes:
        extrapolated = settings.extrapolate and recipe.distance.reads == "moments"
        fewest = max(recipe.distance.fewest, FEWEST if extrapolated else 1)
        if recipe.count < fewest:
            why = " with --extrapolate" if fewest > recipe.distance.fewest else ""
            raise ValueError(f"{recipe.name}: {recipe.distance.name}{why} is of at least {fewest:,} samples")


def weights(recipes: Sequence[Recipe], extraction: Extraction) -> None:
    """Files of weights that no command fetches, before any work: a panel would miss its sixth after hours."""
    entries = dict.fromkeys(recipe.space.weights for recipe in recipes)
    networks = dict.fromkeys(entry.name for entry in entries if entry.name.startswith(TIMM))
    if extraction.timm_weights is not None and len(networks) != 1:
        raise ValueError(f"--timm-weights is the file of one network; these metrics read {len(networks)} of timm")
    for entry in entries:
        entry.find(extraction.weights_given(entry.name), extraction.weights_dir)


def kind(recipe: Recipe, source: Source) -> None:
    """Images for metrics of images, clips for those of clips, and as many frames as the name states."""
    held = "clips" if len(source.shape) == 4 else "images"
    if held != recipe.space.items:
        raise ValueError(f"{recipe.name} scores {recipe.space.items}, and {source.name} holds {held}")
    if recipe.frames and source.shape[0] != recipe.frames:
        raise ValueError(f"{recipe.name} scores {recipe.frames} frames, and {source.name} has {source.shape[0]}")


def enough(recipe: Recipe, source: Source, repeats: int) -> None:
    """As many samples as are scored."""
    needed = recipe.count * repeats
    if source.count is not None and source.count < needed:
        times = f" x {repeats} repeats" if repeats > 1 else ""
        raise ValueError(f"{recipe.name} needs {recipe.count:,} samples{times}; {source.name} has {source.count:,}")


def widths(recipe: Recipe, reference: str, gaussians: Mapping[str, Gaussian]) -> None:
    """Moments of as many features as the published Inception has, where they are compared with it."""
    for stream, gaussian in gaussians.items() if recipe.space.name == "inception" else ():
        if len(gaussian.mean) != INCEPTIONS[stream]:
            raise ValueError(
                f"{reference} holds moments of {len(gaussian.mean):,} features, and {recipe.name} compares "
                f"{INCEPTIONS[stream]:,}"
            )


def enough_real(recipe: Recipe, reference: Source | None) -> None:
    """As many items of the reference as a distance of rows is defined on."""
    count, fewest = reference.count if reference else None, recipe.distance.fewest
    if reference and count is not None and count < fewest:
        raise ValueError(f"{recipe.name} compares with at least {fewest:,} real items; {reference.name} has {count:,}")


def labels(recipe: Recipe, source: Source, count: int) -> NDArray[Any] | None:
    """The labels of the first `count` samples, where the recipe reads them; whole numbers where it needs classes."""
    if recipe.distance.labels == "unread":
        return None
    found = source.labels
    if recipe.distance.labels == "optional":
        return None if found is None else found[:count]
    if found is None:
        raise ValueError(
            f"{recipe.name} needs the classes that samples were drawn for: an .npz with arr_1, or harness.sample's"
        )
    assert recipe.space.classes is not None, "a space whose distances need labels has classes"
    return _classes(recipe, source.name, found[:count], recipe.space.classes)


def _classes(recipe: Recipe, name: str, found: NDArray[Any], classes: int) -> NDArray[np.int64]:
    want = f"{recipe.name} needs labels that are whole numbers from 0 to {classes - 1}"
    if found.dtype.kind not in "iuf":
        raise ValueError(f"{want}; those of {name} are of type {found.dtype}")
    wrong = ~((found >= 0) & (found < classes) & (found == np.floor(found)))  # NaN is none of these
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"{want}; {name} has {found[first]} for sample {first}")
    return found.astype(np.int64)


def same_side(source: Source, reference: str, side: tuple[int, int] | None) -> None:
    """Samples of the size that the reference of this name has, (H, W); None where it has no images."""
    ours = (source.shape[-3], source.shape[-2])
    if side not in (None, ours):
        drawn, real = (f"{width} x {height}" for height, width in (ours, side))
        raise ValueError(f"samples are {drawn}, the reference {reference} is {real}")


def few_duplicates(samples: Statistics, allowed: float) -> None:
    """No more copies among the samples than are allowed."""
    copies, count = samples.duplicates, samples.count
    if copies > allowed * count:
        raise ValueError(
            f"{copies:,} of {count:,} samples are copies of an earlier one ({copies / count:.1%}); "
            f"--max-duplicates allows {allowed:.0%}"
        )
