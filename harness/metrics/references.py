"""What samples are compared with: ADM's reference .npz, or any source of images, reduced to moments and features."""

from __future__ import annotations

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
from harness.data.sources import Source, open_images
from harness.metrics import checks, moment_files
from harness.metrics.distances.distance import REFERENCE_ROWS
from harness.metrics.features import Space
from harness.metrics.features.extractor import Extractor, open_extractor
from harness.metrics.moment_files import MARK, MEMBERS, MomentFile, mark
from harness.metrics.moments import Gaussian
from harness.metrics.recipes import Recipe
from harness.metrics.settings import Extraction
from harness.metrics.statistics import Needs, Statistics, gather


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


def find(
    what: Source | str,
    recipes: Iterable[Recipe],
    extractor: Extractor,
    resolution: int | None = None,
    frames: int | None = None,
) -> Source | MomentFile:
    """The reference of recipes on one feature space: an ADM .npz, an .npz or a folder of images or clips, a data set.

    No feature is made. Raises ValueError when it lacks what a recipe needs, naming the recipe and the member.
    """
    recipes = [recipe for recipe in recipes if recipe.needs_reference]
    of_clips = recipes[0].of_clips
    if not isinstance(what, str):
        source = what
    elif of_clips and not is_named(what):
        source = open_clips(what, frames, resolution=resolution)
    elif Path(what).suffix == ".npz":
        return moment_files.find(what, recipes, extractor)
    else:
        source = open_images(what, resolution, frames)
    checks.kind(recipes[0], source)
    return source


def reduce(
    found: Source | MomentFile, recipes: Iterable[Recipe], extractor: Extractor, root: Path, here: Ranks
) -> Reference:
    """What was found, as moments and features: those of an .npz as far as it stores them, else of its images."""
    needs = Needs.of_reference(recipe for recipe in recipes if recipe.needs_reference)
    if not isinstance(found, MomentFile):
        return of_source(found, extractor, needs, root, here)
    gaussians, missing = found.gaussians(), needs.moments - found.stored
    stored = Reference(found.name, found.sha256, found.count, 0, found.side, gaussians)
    if found.images is None or not (missing or needs.rows):
        return stored
    own = of_source(found.images, extractor, replace(needs, moments=frozenset(missing)), root, here)
    both, count = {**own.gaussians, **gaussians}, found.count if found.stored else own.count
    return replace(own, name=found.name, sha256=found.sha256, count=count, gaussians=both)


def open_reference(
    what: Source | str,
    recipes: Sequence[Recipe],
    extractor: Extractor,
    root: Path,
    here: Ranks,
    resolution: int | None = None,
    frames: int | None = None,
) -> Reference:
    """`find` and `reduce` in one."""
    return reduce(find(what, recipes, extractor, resolution, frames), recipes, extractor, root, here)


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
    if extraction.ref_resolution is not None and Path(data).suffix == ".npz":
        raise ValueError(f"--ref-resolution crops and resizes folders and data sets; {data} is taken as it is")
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
