"""From samples to scores: open the network, gather both sets, check them, apply the recipes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from harness.core.distributed import Ranks
from harness.core.records import ScoreRecord
from harness.data import is_named
from harness.data.clips import open_clips
from harness.data.sources import Source, open_images
from harness.metrics import checks, panel, recipes
from harness.metrics.distances.distance import Comparison
from harness.metrics.features import Space
from harness.metrics.features.extractor import Extractor
from harness.metrics.moment_files import MomentFile
from harness.metrics.opened import Opened, cut, named, side_of
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
        where = None if reference is None else named(reference, "reference")
        self.here = here
        self.settings, self.clips = settings or Settings(), clips or ClipProtocol()
        self.extraction = extraction or Extraction()
        checks.together(self.recipes, where, self.clips)
        checks.counts(self.recipes, self.settings)
        checks.weights(self.recipes, self.extraction)
        self.opened = Opened(where, here, self.extraction)

    def of(self, samples: Source | NDArray[Any] | str | Path) -> list[ScoreRecord]:
        """One record a number, in the order of the metrics' features; only the first process gets any.

        A source that draws its samples states what they follow from, in `origin` and `seed`.
        """
        what = named(samples, "samples")
        whole, scored = self._whole, list[Scored]()
        source = self._source(what, whole) if whole else None
        cuts = {
            recipe: cut(what, recipe, self.clips.resolved(recipe.stride).stride_fake)
            for recipe in self.recipes
            if recipe.frames
        }
        if source is not None:
            self.require(source, whole)
        for recipe, clips in cuts.items():
            self.require(clips, [recipe])
        if source is not None:
            for space in dict.fromkeys(recipe.space for recipe in whole):
                scored += self._items(self._of(space), source)
        for recipe, clips in cuts.items():
            scored += self._clips(recipe, clips)
        scored += panel.of(scored)
        origin, seed = getattr(samples, "origin", {}), getattr(samples, "seed", None)
        return [
            record(result, about | origin, self.settings, self.here, seed)
            for results, about in scored
            for result in results
        ]

    @property
    def _whole(self) -> list[Recipe]:
        """The recipes of images, and of clips in their whole length."""
        return [recipe for recipe in self.recipes if not recipe.frames]

    @property
    def readings(self) -> int:
        """How many times samples are read whose features are not there yet: once a network, or a length of clips."""
        return len({recipe.space.name for recipe in self._whole}) + sum(bool(recipe.frames) for recipe in self.recipes)

    def require(self, samples: Source, recipes: Sequence[Recipe] | None = None) -> None:
        """Raise ValueError for what would not fit these samples: kind, count, classes, size; networks, the reference.

        Of all recipes or some. Nothing is drawn, and no feature made.
        """
        for recipe in recipes or self.recipes:
            repeats = 1 if recipe.frames else self.settings.repeats
            checks.kind(recipe, samples)
            checks.enough(recipe, samples, repeats)
            checks.labels(recipe, samples, recipe.count * repeats)
            self.opened.extractor(recipe.space)
            found: Source | MomentFile | None
            if recipe.frames:
                found = self.opened.real_clips(recipe, self.clips.resolved(recipe.stride))
                if self.settings.repeats > 1 and self.opened.cut_already:
                    raise ValueError(f"repeats of {recipe.name} cut other clips; those of {found.name} are cut already")
            else:
                found = self.opened.beside(self._of(recipe.space), samples)
            if isinstance(found, MomentFile):
                checks.widths(recipe, found.name, found.gaussians())
            if recipe.needs_images:
                checks.enough_real(recipe, found.images if isinstance(found, MomentFile) else found)
            if found is not None:
                checks.same_side(samples, found.name, side_of(found))

    def _of(self, space: Space) -> list[Recipe]:
        """The recipes of one feature space."""
        return [recipe for recipe in self.recipes if recipe.space is space]

    def _source(self, what: Source | str, wanted: Sequence[Recipe]) -> Source:
        """Images, or clips in their whole length."""
        if not isinstance(what, str):
            return what
        if is_named(what):  # real images in the place of samples, in the size of those that they are compared with
            return open_images(what, self.opened.extraction.ref_resolution)
        if not wanted[0].of_clips:
            return open_images(what)
        return open_clips(what, None, recipes.needed(wanted, self.settings.repeats))

    def _items(self, group: list[Recipe], source: Source) -> list[Scored]:
        """The recipes of one feature space, of images or of whole clips. Repeat r scores items [r N, (r + 1) N)."""
        repeats = self.settings.repeats
        labels = {recipe: checks.labels(recipe, source, recipe.count * repeats) for recipe in group}
        extractor, reference = self.opened.extractor(group[0].space), self.opened.reference(group, source)
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

    def _clips(self, recipe: Recipe, source: Source) -> list[Scored]:
        """A Fréchet distance of clips that are cut; repeats are further seeds of where real clips begin, no more."""
        protocol, extractor = self.clips.resolved(recipe.stride), self.opened.extractor(recipe.space)
        sets = [found for _, found in self._samples(source, extractor, {(0, recipe.count): [recipe]})]
        runs, about, digests = [], dict[str, object](), list[str]()
        for repeat in range(self.settings.repeats):
            reference = self.opened.reference_of_clips(recipe, protocol, repeat)
            for found in sets:
                compared = Comparison(
                    recipe=recipe,
                    samples=found,
                    reference=reference,
                    settings=self.settings,
                    covariance=protocol.covariance,
                    device=str(self.here.device),
                )
                runs.append(results_of(compared))
            real = self.opened.real_clips(recipe, protocol, repeat)
            codecs = {"codec": source.identity.get("codec", "none"), "codec_real": real.identity.get("codec", "none")}
            digests.append(reference.sha256)
            about = _about(source, sets, extractor, reference) | asdict(protocol) | codecs
        about |= {"reference_sha256": digests if len(digests) > 1 else digests[0]}
        return [(combine(runs, same_samples=True), about)] if runs else []

    def _samples(
        self, source: Source, extractor: Extractor, scored_by: Mapping[Span, Sequence[Recipe]]
    ) -> Iterator[tuple[Span, Statistics]]:
        """Each set of samples; none but in the first process. Raises ValueError for too many copies."""
        wanted = {span: Needs.of_samples(several, self.settings) for span, several in scored_by.items()}
        for span, found in gather_each(source, extractor, wanted, self.extraction.directory, self.here, "samples"):
            checks.few_duplicates(found, self.settings.max_duplicates)
            yield span, found


def results_of(compared: Comparison) -> list[Result]:
    """The values of one recipe on one set of samples; warnings become their notes.

    Raises ValueError for what the recipe cannot be applied to.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = compared.recipe.distance.measure(compared)
    notes = tuple(dict.fromkeys(str(warning.message) for warning in caught))
    return [replace(result, notes=notes) for result in results]


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
