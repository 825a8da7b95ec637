"""Which records tables and figures are made of: the project's, others by name, and a user's own on request."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.core import paths, store
from harness.core.files import sha256
from harness.core.options import option
from harness.core.records import Record, ScoreRecord
from harness.report.own_scores import included


@dataclass(frozen=True)
class RecordsFile:
    """A file of records: its name, the digest of its bytes, and its records by the number of their line."""

    name: str
    sha256: str
    lines: dict[int, Record]


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """Places of records: `records` (files or folders; default: the project's), and with `own` those of home().

    The same fields are the flags of the commands.
    """

    records: tuple[Path, ...] = option((), "read these instead of the project's: .jsonl files, or folders of them",
                                       metavar="PLACE")  # fmt: skip
    own: bool = option(False, "read yours, too: what commands have recorded in output/measurements")

    def load(self) -> list[Record]:
        """All records of the places, in order. Raises ValueError for a place that is not there."""
        files = self._files()
        return store.load(*files) if files else []

    def files(self) -> list[RecordsFile]:
        """The files of those places, in order, each with its records. Raises ValueError as `load` does."""
        return [RecordsFile(_name(path), sha256(path), store.numbered(path)) for path in self._files()]

    def included(self, names: Iterable[str]) -> list[ScoreRecord]:
        """A user's scores by file, model or source: from what they have recorded, else from the places.

        Raises ValueError for a name that no evaluation has.
        """
        names, mine = list(names), paths.measurements()
        return included(names, self.load(), store.load(mine) if mine.exists() else []) if names else []

    def _files(self) -> list[Path]:
        """The places, folders as the files of records that they hold."""
        places = [*(self.records or (paths.PROJECT / "measurements",)), *((paths.measurements(),) if self.own else ())]
        for place in places:
            if not place.exists():
                raise ValueError(f"no records at {place}")
        files = (sorted(place.glob("*.jsonl")) if place.is_dir() else [place] for place in places)
        return _once(itertools.chain.from_iterable(files))


def _name(path: Path) -> str:
    """A file of the project's from results/ on, wherever the package lies; another as it was given."""
    return str(path.relative_to(paths.PROJECT.parent) if path.is_relative_to(paths.PROJECT) else path)


def _once(places: Iterable[Path]) -> list[Path]:
    """Places without those that are named twice, under whatever name."""
    return list({place.resolve(): place for place in places}.values())
