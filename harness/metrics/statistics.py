"""What is known of the features of a set of items after one pass: moments, rows, a digest of the pixels, copies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.core.distributed import Ranks, barrier
from harness.core.locks import locked
from harness.core.progress import progress_bar
from harness.data.sources import Source
from harness.metrics.distances.distance import REFERENCE_ROWS
from harness.metrics.features.extractor import Extractor
from harness.metrics.moments import Moments, Stream
from harness.metrics.recipes import Recipe
from harness.metrics.settings import Settings
from harness.metrics.shards import Shard, ShardFolder, Span, read, spans

KEPT_BYTES = 1 << 30
"""Of shards that the first of several processes has made and not used yet; it reads what it makes beyond."""


@dataclass(frozen=True)
class Needs:
    """What is kept of a set: the `moments` of some streams, and the `rows` of some, all or those of `chosen` items.

    Moments take the memory of one block of rows, however large the set. `chosen` (ascending) counts from the set's
    first item. Of a reference, `sizes` are those of the subsets whose rows are read.
    """

    moments: frozenset[str] = frozenset()
    rows: frozenset[str] = frozenset()
    chosen: NDArray[np.int64] | None = None
    sizes: frozenset[int] = frozenset({REFERENCE_ROWS})

    @classmethod
    def of_samples(cls, recipes: Iterable[Recipe], settings: Settings) -> Needs:
        """What recipes read of the samples; where values are resampled, a distance of moments reads rows too."""
        recipes = list(recipes)
        gaussian = {recipe.stream for recipe in recipes if recipe.distance.reads == "moments"}
        rows = {recipe.stream for recipe in recipes if recipe.distance.reads == "rows" or settings.resamples}
        return cls(frozenset(gaussian), frozenset(rows))

    @classmethod
    def of_reference(cls, recipes: Iterable[Recipe]) -> Needs:
        """What recipes read of their reference."""
        compared = [recipe for recipe in recipes if recipe.needs_reference]
        gaussian = {recipe.stream for recipe in compared if not recipe.needs_images}
        rowwise = [recipe for recipe in compared if recipe.needs_images]
        sizes = frozenset(recipe.reference_rows for recipe in rowwise) or cls.sizes
        return cls(frozenset(gaussian), frozenset(recipe.stream for recipe in rowwise), sizes=sizes)


@dataclass(frozen=True)
class Statistics:
    """Of `count` items: `moments` and `rows` (N, D) float32 by stream.

    `sha256` is of all pixels, as a hash of the shards' own hashes; `duplicates` are copies of an earlier item.
    """

    count: int
    sha256: str
    duplicates: int
    moments: dict[str, Moments] = field(default_factory=dict)
    rows: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def summary(self) -> Statistics:
        """Without moments and rows, which take memory."""
        return Statistics(self.count, self.sha256, self.duplicates)


def gather(
    source: Source, extractor: Extractor, wanted: Mapping[Span, Needs], root: Path, here: Ranks, label: str = ""
) -> dict[Span, Statistics]:
    """The statistics of sets of items [start, stop) of one source, all from one pass over its shards.

    As `gather_each`, which gives them one by one; empty but in the first process.
    """
    return dict(gather_each(source, extractor, wanted, root, here, label))


def gather_each(
    source: Source, extractor: Extractor, wanted: Mapping[Span, Needs], root: Path, here: Ranks, label: str = ""
) -> Iterator[tuple[Span, Statistics]]:
    """Each set as soon as its last shard is taken: sets that do not overlap are not in memory together.

    A shard that is there is read and verified once; one that is missing or damaged is made, written, and used as it
    is. Of several processes each makes its share, and the first alone gets sets. A command waits for another that makes
    the same. Raises ValueError when features are not finite.
    """
    folder = ShardFolder(source, extractor, root, here)
    parts = {whole: set(spans(*whole)) for whole in wanted}
    streams = frozenset[str]().union(*(needs.moments | needs.rows for needs in wanted.values()))
    stops: dict[int, list[int]] = {}  # by where shards start: a set may end within a shard of another
    for start, stop in sorted(set().union(*parts.values())):
        stops.setdefault(start, []).append(stop)
    missing = sum(
        max((stop for stop in ends if not folder.has((start, stop))), default=start) - start
        for start, ends in stops.items()
    )
    collectors: dict[Span, Collector] = {}
    kept: dict[Span, Shard] = {}
    with ExitStack() as stack:
        if here.first and missing:  # another command may be making the same shards
            stack.enter_context(locked(folder.path, wait=True))
            folder.describe()
        shown = here.first and missing > 0
        bar = stack.enter_context(progress_bar(missing, "item", label or source.name, shown))
        if here.world > 1:
            barrier()
            kept = _make_share(folder, stops, here, bar.update)
            barrier()
        for start, ends in stops.items() if here.first else ():
            shards = _shards(folder, start, ends, kept, bar.update, streams)
            for whole, needs in wanted.items():
                for span in shards.keys() & parts[whole]:
                    collectors.setdefault(whole, Collector(whole[1] - whole[0], needs)).add(shards[span])
                    if span[1] == whole[1]:
                        yield whole, collectors.pop(whole).statistics()


def _shards(
    folder: ShardFolder,
    start: int,
    stops: Sequence[int],
    kept: dict[Span, Shard],
    advance: Callable[[int], object],
    streams: frozenset[str],
) -> dict[Span, Shard]:
    """The shards from `start` to each of `stops`: those kept, else whole ones on disk with these streams, else made."""
    found: dict[Span, Shard] = {}
    for span in ((start, stop) for stop in stops):
        shard = kept.pop(span, None) or read(folder.file(span), streams)
        if shard is not None:
            found[span] = shard
    absent = [stop for stop in stops if (start, stop) not in found]
    return found | (folder.make(start, absent, advance) if absent else {})


def _make_share(
    folder: ShardFolder, stops: Mapping[int, list[int]], here: Ranks, advance: Callable[[int], object]
) -> dict[Span, Shard]:
    """Make what is missing of this process's share. Gives what the first process has made, as memory allows."""
    kept: dict[Span, Shard] = {}
    for start in list(stops)[here.rank :: here.world]:
        absent = [stop for stop in stops[start] if not folder.has((start, stop))]
        made = folder.make(start, absent, advance) if absent else {}
        if here.first and sum(shard.nbytes for shard in (*kept.values(), *made.values())) <= KEPT_BYTES:
            kept |= made
    return kept


