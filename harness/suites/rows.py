"""A suite: the rows of tables and figures, each with the scores that fill it, and all of those in order of need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.suites.run import Run
from harness.suites.score import Score

NEED = {"": 0, "+IMG": 0, "matched": 1, "equal-macs": 2}
"""What is trained first: what the paper compares, then equal parameters, then equal cost."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a part of the paper: the key of the printed row beside it, if any, and the scores that fill it, one a
    seed.

    `part` is one of harness.core.paper.PARTS. Rows of one part with equal `contest` and different `family` are
    compared. `variant` says how a model was made comparable ("matched": equal parameters; "equal-macs"), or "+IMG" for
    joint image-video training.
    """

    part: str
    label: str
    family: str
    contest: str
    scores: tuple[Score, ...]
    published: Mapping[str, str] | None = None
    variant: str = ""


@dataclass(frozen=True)
class Suite:
    """A comparison by name. `shown` are scores whose samples are put on a contact sheet."""

    name: str
    title: str
    rows: tuple[Row, ...]
    seeds: int
    shown: tuple[Score, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the paper that it has rows of, in order."""
        return tuple(dict.fromkeys(row.part for row in self.rows))

    def scores(self, parts: Iterable[str] | None = None) -> Iterator[Score]:
        """Each score once, in order of need; of a variant one seed of every row comes before the next."""
        wanted = [row for row in self.rows if parts is None or row.part in parts]
        by_seed = [
            (NEED.get(row.variant, len(NEED)), score)
            for seed in range(self.seeds)
            for row in wanted
            for score in row.scores[seed : seed + 1]
        ]
        return iter(dict.fromkeys(score for _, score in sorted(by_seed, key=lambda pair: pair[0])))

    def runs(self, parts: Iterable[str] | None = None) -> dict[Run, list[Score]]:
        """Every run with the scores that need it, in order of need. A run keeps the milestones of the whole suite."""
        grouped: dict[Run, list[Score]] = {}
        for score in self.scores(parts):
            grouped.setdefault(score.run, []).append(score)
        return grouped
