"""Measured cells: one from the records of each seed, in rows beside those that the paper prints."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from harness.core.records import Record, ScoreRecord, of_kind
from harness.core.store import load
from harness.cost.published import published
from harness.suites.costs import exact_cost
from models.families import FAMILIES

if TYPE_CHECKING:
    from harness.suites.run import Row
    from harness.suites.suite import Suite

COLUMNS = {  # of the tables -> (measured quantities that stand for it, the better direction)
    "fid": (("fid", "fd"), -1),
    "sfid": (("sfid",), -1),
    "is": (("inception_score",), 1),
    "precision": (("precision",), 1),
    "recall": (("recall",), 1),
    "fvd": (("fvd",), -1),
    "accuracy": (("accuracy",), 1),
    "moving": (("moving",), 1),
}
UNPRINTED = {3: ("accuracy", "moving")}
"""By table, what is measured beside the paper's columns where a suite's metrics give it."""
GIVES = {  # distance in a recipe's name -> the quantities that it gives
    "adm": ("fid", "sfid", "inception_score", "precision", "recall"),
    "is": ("inception_score",),
    "pr": ("precision", "recall"),
    "motion": ("moving",),
}
NAMES = {"fid": "FID", "fd": "FD", "sfid": "sFID", "is": "IS", "inception_score": "IS", "fvd": "FVD"}
MARKS = {"oom": "OOM", "unsupported": "unsupported", "error": "error", "estimated": "estimated"}
MISSING, NOT_MADE = "missing", "–"


@dataclass(frozen=True)
class Cell:
    """Values, one a seed. `error` is of one run's samples (bootstrap), where there is a single seed."""

    values: tuple[float, ...] = ()
    error: float | None = None
    mark: str = ""
    quantity: str = ""

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds (N - 1); of one seed its own error."""
        return statistics.stdev(self.values) if len(self.values) > 1 else self.error

    def text(self) -> str:
        if self.mean is None:
            return self.mark
        sign = "≈ " if self.mark == "estimated" else ""
        if len(self.values) > 1:
            return f"{sign}{with_error(self.mean, self.spread)} ({len(self.values)})"
        return f"{sign}{with_error(self.mean, self.spread or None)}†"  # samples that agree say nothing of the next


@dataclass(frozen=True)
class Line:
    """A row of a table: the paper's cells as strings, the measured ones, and whom they are compared with."""

    label: str
    printed: dict[str, str] = field(default_factory=dict)  # column -> as printed
    printed_label: str = ""
    family: str = ""
    variant: str = ""
    contest: str = ""
    cells: dict[str, Cell] = field(default_factory=dict)
    records: tuple[ScoreRecord, ...] = ()
    seeds: tuple[int, ...] = ()
    space: str = ""  # the features, where a recipe's name says them: digits of fd1k@digits
    params_m: float | None = None  # exact, in millions
    gmacs: float | None = None  # exact, of a forward pass


def measured_name(column: str, lines: Iterable[Line]) -> str:
    """What a column's measured values are called: FD where the paper has FID and the features are not Inception's."""
    quantities = (line.cells[column].quantity for line in lines if column in line.cells)
    quantity = next(filter(None, quantities), column)
    return NAMES.get(quantity, quantity)


def with_error(value: float, error: float | None) -> str:
    """A value to the second significant digit of its error, and the error; without one to four digits."""
    if not error or not math.isfinite(error):
        return f"{value:.4g}" if error is None else f"{value:.4g} ± {error:.1g}"
    rounded = float(f"{error:.1e}")
    decimals = min(6, max(0, 1 - math.floor(math.log10(rounded))))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def columns_of(table: int) -> list[str]:
    """The quality columns that the paper's table has."""
    return [name for name in COLUMNS if name in published(table)]


def measured_columns(table: int, suite: Suite) -> list[str]:
    """Those, and what a suite measures beside them."""
    metrics = [name for row in suite.rows if row.table == table for score in row.scores for name in score.metrics]
    given = offered(metrics)
    return columns_of(table) + [name for name in UNPRINTED.get(table, ()) if given & set(COLUMNS[name][0])]


def offered(metrics: Iterable[str]) -> set[str]:
    """The quantities that recipes of these names give."""
    found: set[str] = set()
    for name in metrics:
        match = re.match(r"[a-z]+", name)
        distance = match[0] if match else name
        found |= set(GIVES.get(distance, (distance,)))
    return found


def evaluations(records: Iterable[Record]) -> dict[tuple[str, int], list[ScoreRecord]]:
    """The records of harness.eval in order of time, by quantity and training step."""
    found: dict[tuple[str, int], list[ScoreRecord]] = {}
    for record in of_kind(records, ScoreRecord):
        if isinstance(record.get("metric"), str) and isinstance(record.get("step"), int):
            found.setdefault((record.quantity, record.workload["step"]), []).append(record)
    return found


def measure(
    row: Row, column: str, records: Mapping[tuple[str, int], list[ScoreRecord]]
) -> tuple[Cell, list[ScoreRecord]]:
    """A row's cell of one column, and the records it is made of: the latest answer of each seed's score."""
    wanted = COLUMNS[column][0]
    given = set().union(*(offered(score.metrics) for score in row.scores))
    quantity = next((name for name in wanted if name in given), "")
    if not quantity:
        return Cell(mark="unsupported"), []
    used, marks = [], []
    for score in row.scores:
        answers = [record for record in records.get((quantity, score.step), []) if score.asks_for(record)]
        numbers = [record for record in answers if record.value is not None]
        used += numbers[-1:]
        marks += [record.verdict for record in (numbers or answers)[-1:]]
    mark = next((MARKS[verdict] for verdict in marks if verdict in MARKS), "") if marks else MISSING
    return cell_of(used, quantity, mark), used


