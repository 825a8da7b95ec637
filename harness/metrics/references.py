"""What samples are compared with: ADM's reference .npz, or any source of images, reduced to moments and features."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.distributed import Ranks
from harness.core.files import sha256, write_atomically, write_json
from harness.data import is_named
from harness.data.clips import open_clips
from harness.data.npz import Npz
from harness.data.sources import Source, open_images
from harness.metrics import checks
from harness.metrics.distances.distance import REFERENCE_ROWS
from harness.metrics.features import Space
from harness.metrics.features.extractor import Extractor, open_extractor
from harness.metrics.moments import Gaussian
from harness.metrics.recipes import Recipe
from harness.metrics.settings import Extraction
from harness.metrics.statistics import Needs, Statistics, gather

MEMBERS = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}  # the names that ADM's evaluator reads
MARK = "features"  # our own references state whose features their moments are


@dataclass(frozen=True)
class Reference:
    """Moments by stream, and the features (R, D) by stream that distances of rows read.

    `count` images are behind the moments (None where the file does not state it), `images` behind the features: those
    `chosen` (ascending) of `items`; `side` is their (H, W).
    """

    name: str
    sha256: str
    count: int | None
    images: int
    side: tuple[int, int] | None
    gaussians: Mapping[str, Gaussian]
    rows: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    items: int = 0
    chosen: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def rows_of(self, stream: str, size: int) -> NDArray[np.float32]:
        """The features of the `subset` of that size, which does not depend on what else is read."""
        kept, wanted = self.rows[stream], subset(self.items, size)
        return kept if len(wanted) == len(kept) else kept[np.searchsorted(self.chosen, wanted)]


def subset(count: int, size: int = REFERENCE_ROWS) -> NDArray[np.int64]:
    """Which images of a set serve distances of rows: all, or `size` of them in a fixed random choice, in order."""
    return np.sort(np.random.default_rng(0).choice(count, min(size, count), replace=False))


def of_source(
    source: Source, extractor: Extractor, needs: Needs, root: Path, here: Ranks, covariance: str = "sample"
) -> Reference:
    """A reference of all items of a source: moments, and rows of its subsets. Raises ValueError as extraction does."""
    if source.count is None:
        raise ValueError(f"{source.name} has no end; a reference is a set of known size")
    whole = (0, source.count)
    chosen = np.unique(np.concatenate([subset(source.count, size) for size in sorted(needs.sizes)]))
    gathered = gather(
        source, extractor, {whole: Needs(needs.moments, needs.rows, chosen)}, root, here, label="reference"
    )
    if not here.first:
        return Reference(source.name, "", source.count, 0, None, {})
    found = gathered[whole]
    gaussians = {name: moments.gaussian(covariance) for name, moments in found.moments.items()}
    side = (source.shape[-3], source.shape[-2])
    return Reference(
        source.name, found.sha256, source.count, len(chosen), side, gaussians, found.rows, source.count, chosen
    )


def open_reference(
    what: Source | str,
    recipes: Iterable[Recipe],
    extractor: Extractor,
    root: Path,
    here: Ranks,
    resolution: int | None = None,
    frames: int | None = None,
) -> Reference:
    """The reference of recipes on one feature space: an ADM .npz, an .npz or a folder of images or clips, a data set.

    Raises ValueError when it lacks what a recipe needs, naming the recipe and the member.
    """
    recipes = [recipe for recipe in recipes if recipe.needs_reference]
    of_clips = recipes[0].of_clips
    if not isinstance(what, str):
        source = what
    elif of_clips and not is_named(what):
        source = open_clips(what, frames, resolution=resolution)
    elif Path(what).suffix == ".npz":
        return of_npz(what, recipes, extractor, root, here)
    else:
        source = open_images(what, resolution, frames)
    checks.kind(recipes[0], source)
    return of_source(source, extractor, Needs.of_reference(recipes), root, here)


def of_npz(text: str, recipes: Sequence[Recipe], extractor: Extractor, root: Path, here: Ranks) -> Reference:
    """The reference in an .npz file: its moments where they are of these features, else moments and rows of its images.

    Raises ValueError when it lacks what a recipe needs, naming the recipe and the member.
    """
    path = Path(text).expanduser()
    needs, file = Needs.of_reference(recipes), Npz(path)
    stored = {name for name in needs.moments if _holds(file, name, recipes[0].space, extractor)}
    missing = needs.moments - stored
    for recipe in recipes:
        if recipe.needs_images:
            file.require("arr_0", f"holds the images that {recipe.name} needs")
        elif recipe.stream in missing:
            file.require("arr_0", f"{recipe.name} needs where there are no stored moments of its features")
    source = open_images(text) if "arr_0" in file else None
    if source is not None:
        checks.kind(recipes[0], source)
    count = _count(file)
    gaussians = {name: _gaussian(file, name, count) for name in stored}
    side = (source.shape[0], source.shape[1]) if source else None
    found = Reference(text, sha256(path), count, 0, side, gaussians)
    if source is None or not (missing or needs.rows):
        return found
    own = of_source(source, extractor, replace(needs, moments=frozenset(missing)), root, here)
    both = {**own.gaussians, **gaussians}
    return replace(own, name=text, sha256=found.sha256, count=count if stored else own.count, gaussians=both)


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
            stacklevel=4,
        )
        return False
    return True


def _gaussian(file: Npz, name: str, count: int | None) -> Gaussian:
    """Stored moments, checked: finite numbers, a mean (D,) and a covariance (D, D)."""
    found = []
    for member in MEMBERS[name]:
        array = file.array(member)
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise ValueError(f"{file.path}: {member} must hold finite numbers, not {array.dtype} with others")
        found.append(np.array(array, dtype=np.float64))
    mean, covariance = found
    if mean.ndim != 1 or not len(mean) or covariance.shape != (len(mean), len(mean)):
        shapes = f"{mean.shape} and {covariance.shape}"
        raise ValueError(f"{file.path}: {' and '.join(MEMBERS[name])} have shapes {shapes}, not (D,) and (D, D)")
    return Gaussian(mean, covariance, count)


def _count(file: Npz) -> int | None:
    """How many images are behind the stored moments, where the file states it."""
    if "count" not in file:
        return None
    stated = file.array("count")
    if stated.shape != () or stated.dtype.kind not in "iu" or stated < 2:
        raise ValueError(f"{file.path}: count must be one whole number of at least 2, not {stated!r}")
    return int(stated)


def mark(extractor: Extractor) -> str:
    """Whose features stored moments are of: the extractor's identity, as one line of JSON."""
    return json.dumps(extractor.identity, sort_keys=True)


