"""From samples to scores: open the network, gather both sets, check them, apply the recipes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.distributed import Ranks
from harness.core.records import ScoreRecord
from harness.data import is_named
from harness.data.clips import ArrayClips, open_clips
from harness.data.sources import ArraySource, Source, open_images
from harness.metrics import checks, panel, recipes, references
from harness.metrics.distances.distance import Comparison
from harness.metrics.features import Space
from harness.metrics.features.extractor import Extractor, open_extractor
from harness.metrics.recipes import Recipe
from harness.metrics.records import record
from harness.metrics.references import Reference
from harness.metrics.results import Result, combine
from harness.metrics.settings import ClipProtocol, Extraction, Settings
from harness.metrics.shards import Span
from harness.metrics.statistics import Needs, Statistics, gather_each

Scored = tuple[list[Result], dict[str, object]]
"""The results of a recipe, and what they depend on: samples, reference, extractor, by name and hash."""


class Evaluation:
    """Metrics of any number of sets of samples against one reference; networks and references are opened once.

    As `harness.metrics.evaluate`, which is one set's. Raises ValueError for what does not fit together, before any
    work.
    """

    def __init__(
        self,
        metrics: str | Sequence[str],
        reference: Source | NDArray[Any] | str | Path | None,
        here: Ranks,
        settings: Settings | None = None,
        clips: ClipProtocol | None = None,
        extraction: Extraction | None = None,
    ) -> None:
        self.recipes = recipes.parse([metrics] if isinstance(metrics, str) else metrics)
        self.reference = None if reference is None else _opened(reference, "reference")
        self.here = here
        self.settings, self.clips = settings or Settings(), clips or ClipProtocol()
        self.extraction = extraction or Extraction()
        checks.together(self.recipes, self.reference, self.clips)
        checks.weights(self.recipes, self.extraction)
        self._extractors: dict[str, Extractor] = {}
        self._references: dict[tuple[object, ...], tuple[Reference, object]] = {}

    def of(self, samples: Source | NDArray[Any] | str | Path) -> list[ScoreRecord]:
        """One record a number, in the order of the metrics' features; only the first process gets any.

        A source that draws its samples states what they follow from, in `origin` and `seed`.
        """
        what = _opened(samples, "samples")
        whole = [recipe for recipe in self.recipes if not recipe.frames]
        scored: list[Scored] = []
        if whole:
            source = self._source(what, whole)
            for space in dict.fromkeys(recipe.space for recipe in whole):
                scored += self._items([recipe for recipe in whole if recipe.space is space], source)
        for recipe in self.recipes:
            if recipe.frames:
                scored += self._clips(recipe, what)
        scored += panel.of(scored)
        origin, seed = getattr(samples, "origin", {}), getattr(samples, "seed", None)
        return [
            record(result, about | origin, self.settings, self.here, seed)
            for results, about in scored
            for result in results
        ]

    def extractor(self, space: Space) -> Extractor:
        """The extractor of a feature space; the first process may download, then the others find the file there."""
        if space.name not in self._extractors:
            self._extractors[space.name] = open_extractor(space, self.extraction, self.here)
        return self._extractors[space.name]

    def _source(self, what: Source | str, wanted: Sequence[Recipe]) -> Source:
        """Images, or clips in their whole length."""
        if not isinstance(what, str):
            return what
        if not wanted[0].of_clips or is_named(what):
            return open_images(what)
        return open_clips(what, None, recipes.needed(wanted, self.settings.repeats))

    def _items(self, group: list[Recipe], source: Source) -> list[Scored]:
        """The recipes of one feature space, of images or of whole clips. Repeat r scores items [r N, (r + 1) N)."""
        repeats = self.settings.repeats
        for recipe in group:
            checks.kind(recipe, source)
            checks.enough(recipe, source, repeats)
        labels = {recipe: checks.labels(recipe, source, recipe.count * repeats) for recipe in group}
        extractor = self.extractor(group[0].space)
        reference = self._reference(group, source)
        if reference is not None:
            checks.same_side(source, reference)
        scored_by: dict[Span, list[Recipe]] = {}
        for recipe in group:
            for repeat in range(repeats):
                scored_by.setdefault((repeat * recipe.count, (repeat + 1) * recipe.count), []).append(recipe)
        runs: dict[Recipe, list[list[Result]]] = {recipe: [] for recipe in group}
        used: dict[Recipe, list[Statistics]] = {recipe: [] for recipe in group}
        beside = {recipe: reference if recipe.needs_reference else None for recipe in group}
        for span, found in self._samples(source, extractor, scored_by):
            for recipe in scored_by[span]:
                known = labels[recipe]
                compared = Comparison(
                    recipe=recipe,
                    samples=found,
                    reference=beside[recipe],
                    settings=self.settings,
                    labels=None if known is None else known[slice(*span)],
                    device=str(self.here.device),
                )
                runs[recipe].append(results_of(compared))
                used[recipe].append(found.summary())
        return [
            (combine(runs[recipe]), _about(source, used[recipe], extractor, beside[recipe]))
            for recipe in group
            if runs[recipe]
        ]

    def _clips(self, recipe: Recipe, what: Source | str) -> list[Scored]:
        """A Fréchet distance of clips that are cut; repeats are further seeds of where real clips begin."""
        protocol = self.clips.resolved(recipe.stride)
        source = _cut(what, recipe, protocol.stride_fake)
        checks.kind(recipe, source)
        checks.enough(recipe, source, 1)
        extractor = self.extractor(recipe.space)
        sets = [found for _, found in self._samples(source, extractor, {(0, recipe.count): [recipe]})]
        runs, about = [], dict[str, object]()
        for repeat in range(self.settings.repeats):
            reference, codec = self._real_clips(recipe, protocol, protocol.offset_seed + repeat)
            for found in sets:
                checks.same_side(source, reference)
                compared = Comparison(
                    recipe=recipe,
                    samples=found,
                    reference=reference,
                    settings=self.settings,
                    covariance=protocol.covariance,
                    device=str(self.here.device),
                )
                runs.append(results_of(compared))
            codecs = {"codec": source.identity.get("codec", "none"), "codec_real": codec}
            about = _about(source, sets, extractor, reference) | asdict(protocol) | codecs
        return [(combine(runs), about)] if runs else []

    def _real_clips(self, recipe: Recipe, protocol: ClipProtocol, seed: int) -> tuple[Reference, object]:
        """The reference of one repeat, and how its frames are stored."""
        key = (recipe, seed)
        if key not in self._references:
            assert self.reference is not None, "checked with the metrics"
            real = _cut(self.reference, recipe, protocol.stride_real, seed, self.extraction.ref_resolution)
            checks.kind(recipe, real)
            if real is self.reference and self.settings.repeats > 1:
                raise ValueError(f"repeats of {recipe.name} cut other clips; those of {real.name} are cut already")
            reference = references.of_source(
                real,
                self.extractor(recipe.space),
                Needs.of_reference([recipe]),
                self.extraction.directory,
                self.here,
                protocol.covariance,
            )
            self._references[key] = reference, real.identity.get("codec", "none")
        return self._references[key]

    def _samples(
        self, source: Source, extractor: Extractor, scored_by: Mapping[Span, Sequence[Recipe]]
    ) -> Iterator[tuple[Span, Statistics]]:
        """Each set of samples; none but in the first process. Raises ValueError for too many copies."""
        wanted = {span: Needs.of_samples(several, self.settings) for span, several in scored_by.items()}
        for span, found in gather_each(source, extractor, wanted, self.extraction.directory, self.here, "samples"):
            checks.few_duplicates(found, self.settings.max_duplicates)
            yield span, found

    def _reference(self, group: Sequence[Recipe], source: Source) -> Reference | None:
        """What recipes of one space are compared with; a data set by name comes in the samples' own size."""
        space, compared = group[0].space, [recipe for recipe in group if recipe.needs_reference]
        if not compared:
            return None
        what = self.reference if self.reference is not None else space.data
        assert what is not None, "checked with the metrics"
        resolution = self.extraction.ref_resolution
        if resolution is not None and str(what).endswith(".npz"):
            raise ValueError(f"--ref-resolution crops and resizes folders and data sets; {what} is taken as it is")
        if resolution is None and isinstance(what, str) and is_named(what):
            resolution = source.shape[-3]
        frames = source.shape[0] if len(source.shape) == 4 else None
        key = (space, resolution, frames)
        if key not in self._references:
            opened = references.open_reference(
                what, compared, self.extractor(space), self.extraction.directory, self.here, resolution, frames
            )
            self._references[key] = opened, None
        return self._references[key][0]


