"""From samples to scores: open the network, gather both sets, check them, apply the recipes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.distributed import Ranks
from harness.core.records import ScoreRecord
from harness.data.clips import ArrayClips, open_clips
from harness.data.sources import DATASETS, ArraySource, Source, open_images
from harness.metrics import checks, recipes, references
from harness.metrics.distances.distance import Comparison
from harness.metrics.features import Space
from harness.metrics.features.extractor import Extractor, open_extractor
from harness.metrics.recipes import Recipe
from harness.metrics.records import record
from harness.metrics.references import Reference
from harness.metrics.results import Result, combine
from harness.metrics.settings import ClipProtocol, Extraction, Settings
from harness.metrics.shards import Span
from harness.metrics.statistics import Needs, Statistics, gather

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
        self._extractors: dict[str, Extractor] = {}
        self._references: dict[tuple[object, ...], Reference] = {}

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
        if not wanted[0].of_clips or what in DATASETS:
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
        spans = {recipe: [(r * recipe.count, (r + 1) * recipe.count) for r in range(repeats)] for recipe in group}
        wanted = {
            span: Needs.of_samples([recipe for recipe in group if span in spans[recipe]], self.settings)
            for several in spans.values()
            for span in several
        }
        sets = self._gather(source, extractor, wanted)
        scored: list[Scored] = []
        for recipe in group if sets else ():
            beside = reference if recipe.needs_reference else None
            runs = []
            for start, stop in spans[recipe]:
                of_samples = labels[recipe]
                compared = Comparison(
                    recipe=recipe,
                    samples=sets[start, stop],
                    reference=beside,
                    settings=self.settings,
                    labels=None if of_samples is None else of_samples[start:stop],
                    device=str(self.here.device),
                )
                runs.append(results_of(compared))
            about = _about(source, [sets[span] for span in spans[recipe]], extractor, beside)
            scored.append((combine(runs), about))
        return scored

    def _clips(self, recipe: Recipe, what: Source | str) -> list[Scored]:
        """A Fréchet distance of clips that are cut; repeats are further seeds of where real clips begin."""
        protocol = self.clips.resolved(recipe.stride)
        source = _cut(what, recipe, protocol.stride_fake)
        checks.kind(recipe, source)
        checks.enough(recipe, source, 1)
        extractor = self.extractor(recipe.space)
        whole = (0, recipe.count)
        sets = self._gather(source, extractor, {whole: Needs.of_samples([recipe], self.settings)})
        runs, about = [], dict[str, object]()
        for repeat in range(self.settings.repeats):
            real = self._real_clips(recipe, protocol, repeat)
            needs = Needs.of_reference([recipe])
            reference = references.of_source(
                real, extractor, needs, self.extraction.directory, self.here, protocol.covariance
            )
            if not sets:
                continue
            checks.same_side(source, reference)
            compared = Comparison(
                recipe=recipe,
                samples=sets[whole],
                reference=reference,
                settings=self.settings,
                covariance=protocol.covariance,
                device=str(self.here.device),
            )
            runs.append(results_of(compared))
            codecs = {"codec": source.identity.get("codec", "none"), "codec_real": real.identity.get("codec", "none")}
            about = _about(source, [sets[whole]], extractor, reference) | asdict(protocol) | codecs
        return [(combine(runs), about)] if sets else []

    def _real_clips(self, recipe: Recipe, protocol: ClipProtocol, repeat: int) -> Source:
        """The reference's clips of one repeat."""
        assert self.reference is not None, "checked with the metrics"
        seed = protocol.offset_seed + repeat
        real = _cut(self.reference, recipe, protocol.stride_real, seed, self.extraction.ref_resolution)
        checks.kind(recipe, real)
        if real is self.reference and repeat:
            raise ValueError(f"repeats of {recipe.name} cut other clips, and {real.name} is of clips already cut")
        return real

    def _gather(self, source: Source, extractor: Extractor, wanted: Mapping[Span, Needs]) -> dict[Span, Statistics]:
        """Of the samples; empty but in the first process. Raises ValueError for too many copies."""
        sets = gather(source, extractor, wanted, self.extraction.directory, self.here, "samples")
        for found in sets.values():
            checks.few_duplicates(found, self.settings.max_duplicates)
        return sets

    def _reference(self, group: Sequence[Recipe], source: Source) -> Reference | None:
        """What recipes of one space are compared with; an embedded data set comes in the samples' own size."""
        space, compared = group[0].space, [recipe for recipe in group if recipe.needs_reference]
        if not compared:
            return None
        what = self.reference if self.reference is not None else space.data
        assert what is not None, "checked with the metrics"
        resolution = self.extraction.ref_resolution
        if resolution is None and isinstance(what, str) and what in DATASETS:
            resolution = source.shape[-3]
        frames = source.shape[0] if len(source.shape) == 4 else None
        key = (space.name, resolution, frames)
        if key not in self._references:
            self._references[key] = references.open_reference(
                what, compared, self.extractor(space), self.extraction.directory, self.here, resolution, frames
            )
        return self._references[key]


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
