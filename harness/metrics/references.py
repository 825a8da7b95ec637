"""What samples are compared with: ADM's reference .npz, or any source of images, reduced to moments and features."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.core.distributed import Ranks
from harness.core.files import sha256, write_atomically, write_json
from harness.data.clips import open_clips
from harness.data.npz import Npz
from harness.data.sources import DATASETS, Source, open_images
from harness.metrics.features.extractor import Extractor
from harness.metrics.moments import Gaussian, stream
from harness.metrics.recipes import PRECISION_REFERENCE, Recipe
from harness.metrics.shards import Features, extract

MEMBERS = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}  # the names that ADM's evaluator reads
MARK = "features"  # our own references say whose features their moments are


@dataclass(frozen=True)
class Reference:
    """Moments by stream, and the features (N, D) that precision, recall, KID and motion read where there are images.

    `count` images are behind the moments (None where the file does not say), `images` behind the features; `side` is
    their (H, W).
    """

    name: str
    sha256: str
    count: int | None
    images: int
    side: tuple[int, int] | None
    gaussians: dict[str, Gaussian]
    features: Callable[[str], NDArray[np.float32]] | None  # by stream


def subset(count: int, size: int = PRECISION_REFERENCE) -> NDArray[np.int64]:
    """Which images of a set serve precision and recall: all, or `size` of them in a fixed random choice, in order."""
    return np.sort(np.random.default_rng(0).choice(count, min(size, count), replace=False))


def of_source(
    source: Source, extractor: Extractor, streams: Iterable[str], root: Path, here: Ranks, covariance: str = "sample"
) -> Reference:
    """A reference of all items of a source. Raises ValueError as extraction does."""
    assert source.count is not None, "a reference has an end"
    features = extract(source, extractor, 0, source.count, root, here, "reference")
    if not here.first:
        return Reference(source.name, "", source.count, 0, None, {}, None)
    gaussians = {name: stream(features.stream(name)).gaussian(covariance) for name in streams if name != "logits"}
    chosen = subset(source.count)
    return Reference(
        source.name,
        features.digest(),
        source.count,
        len(chosen),
        (source.shape[-3], source.shape[-2]),
        gaussians,
        lambda name: features.rows(name)[chosen],
    )


def open_reference(
    text: str,
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
    recipes = list(recipes)
    streams = {recipe.stream for recipe in recipes if recipe.needs_reference and not recipe.needs_images}
    path = Path(text).expanduser()
    if any(recipe.of_clips for recipe in recipes) and text not in DATASETS:
        return of_source(open_clips(text, frames, resolution=resolution), extractor, streams, root, here)
    if path.suffix != ".npz":
        return of_source(open_images(text, resolution, frames), extractor, streams, root, here)
    file = Npz(path)
    stored = {name for name in streams if _holds(file, name, extractor)}
    missing = streams - stored
    for recipe in recipes:
        if recipe.needs_images:
            file.require("arr_0", f"holds the images that {recipe.name} needs")
        elif recipe.stream in missing:
            file.require("arr_0", f"{recipe.name} needs where there are no stored moments of its features")
    source = open_images(text) if "arr_0" in file else None
    gaussians, features, images, count = {}, None, 0, _count(file)
    for name in stored:
        mean, covariance = (np.array(file.array(member), dtype=np.float64) for member in MEMBERS[name])
        if covariance.shape != (len(mean), len(mean)):
            raise ValueError(f"{path}: {MEMBERS[name]} have shapes {mean.shape} and {covariance.shape}")
        gaussians[name] = Gaussian(mean, covariance, count)
    if source and (missing or any(recipe.needs_images for recipe in recipes)):
        own = of_source(source, extractor, missing, root, here)
        gaussians |= own.gaussians
        features, images = own.features, own.images
        count = count if stored else own.count
    side = (source.shape[0], source.shape[1]) if source else None
    return Reference(text, sha256(path), count, images, side, gaussians, features)


def _holds(file: Npz, name: str, extractor: Extractor) -> bool:
    """Whether the file stores moments of this extractor's features. Unmarked ones are of the published Inception."""
    if not all(member in file for member in MEMBERS.get(name, (name,))):
        return False
    if MARK in file:
        return str(file.array(MARK)) == mark(extractor)
    if extractor.name != "inception" or extractor.identity["resize"] != "tf1":
        return False
    if not extractor.identity["published_weights"]:
        warnings.warn(
            f"{file.path}: its moments are of the published Inception weights, not of those given; "
            "moments of its arr_0 are used instead",
            stacklevel=4,
        )
        return False
    return True


def _count(file: Npz) -> int | None:
    return int(file.array("count")) if "count" in file else None


def mark(extractor: Extractor) -> str:
    """Whose features stored moments are of: the extractor's identity, as one line of JSON."""
    return json.dumps(extractor.identity, sort_keys=True)


def build(source: Source, extractor: Extractor, features: Features, out: Path) -> str:
    """Write a reference that ADM's evaluator reads too, `out` and `out`.json beside it; returns the .npz's sha256.

    Moments are of all images, `arr_0` holds the 10,000 (or all) that serve precision and recall; `count` and
    `features` say what the moments are of.
    """
    members: dict[str, NDArray] = {}
    for name in extractor.streams:
        if name in MEMBERS:
            gaussian = stream(features.stream(name)).gaussian()
            members |= dict(zip(MEMBERS[name], (gaussian.mean, gaussian.covariance), strict=True))
    chosen = subset(features.count)
    members["arr_0"] = np.concatenate([source.read(index, index + 1) for index in chosen])
    members["count"], members[MARK] = np.array(features.count), np.array(mark(extractor))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, lambda file: np.savez(file, allow_pickle=False, **members))
    digest = sha256(out)
    about = {
        "sha256": digest,
        "source": source.name,
        "source_identity": source.identity,
        "images_sha256": features.digest(),
        "images_behind_moments": features.count,
        "images_in_arr_0": len(chosen),
        "extractor": extractor.identity,
    }
    write_json(out.with_name(out.name + ".json"), about)
    return digest
