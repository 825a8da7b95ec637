"""Which records tables and figures are made of: the project's, others by name, and a user's own on request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.core import paths, store
from harness.core.options import option
from harness.core.records import Record, ScoreRecord
from harness.report.own_scores import included


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
        places = [*(self.records or (paths.PROJECT / "measurements",)), *((paths.measurements(),) if self.own else ())]
        for place in places:
            if not place.exists():
                raise ValueError(f"no records at {place}")
        return store.load(*_once(places))

    def included(self, names: Iterable[str]) -> list[ScoreRecord]:
        """A user's scores by file, model or source: from what they have recorded, else from the places.

        Raises ValueError for a name that no evaluation has.
        """
        names, mine = list(names), paths.measurements()
        return included(names, self.load(), store.load(mine) if mine.exists() else []) if names else []


def _once(places: Iterable[Path]) -> list[Path]:
    """Places without those that are named twice, under whatever name."""
    return list({place.resolve(): place for place in places}.values())
