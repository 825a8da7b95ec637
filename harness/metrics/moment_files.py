"""References in an .npz, as ADM's evaluator reads them: stored moments of features, and images where they are there."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from harness.core.files import sha256
from harness.data.npz import Npz
from harness.data.sources import Source, open_images
from harness.metrics import checks
from harness.metrics.features import Space
from harness.metrics.features.extractor import Extractor
from harness.metrics.moments import Gaussian
from harness.metrics.recipes import Recipe
from harness.metrics.statistics import Needs

MEMBERS = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}  # the names that ADM's evaluator reads
MARK = "features"  # our own references state whose features their moments are


@dataclass(frozen=True)
class MomentFile:
    """An .npz by `name`, the streams of which it has `stored` moments of the wanted features, and its `images`."""

    name: str
    file: Npz
    stored: frozenset[str]
    images: Source | None

    @cached_property
    def sha256(self) -> str:
        """Of the file."""
        return sha256(self.file.path)

    @property
    def side(self) -> tuple[int, int] | None:
        """(H, W) of its images."""
        return (self.images.shape[0], self.images.shape[1]) if self.images else None

    @property
    def count(self) -> int | None:
        """How many images are behind the stored moments, where the file states it."""
        if "count" not in self.file:
            return None
        stated = self.file.array("count")
        if stated.shape != () or stated.dtype.kind not in "iu" or stated < 2:
            raise ValueError(f"{self.file.path}: count must be one whole number of at least 2, not {stated!r}")
        return int(stated)

    def gaussians(self) -> dict[str, Gaussian]:
        """The stored moments by stream, checked: finite numbers, a mean (D,) and a covariance (D, D)."""
        return {name: self._gaussian(name) for name in self.stored}

    def _gaussian(self, name: str) -> Gaussian:
        found = []
        for member in MEMBERS[name]:
            array = self.file.array(member)
            if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
                raise ValueError(f"{self.file.path}: {member} must hold finite numbers, not {array.dtype} with others")
            found.append(np.array(array, dtype=np.float64))
        mean, covariance = found
        if mean.ndim != 1 or not len(mean) or covariance.shape != (len(mean), len(mean)):
            shapes = f"{mean.shape} and {covariance.shape}"
            members = " and ".join(MEMBERS[name])
            raise ValueError(f"{self.file.path}: {members} have shapes {shapes}, not (D,) and (D, D)")
        return Gaussian(mean, covariance, self.count)


def find(text: str, recipes: Sequence[Recipe], extractor: Extractor) -> MomentFile:
    """The reference in an .npz file: its moments where they are of these features, else those of its images.

    Raises ValueError when it lacks what a recipe needs, naming the recipe and the member.
    """
    needs, file = Needs.of_reference(recipes), Npz(Path(text).expanduser())
    stored = frozenset(name for name in needs.moments if _holds(file, name, recipes[0].space, extractor))
    for recipe in recipes:
        if recipe.needs_images:
            file.require("arr_0", f"holds the images that {recipe.name} needs")
        elif recipe.stream not in stored:
            file.require("arr_0", f"{recipe.name} needs where there are no stored moments of its features")
    images = open_images(text) if "arr_0" in file else None
    if images is not None:
        checks.kind(recipes[0], images)
    return MomentFile(text, file, stored, images)


def _holds(file: Npz, name: str, space: Space, extractor: Extractor) -> bool:
    """Whether the file stores moments of this extractor's features. Unmarked ones are of the published Inception."""
    if not all(member in file for member in MEMBERS.get(name, (name,))):
        return False
    if MARK in file:
        return str(file.array(MARK)) == mark(extractor)
    if space.name != "inception":
        return False
    if not extractor.identity["published_weights"]:
        warnings.warn(
            f"{file.path}: its moments are of the published Inception weights, not of those given; "
            "moments of its arr_0 are used instead",
            stacklevel=5,
        )
        return False
    return True


def mark(extractor: Extractor) -> str:
    """Whose features stored moments are of: the extractor's identity, as one line of JSON."""
    return json.dumps(extractor.identity, sort_keys=True)