def results_of(compared: Comparison) -> list[Result]:
    """The values of one recipe on one set of samples; warnings become their notes.

    Raises ValueError for what the recipe cannot be applied to.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = compared.recipe.distance.measure(compared)
    notes = tuple(dict.fromkeys(str(warning.message) for warning in caught))
    return [replace(result, notes=notes) for result in results]


def _opened(what: Source | NDArray[Any] | str | Path, role: str) -> Source | str:
    """A source, or where one is."""
    if isinstance(what, str | Path):
        if not str(what):
            raise ValueError(f"the {role} is an empty path: give an .npz, a folder, or a data set")
        return str(what)
    return ArraySource(role, what) if isinstance(what, np.ndarray) else what


def _cut(
    what: Source | str,
    recipe: Recipe,
    stride: int | None,
    offset_seed: int | None = None,
    resolution: int | None = None,
) -> Source:
    """Clips of the recipe's frames; a source that is not of whole videos is of clips already."""
    if isinstance(what, str) or (isinstance(what, ArraySource) and not isinstance(what, ArrayClips)):
        return open_clips(
            what, recipe.frames, recipe.count, stride=stride or 1, offset_seed=offset_seed, resolution=resolution
        )
    return what


def _about(
    source: Source, sets: Sequence[Statistics], extractor: Extractor, reference: Reference | None
) -> dict[str, object]:
    digests = [found.sha256 for found in sets]
    return {
        "source": source.name,
        "source_identity": source.identity,
        "samples_sha256": digests[0] if len(digests) == 1 else digests,
        "duplicates": sum(found.duplicates for found in sets),
        "resolution": source.shape[-3],
        "reference": reference.name if reference else None,
        "reference_sha256": reference.sha256 if reference else None,
        "extractor": extractor.identity,
        "batch": extractor.batch,
        "tf32": False,
    }