class Collector:
    """Takes the shards of `count` items in order, and gives their Statistics."""

    def __init__(self, count: int, needs: Needs) -> None:
        self.count, self.needs = count, needs
        self._taken = 0
        self._pixels = hashlib.sha256()
        self._keys: list[NDArray[np.uint64]] = []
        self._moments = {name: Stream() for name in sorted(needs.moments)}
        self._rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in sorted(needs.rows)}

    def add(self, shard: Shard) -> None:
        """Take the next shard. Raises ValueError for features that are not finite, where moments are taken."""
        self._pixels.update(shard.images_sha256.encode())
        self._keys.append(shard.keys)
        for name, moments in self._moments.items():
            moments.add(shard.streams[name])
        for name, rows in self._rows.items():
            rows.append(self._kept(shard.streams[name]))
        self._taken += len(shard.keys)

    def _kept(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        chosen = self.needs.chosen
        if chosen is None:
            return rows
        first, last = np.searchsorted(chosen, [self._taken, self._taken + len(rows)])
        return rows[chosen[first:last] - self._taken]

    def statistics(self) -> Statistics:
        """Of all shards, which are all there."""
        assert self._taken == self.count, f"{self._taken} of {self.count} items were taken"
        return Statistics(
            self.count,
            self._pixels.hexdigest(),
            self.count - len(np.unique(np.concatenate(self._keys))),
            {name: moments.moments() for name, moments in self._moments.items()},
            {name: np.concatenate(rows) for name, rows in self._rows.items()},
        )