def build(data: str, space: Space, out: Path, extraction: Extraction, here: Ranks) -> str:
    """Write a reference of images that ADM's evaluator reads too, `out` and `out`.json beside it.

    Moments are of all images, `arr_0` holds the 10,000 (or all) that serve precision and recall; `count` and
    `features` state what the moments are of. Returns a line that says what was written; "" but in the first process.
    Raises ValueError for features of clips, and for a destination that is no .npz, or that would replace what is read.
    """
    if space.items != "images":
        raise ValueError(f"a reference on disk is of images, and {space.name} features are of {space.items}")
    if out.suffix != ".npz":
        raise ValueError(f"--out must end in .npz, not {out.name!r}")
    if out.resolve() == Path(data).expanduser().resolve() or (
        out.exists() and Path(data).exists() and out.samefile(data)
    ):
        raise ValueError(f"--out would replace what is read: {out} and {data} are one file")
    source = open_images(data, extraction.ref_resolution)
    assert source.count is not None, "a set on disk has an end"
    extractor = open_extractor(space, extraction, here)
    whole = (0, source.count)
    needs = Needs(frozenset(space.streams) & frozenset(MEMBERS))
    gathered = gather(source, extractor, {whole: needs}, extraction.directory, here, label="reference")
    if not here.first:
        return ""
    digest = write(source, extractor, gathered[whole], out)
    return f"{out}: {source.count} images, sha256 {digest}\n"


def write(source: Source, extractor: Extractor, found: Statistics, out: Path) -> str:
    """The files of `build`; returns the .npz's sha256."""
    members: dict[str, NDArray[Any]] = {}
    for name, moments in found.moments.items():
        gaussian = moments.gaussian()
        members |= dict(zip(MEMBERS[name], (gaussian.mean, gaussian.covariance), strict=True))
    chosen = subset(found.count)
    members["arr_0"] = np.concatenate([source.read(index, index + 1) for index in chosen])
    members["count"], members[MARK] = np.array(found.count), np.array(mark(extractor))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, lambda file: np.savez(file, allow_pickle=False, **members))
    digest = sha256(out)
    about = {
        "sha256": digest,
        "source": source.name,
        "source_identity": source.identity,
        "images_sha256": found.sha256,
        "images_behind_moments": found.count,
        "images_in_arr_0": len(chosen),
        "extractor": extractor.identity,
    }
    write_json(out.with_name(out.name + ".json"), about)
    return digest
