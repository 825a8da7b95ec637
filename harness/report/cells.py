"""Measured cells: one from the records of each seed, as a value with its spread or as the mark of what is absent."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.core.paper import TableSpec
from harness.core.records import Record, ScoreRecord, of_kind

if TYPE_CHECKING:
    from harness.suites.rows import Row, Suite

COLUMNS = {  # of the tables -> (measured quantities that stand for it, the better direction)
    "fid": (("fid", "fd"), -1),
    "sfid": (("sfid", "sfd"), -1),
    "is": (("inception_score",), 1),
    "precision": (("precision",), 1),
    "recall": (("recall",), 1),
    "fvd": (("fvd",), -1),
    "cdfvd": (("cdfvd",), -1),
    "accuracy": (("accuracy",), 1),
    "moving": (("moving",), 1),
    "continuing": (("continuing",), 1),
    "speed_distance": (("speed_distance",), -1),
    "fd_dinov2": (("fd_dinov2",), -1),
    "cmmd": (("cmmd",), -1),
    "mind": (("mind",), -1),
    "fdr6": (("fdr6",), -1),
}
GIVES = {  # distance in a recipe's name -> the quantities that it gives
    "adm": ("fid", "sfid", "inception_score", "precision", "recall"),
    "is": ("inception_score",),
    "pr": ("precision", "recall"),
    "motion": ("moving",),
    "trajectory": ("continuing", "speed_distance"),
    "panel": ("fdr6", "mind"),
}
NAMES = {
    "fid": "FID", "fd": "FD", "sfid": "sFID", "sfd": "sFD", "is": "IS", "inception_score": "IS", "fvd": "FVD",
    "cdfvd": "CD-FVD", "fd_dinov2": "FD-DINOv2", "cmmd": "CMMD", "mind": "MIND", "fdr6": "FDr6",
    "speed_distance": "speed distance",
}  # fmt: skip
MARKS = {"oom": "OOM", "unsupported": "unsupported", "error": "error", "estimated": "estimated"}
MISSING, NOT_MADE = "missing", "–"

Evaluations = Mapping[tuple[str, int], Sequence[ScoreRecord]]
"""The records of harness.eval by quantity and training step."""


@dataclass(frozen=True)
class Cell:
    """Values, one a training seed: the mean of its draws, which are in `draws`.

    `error` is of one run's samples (bootstrap), where there is a single seed.
    """

    values: tuple[float, ...] = ()
    error: float | None = None
    mark: str = ""
    quantity: str = ""
    draws: tuple[tuple[float, ...], ...] = ()

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds (N - 1); of one seed its own error."""
        return statistics.stdev(self.values) if len(self.values) > 1 else self.error

    def text(self, counted: bool = True) -> str:
        """The mean with its spread, and where it is `counted` over how many seeds; or the mark."""
        if self.mean is None:
            return self.mark
        sign = "≈ " if self.mark == "estimated" else ""
        if len(self.values) > 1:
            return f"{sign}{with_error(self.mean, self.spread)}" + f" ({len(self.values)})" * counted
        return f"{sign}{with_error(self.mean, self.spread or None)}†"  # samples that agree say nothing of the next


def with_error(value: float, error: float | None) -> str:
    """A value to the second significant digit of its error, and the error; without one to four digits."""
    if not error or not math.isfinite(error):
        return f"{value:.4g}" if error is None else f"{value:.4g} ± {error:.1g}"
    rounded = float(f"{error:.1e}")
    decimals = min(6, max(0, 1 - math.floor(math.log10(rounded))))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def two_digits(value: float) -> str:
    """A value to its second significant digit, without an exponent: 780, 8.2."""
    if not value or not math.isfinite(value):
        return f"{value:g}"
    rounded = float(f"{value:.1e}")
    return f"{rounded:.{max(0, 1 - math.floor(math.log10(abs(rounded))))}f}"


def measured_columns(table: TableSpec, suite: Suite, own: Iterable[ScoreRecord] = ()) -> list[str]:
    """The quality columns that the paper's table has, and what a suite, or a user's `own` records, have beside them."""
    metrics = [name for row in suite.rows if row.part == table.part for score in row.scores for name in score.metrics]
    given = offered(metrics) | {record.quantity for record in own if record.get("metric")}
    return [*table.quality, *(name for name in table.beside if given & set(COLUMNS[name][0]))]


def offered(metrics: Iterable[str]) -> set[str]:
    """The quantities that recipes of these names give."""
    from harness.metrics.features import space

    found: set[str] = set()
    for name in metrics:
        match = re.match(r"[a-z]+", name)
        distance = match[0] if match else name
        features = name.partition("@")[2]
        label = space(features).label if features else ""
        found |= set(GIVES.get(distance, ("_".join(filter(None, (distance, label))),)))
    return found


def evaluations(records: Iterable[Record]) -> Evaluations:
    """The records of harness.eval in order of time, by quantity and training step."""
    found: dict[tuple[str, int], list[ScoreRecord]] = {}
    for record in sorted(of_kind(records, ScoreRecord), key=lambda one: one.provenance.time):
        if isinstance(record.get("metric"), str) and isinstance(record.get("step"), int):
            found.setdefault((record.quantity, record.workload["step"]), []).append(record)
    return found


def cell_of_row(row: Row, column: str, known: Evaluations) -> tuple[Cell, list[ScoreRecord]]:
    """A row's cell of one column, and the records it is made of: the latest answer of each score."""
    given: set[str] = set().union(*(offered(score.metrics) for score in row.scores))
    quantity = next((name for name in COLUMNS[column][0] if name in given), "")
    if not quantity:
        return Cell(mark="unsupported"), []
    used, marks = [], []
    for score in row.scores:
        answers = [record for record in known.get((quantity, score.step), []) if score.matches(record)]
        numbers = [record for record in answers if record.value is not None]
        used += numbers[-1:]
        marks += [record.verdict for record in (numbers or answers)[-1:]]
    mark = next((MARKS[verdict] for verdict in marks if verdict in MARKS), "") if marks else MISSING
    return cell_of(used, quantity, mark), used


def cell_of(used: Sequence[ScoreRecord], quantity: str, mark: str = "") -> Cell:
    """A cell from one record a seed, or several of a training seed that differ in the draw of samples."""
    error = used[0].parts.get("standard_error") if len(used) == 1 else None
    grouped: dict[object, list[float]] = {}
    for place, record in enumerate(used):
        if record.value is not None:
            seed = (record.get("training") or {}).get("seed", f"record {place}")
            grouped.setdefault(seed, []).append(float(record.value))
    draws = tuple(map(tuple, grouped.values()))
    return Cell(tuple(statistics.fmean(values) for values in draws), error, mark, quantity, draws)
