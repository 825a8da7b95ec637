"""What an evaluation compares with and by what, each opened once: networks, references, and their statistics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from harness.core.distributed import Ranks
from harness.data import is_named
from harness.data.clips import ArrayClips, open_clips
from harness.data.sources import ArraySource, Source
from harness.metrics import checks, references
from harness.metrics.features import Space
from harness.metrics.features.extractor import Extractor, open_extractor
from harness.metrics.moment_files import MomentFile
from harness.metrics.recipes import Recipe
from harness.metrics.references import Reference
from harness.metrics.settings import ClipProtocol, Extraction
from harness.metrics.statistics import Needs

Key = tuple[object, ...]


class Opened:
    """Networks by feature space, and `what` samples are compared with, as it is found and as its statistics."""

    def __init__(self, what: Source | str | None, here: Ranks, extraction: Extraction) -> None:
        self.what, self.here, self.extraction = what, here, extraction
        self._extractors: dict[str, Extractor] = {}
        self._found: dict[Key, Source | MomentFile] = {}
        self._clips: dict[Key, Source] = {}
        self._references: dict[Key, Reference] = {}

    def extractor(self, space: Space) -> Extractor:
        """The extractor of a feature space; the first process may download, then the others find the file there."""
        if space.name not in self._extractors:
            self._extractors[space.name] = open_extractor(space, self.extraction, self.here)
        return self._extractors[space.name]

    def beside(self, group: Sequence[Recipe], samples: Source) -> Source | MomentFile | None:
        """What recipes of one space are compared with; a data set by name comes in the samples' own size."""
        key = self._key(group, samples)
        if key is None:
            return None
        if key not in self._found:
            space, resolution, frames = key
            what = self.what if self.what is not None else space.data
            assert what is not None, "checked with the metrics"
            self._found[key] = references.find(what, group, self.extractor(space), resolution, frames)
        return self._found[key]

    def reference(self, group: Sequence[Recipe], samples: Source) -> Reference | None:
        """That, as moments and features."""
        key, found = self._key(group, samples), self.beside(group, samples)
        if key is None or found is None:
            return None
        if key not in self._references:
            extractor = self.extractor(group[0].space)
            self._references[key] = references.reduce(found, group, extractor, self.extraction.directory, self.here)
        return self._references[key]

    def _key(self, group: Sequence[Recipe], samples: Source) -> tuple[Space, int | None, int | None] | None:
        """For which space what is compared with is to be opened, at which resolution, of how many frames."""
        space = group[0].space
        if not any(recipe.needs_reference for recipe in group):
            return None
        what = self.what if self.what is not None else space.data
        assert what is not None, "checked with the metrics"
        resolution = self.extraction.ref_resolution
        if resolution is not None and (not isinstance(what, str) or what.endswith(".npz")):
            name = what if isinstance(what, str) else what.name
            raise ValueError(f"--ref-resolution crops and resizes folders and data sets; {name} is taken as it is")
        if resolution is None and isinstance(what, str) and is_named(what):
            resolution = samples.shape[-3]
        return space, resolution, samples.shape[0] if len(samples.shape) == 4 else None

    @property
    def cut_already(self) -> bool:
        """Whether the reference is of clips, not of videos that clips are cut from."""
        return not _of_videos(self.what)

    def real_clips(self, recipe: Recipe, protocol: ClipProtocol, repeat: int = 0) -> Source:
        """The clips that a repeat of an FVD on I3D or VideoMAE compares with; `protocol` has its strides."""
        key = (recipe, repeat)
        if key not in self._clips:
            assert self.what is not None, "checked with the metrics"
            self._clips[key] = cut(
                self.what, recipe, protocol.stride_real, offset_seed=protocol.offset_seed + repeat,
                drawn=protocol.real_videos == "random", resolution=self.extraction.ref_resolution,
            )  # fmt: skip
            checks.kind(recipe, self._clips[key])
        return self._clips[key]

    def reference_of_clips(self, recipe: Recipe, protocol: ClipProtocol, repeat: int) -> Reference:
        """Those, as moments."""
        key = (recipe, repeat)
        if key not in self._references:
            real, needs = self.real_clips(recipe, protocol, repeat), Needs.of_reference([recipe])
            self._references[key] = references.of_source(
                real, self.extractor(recipe.space), needs, self.extraction.directory, self.here, protocol.covariance
            )
        return self._references[key]


def named(what: Source | NDArray[Any] | str | Path, role: str) -> Source | str:
    """A source, or where one is."""
    if isinstance(what, str | Path):
        if not str(what):
            raise ValueError(f"the {role} is an empty path: give an .npz, a folder, or a data set")
        return str(what)
    return ArraySource(role, what) if isinstance(what, np.ndarray) else what


def cut(what: Source | str, recipe: Recipe, stride: int | None, **choices: Any) -> Source:
    """Clips of the recipe's frames, of at most as many videos as it scores; `choices` as open_clips has them."""
    if _of_videos(what):
        return open_clips(what, recipe.frames, recipe.count, stride=stride or 1, **choices)
    assert not isinstance(what, str)
    return what


def _of_videos(what: Source | str | None) -> TypeGuard[str | ArraySource]:
    """Whether clips are still to be cut; a source that is not of whole videos is of clips already."""
    return isinstance(what, str) or (isinstance(what, ArraySource) and not isinstance(what, ArrayClips))


def side_of(found: Source | MomentFile) -> tuple[int, int] | None:
    """(H, W) of a reference, where it has images."""
    return found.side if isinstance(found, MomentFile) else (found.shape[-3], found.shape[-2])
