"""From sources to scores: open the extractor, extract samples and reference, check them, apply the recipes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from harness.core.distributed import Ranks, barrier
from harness.data.clips import ClipProtocol, open_clips
from harness.data.sources import DATASETS, Source
from harness.metrics import references
from harness.metrics.evaluation import Result, Settings, combine, evaluate
from harness.metrics.features.digits import digits_extractor
from harness.metrics.features.extractor import Extractor
from harness.metrics.features.i3d import i3d
from harness.metrics.features.inception import inception
from harness.metrics.features.moving_digits import moving_digits_extractor
from harness.metrics.features.weights import load_weights
from harness.metrics.recipes import MAX_DUPLICATES, Recipe
from harness.metrics.references import Reference
from harness.metrics.shards import Features, extract

TRAINED = {"digits": digits_extractor, "moving-digits": moving_digits_extractor}  # on the spot


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Where things are and how values are computed. `weight_files` name files to use instead of the published ones."""

    work_dir: Path
    weights_dir: Path | None = None
    weight_files: dict[str, Path | None] = field(default_factory=dict)
    offline: bool = False
    batch: int | None = None  # of extraction; None is the extractor's own
    ref_resolution: int | None = None
    repeats: int = 1
    max_duplicates: float = MAX_DUPLICATES
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True)
class Scored:
    """The results of one recipe, and what they depend on: samples, reference, extractor, by name and hash."""

    results: list[Result]
    about: dict[str, object]


def open_extractor(space: str, setup: Setup, here: Ranks) -> Extractor:
    """The extractor of a feature space; the first process fetches or trains, then the others find it there."""
    if not here.first:
        barrier()
    if space in TRAINED:
        extractor = TRAINED[space](setup.weights_dir, here.device)
    else:
        name = "i3d" if space == "i3d" else "inception"
        given = setup.weight_files.get(name)
        weights = load_weights(name, path=given, directory=setup.weights_dir, offline=setup.offline)
        resize = "clean" if space == "cleanfid" else "tf1"
        extractor = i3d(weights, here.device) if space == "i3d" else inception(weights, here.device, resize)
    if here.first:
        barrier()
    return replace(extractor, batch=setup.batch or extractor.batch)


def score_items(group: list[Recipe], source: Source, ref: str | None, setup: Setup, here: Ranks) -> list[Scored]:
    """The recipes of one feature space, of images or of whole clips. Repeat r scores items [r N, (r + 1) N).

    Only the first process gets an answer. Raises ValueError for samples or a reference that do not fit the recipes.
    """
    for recipe in group:
        _of_its_kind(recipe, source)
        _enough(recipe, source, setup.repeats)
    extractor = open_extractor(group[0].features, setup, here)
    compared = [recipe for recipe in group if recipe.needs_reference]
    reference = None
    if compared:
        where = ref or group[0].features
        resolution = setup.ref_resolution or (source.shape[-3] if where in DATASETS else None)
        frames = source.shape[0] if len(source.shape) == 4 else None
        reference = references.open_reference(where, compared, extractor, setup.work_dir, here, resolution, frames)
        _same_side(source, reference)
    spans = {recipe.count: _spans(recipe.count, setup.repeats) for recipe in group}
    sets = {
        span: extract(source, extractor, *span, setup.work_dir, here, "samples")
        for span in dict.fromkeys(span for several in spans.values() for span in several)
    }
    if not here.first:
        return []
    for features in sets.values():
        _few_duplicates(features, setup.max_duplicates)
    scored = []
    for recipe in group:
        runs = []
        for start, stop in spans[recipe.count]:
            labels = None if source.labels is None else source.labels[start:stop]
            runs.append(evaluate(recipe, sets[start, stop], reference, setup.settings, labels))
        used = [sets[span] for span in spans[recipe.count]]
        about = _about(source, used, extractor, reference if recipe.needs_reference else None)
        scored.append(Scored(combine(runs), about))
    return scored


def score_clips(
    recipe: Recipe, source: Source, ref: str, protocol: ClipProtocol, setup: Setup, here: Ranks
) -> list[Scored]:
    """A Fréchet distance on I3D; repeats are further seeds of where real clips begin. Else as `score_items`."""
    _enough(recipe, source, 1)
    extractor = open_extractor("i3d", setup, here)
    features = extract(source, extractor, 0, recipe.count, setup.work_dir, here, "samples")
    runs, about = [], {}
    for seed in range(protocol.offset_seed, protocol.offset_seed + setup.repeats):
        real = open_clips(
            ref,
            recipe.frames,
            recipe.count,
            stride=protocol.stride_real,
            offset_seed=seed,
            resolution=setup.ref_resolution,
        )
        reference = references.of_source(real, extractor, ["pool"], setup.work_dir, here, protocol.covariance)
        if not here.first:
            continue
        _same_side(source, reference)
        runs.append(evaluate(recipe, features, reference, setup.settings))
        codecs = {"codec": source.identity.get("codec", "none"), "codec_real": real.identity["codec"]}
        about = _about(source, [features], extractor, reference) | asdict(protocol) | codecs
    if not here.first:
        return []
    _few_duplicates(features, setup.max_duplicates)
    return [Scored(combine(runs), about)]


def _spans(count: int, repeats: int) -> list[tuple[int, int]]:
    return [(repeat * count, (repeat + 1) * count) for repeat in range(repeats)]


def _of_its_kind(recipe: Recipe, source: Source) -> None:
    held = "clips" if len(source.shape) == 4 else "images"
    scored = "clips" if recipe.of_clips else "images"
    if held != scored:
        raise ValueError(f"{recipe.name} scores {scored}, and {source.name} holds {held}")


def _enough(recipe: Recipe, source: Source, repeats: int) -> None:
    needed = recipe.count * repeats
    if source.count is not None and source.count < needed:
        times = f" x {repeats} repeats" if repeats > 1 else ""
        raise ValueError(f"{recipe.name} needs {recipe.count:,} samples{times}; {source.name} has {source.count:,}")


def _same_side(source: Source, reference: Reference) -> None:
    side = (source.shape[-3], source.shape[-2])
    if reference.side is not None and reference.side != side:
        ours, theirs = (f"{width} x {height}" for height, width in (side, reference.side))
        raise ValueError(f"samples are {ours}, the reference {reference.name} is {theirs}")


def _few_duplicates(features: Features, allowed: float) -> None:
    copies = features.duplicates()
    if copies > allowed * features.count:
        raise ValueError(
            f"{copies:,} of {features.count:,} samples are copies of an earlier one ({copies / features.count:.1%}); "
            f"--max-duplicates allows {allowed:.0%}"
        )


def _about(
    source: Source, sets: list[Features], extractor: Extractor, reference: Reference | None
) -> dict[str, object]:
    digests = [features.digest() for features in sets]
    return {
        "source": source.name,
        "source_identity": source.identity,
        "samples_sha256": digests[0] if len(digests) == 1 else digests,
        "duplicates": sum(features.duplicates() for features in sets),
        "resolution": source.shape[-3],
        "reference": reference.name if reference else None,
        "reference_sha256": reference.sha256 if reference else None,
        "extractor": extractor.identity,
        "batch": extractor.batch,
        "tf32": False,
    }
