"""A suite: the rows of tables and figures, each with the scores that fill it, and all of those in order of need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.core import paper
from harness.core.records import Record, ScoreRecord, of_kind
from harness.suites.run import Run
from harness.suites.score import Score, is_part
from harness.suites.tuning import Choice

SEQUENCE = "sequence-length"
"""A part that is not in the paper: how the difference of two families changes with the length of sequences."""
FAMILIES = paper.FAMILIES.part
"""Another: all families at equal parameters."""
PARTS = (*paper.PARTS, SEQUENCE, FAMILIES)
"""What a suite may have rows of."""
NEED = {"": 0, paper.JOINT: 0, "matched": 1, "equal-macs": 2}
"""What is trained first: what the paper compares, then equal parameters, then equal cost."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a part of the paper: the key of the printed row beside it, if any, and the scores that fill it.

    They are one a training seed, or one a draw of its samples.

    `part` is one of PARTS. Rows of one part with equal `contest` and different `family` are
    compared. `variant` says how a model was made comparable ("matched": equal parameters; "equal-macs"), and ends in
    "+IMG" for joint image-video training. `need` says how early its scores are wanted, where the variant does not.
    """

    part: str
    label: str
    family: str
    contest: str
    scores: tuple[Score, ...]
    published: Mapping[str, str] | None = None
    variant: str = ""
    need: int | None = None

    @property
    def seeds(self) -> dict[int, list[Score]]:
        """The scores by training seed."""
        grouped: dict[int, list[Score]] = {}
        for score in self.scores:
            grouped.setdefault(score.run.seed, []).append(score)
        return grouped


@dataclass(frozen=True, kw_only=True)
class Floor:
    """Real images or clips in the place of samples: the distance that no model is expected to beat.

    `resolution` is in pixels, that of the models.
    """

    samples: str
    ref: str
    metrics: tuple[str, ...]
    resolution: int

    def flags(self) -> list[str]:
        """What harness.eval is given, beside `--records`."""
        size = ["--ref-resolution", str(self.resolution)]
        return ["--samples", self.samples, "--ref", self.ref, *size, "--metric", *self.metrics, "--bootstrap", "0"]

    def answers(self, records: Iterable[Record]) -> list[ScoreRecord]:
        """The latest record of each quantity."""
        found = {
            record.quantity: record
            for record in of_kind(records, ScoreRecord)
            if is_part(self.samples, record.get("source") or "")
            and is_part(self.ref, record.get("reference") or self.ref)
            and record.get("metric") in self.metrics
            and record.get("resolution") == self.resolution
        }
        return list(found.values())

    def missing(self, records: Iterable[Record]) -> bool:
        """Whether a metric has no record."""
        return {record.get("metric") for record in self.answers(records)} != set(self.metrics)


@dataclass(frozen=True)
class Suite:
    """A comparison by name. `shown` are scores whose samples are put on a contact sheet.

    `choices` are the settings that are chosen first; rows of models whose choice is not made yet are not there yet.
    `planned` are the parts that it will have rows of then. `floor` is a part of the data that is scored as samples are:
    what real images or clips get.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    seeds: int
    shown: tuple[Score, ...] = ()
    choices: tuple[Choice, ...] = ()
    floor: Floor | None = None
    planned: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that it has rows of, in order, or will have once its settings are chosen."""
        return self.planned or tuple(dict.fromkeys(row.part for row in self.rows))

    @property
    def tables(self) -> list[str]:
        """The names of the tables of quality that it has rows of, or will have; that of all families only with rows."""
        having = {row.part for row in self.rows}
        return [
            name
            for name, table in paper.QUALITY.items()
            if table.part in having or (table.rows and table.part in self.parts)
        ]

    @property
    def candidates(self) -> set[Run]:
        """The runs that settings are chosen on."""
        return {score.run for choice in self.choices for score in choice.scores}

    def scores(self, parts: Iterable[str] | None = None) -> Iterator[Score]:
        """Each score once, in order of need; of one need one seed of every row comes before the next.

        What choices are made on comes before other scores of that need.
        """
        return iter(dict.fromkeys(score for _, score in self._by_need(parts)))

    def _by_need(self, parts: Iterable[str] | None) -> list[tuple[int, Score]]:
        wanted = [row for row in self.rows if parts is None or row.part in parts]
        tuned = [(choice.need, score) for choice in self.choices for score in choice.scores]
        by_seed = [
            (NEED.get(row.variant, len(NEED)) if row.need is None else row.need, score)
            for seed in range(self.seeds)
            for row in wanted
            for scores in list(row.seeds.values())[seed : seed + 1]
            for score in scores
        ]
        return sorted([*tuned, *by_seed], key=lambda pair: pair[0])

    def runs(self, parts: Iterable[str] | None = None) -> dict[Run, list[Score]]:
        """Every run with the scores that need it, in order of need. A run keeps the milestones of the whole suite."""
        grouped: dict[Run, list[Score]] = {}
        for score in self.scores(parts):
            grouped.setdefault(score.run, []).append(score)
        return grouped

    def stages(self, parts: Iterable[str] | None = None) -> list[tuple[Run, list[Score]]]:
        """`runs`, where settings are chosen without the scores that are wanted later: these are further stages."""
        if not self.choices:
            return list(self.runs(parts).items())
        grouped: dict[tuple[int, Run], list[Score]] = {}
        seen: set[Score] = set()
        for need, score in self._by_need(parts):
            if score not in seen:
                seen.add(score)
                grouped.setdefault((need, score.run), []).append(score)
        return [(run, scores) for (_, run), scores in grouped.items()]