def cell_of(used: Sequence[ScoreRecord], quantity: str, mark: str = "") -> Cell:
    """A cell from one record a seed."""
    error = used[0].parts.get("standard_error") if len(used) == 1 else None
    return Cell(tuple(float(record.value) for record in used if record.value is not None), error, mark, quantity)


def lines_of(number: int, suite: Suite, records: Iterable[Record]) -> list[Line]:
    """The rows of a table: those of the suite, and the printed ones that the suite has no counterpart of."""
    paper = published(number)
    printed_columns, columns = columns_of(number), measured_columns(number, suite)
    known = evaluations(records)
    lines, matched = [], set()
    for row in suite.rows:
        if row.table != number:
            continue
        printed: dict[str, str] = {}
        label = ""
        if row.published is not None:
            where = (paper[list(row.published)] == pd.Series(row.published)).all(axis=1)
            if where.sum() != 1:
                raise ValueError(f"table {number}: {row.published} names {where.sum()} printed rows, not one")
            index = int(where.to_numpy().argmax())
            matched.add(index)
            printed, label = _printed(paper.iloc[index], printed_columns)
        found = {column: measure(row, column, known) for column in columns}
        used = tuple(record for _, several in found.values() for record in several)
        seeds = tuple({s for s in (_seed(record) for record in used) if s is not None})
        cells = {column: cell for column, (cell, _) in found.items()}
        cost = exact_cost(row.scores[0].run)
        lines.append(
            Line(
                label=row.label, printed=printed, printed_label=label, family=row.family, variant=row.variant,
                contest=row.contest, space=space_of(row), cells=cells, records=used, seeds=seeds,
                params_m=cost.params / 1e6, gmacs=cost.gmacs,
            )
        )  # fmt: skip
    alone = [_printed(paper.iloc[i], printed_columns) for i in range(len(paper)) if i not in matched]
    return (
        [Line(NOT_MADE, printed, label) for printed, label in alone if number == 3]
        + lines
        + [Line(NOT_MADE, printed, label) for printed, label in alone if number != 3]
    )


def space_of(row: Row) -> str:
    """The features that a row's metrics name behind @."""
    return next((name.partition("@")[2] for score in row.scores for name in score.metrics if "@" in name), "")


def _printed(row: pd.Series, columns: list[str]) -> tuple[dict[str, str], str]:
    """A printed row's cells, and its name: the columns that are no figures."""
    cells = {column: str(row[column]) for column in columns}
    label = str(row.iloc[0])
    label += f", {int(row['steps']) // 1000}K steps" if "steps" in row else ""
    label += f", guidance {row['cfg']}" if "cfg" in row else ""
    return cells, label


def _seed(record: ScoreRecord) -> int | None:
    training = record.get("training")
    return training.get("seed") if isinstance(training, dict) else None


def included_lines(
    records: Iterable[ScoreRecord], number: int, columns: Sequence[str], beside: Sequence[Line]
) -> list[Line]:
    """Rows of a user's own records, `beside` a suite's: one a checkpoint, step and guidance; the latest counts."""
    marks = {c: {line.cells[c].mark for line in beside if line.cells} for c in columns}
    absent = {c: Cell(mark="unsupported" if marks[c] == {"unsupported"} else MISSING) for c in columns}
    lines: dict[tuple[str, str], dict[str, ScoreRecord]] = {}
    for record in records:
        for column in columns:
            if record.quantity in COLUMNS[column][0] and record.get("metric") and record.value is not None:
                sampling, step = record.get("sampling"), record.get("step")
                how = f", guidance {sampling['cfg_scale']:g}" if number == 7 and sampling else ""
                how += f" at {step:,} steps" if number == 2 and step is not None else ""
                name = str(record.get("source") or record.get("model"))
                lines.setdefault((name, how), {})[column] = record
    found = []
    for (name, how), cells in lines.items():
        model = next((r.get("model") for r in cells.values() if r.get("model")), None)
        measured = absent | {column: cell_of([record], record.quantity) for column, record in cells.items()}
        label = f"{name}{f' ({model})' if model else ''}{how}, yours"
        found.append(Line(label, cells=measured, records=tuple(cells.values())))
    return found


def included(names: Iterable[str], records: Iterable[Record]) -> list[ScoreRecord]:
    """A user's own records: of files (.jsonl), or those among `records` of a model or source of that name.

    Raises ValueError for a file that is not there and for a name that no evaluation has.
    """
    known = [record for record in of_kind(records, ScoreRecord) if record.get("metric")]
    found: list[ScoreRecord] = []
    for name in names:
        if name.endswith(".jsonl"):
            if not Path(name).is_file():
                raise ValueError(f"no records at {name}")
            found += of_kind(load(Path(name)), ScoreRecord)
            continue
        chosen = [record for record in known if name in (record.get("model"), record.get("source"))]
        if not chosen:
            raise ValueError(f"no evaluation of {name!r} among the records: give a .jsonl, a model or a source")
        found += chosen
    return found


def counterpart_of(family: str) -> str | None:
    """The name of the family that one is compared with; None of a printed row, which has no family."""
    return next((known.counterpart for known in FAMILIES if known.name == family), None)


def rival(line: Line, lines: Sequence[Line]) -> Line | None:
    """The row of its family's counterpart that a row is compared with: of its contest, of its variant if there is one.

    A DiM row, matched or not, is compared with the DiT row of its contest.
    """
    others = [one for one in lines if one.contest == line.contest and one.family == counterpart_of(line.family)]
    exact = [one for one in others if one.variant == line.variant]
    plain = [one for one in others if not one.variant]
    return next(iter(exact or plain), None)
