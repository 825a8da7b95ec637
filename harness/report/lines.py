"""Rows of a table: the paper's cells, the measured ones beside them, and whom a row is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.core.paper import JOINT, TableSpec
from harness.core.records import Record, ScoreRecord
from harness.report.cells import NAMES, NOT_MADE, Cell, cell_of_row, evaluations, measured_columns
from harness.suites.budget import exact_cost
from harness.suites.steps import step_seconds
from models.families import FAMILIES

if TYPE_CHECKING:
    from harness.suites.rows import Row, Suite


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
    spaces: tuple[str, ...] = ()  # the features, where recipes' names say them: digits of fd1k@digits
    params_m: float | None = None  # exact, in millions
    gmacs: float | None = None  # exact, of a forward pass
    step_seconds: float | None = None  # of training, if the lines of a table are timed side by side


def measured_name(column: str, lines: Iterable[Line]) -> str:
    """What a column's measured values are called: FD where the paper has FID and the features are not Inception's."""
    quantities = (line.cells[column].quantity for line in lines if column in line.cells)
    quantity = next(filter(None, quantities), column)
    return NAMES.get(quantity, quantity)


def lines_of(table: TableSpec, suite: Suite, records: Iterable[Record]) -> list[Line]:
    """The rows of a table: those of the suite, and the printed ones that the suite has no counterpart of."""
    paper = table.rows
    records = list(records)
    columns, known = measured_columns(table, suite), evaluations(records)
    seconds = step_seconds((row.scores[0].run for row in suite.rows if row.part == table.part), records)
    lines, matched = [], set()
    for row in suite.rows:
        if row.part != table.part:
            continue
        cells_printed: dict[str, str] = {}
        label = ""
        if row.published is not None:
            where = [i for i, line in enumerate(paper) if row.published.items() <= line.items()]
            if len(where) != 1:
                raise ValueError(f"{table.part}: {row.published} names {len(where)} printed rows, not one")
            matched.add(where[0])
            cells_printed, label = _printed(table, paper[where[0]])
        found = {column: cell_of_row(row, column, known) for column in columns}
        used = tuple(record for _, several in found.values() for record in several)
        cost = exact_cost(row.scores[0].run)
        lines.append(
            Line(
                label=row.label, printed=cells_printed, printed_label=label, family=row.family, variant=row.variant,
                contest=row.contest, spaces=spaces_of(row), cells={column: cell for column, (cell, _) in found.items()},
                records=used, seeds=_seeds(used), params_m=cost.params / 1e6, gmacs=cost.gmacs,
                step_seconds=seconds.get(row.scores[0].run),
            )
        )  # fmt: skip
    others = [Line(NOT_MADE, *_printed(table, line)) for i, line in enumerate(paper) if i not in matched]
    return others + lines if table.others_first else lines + others


def spaces_of(row: Row) -> tuple[str, ...]:
    """The features that a row's metrics name behind @."""
    named = (name.partition("@")[2] for score in row.scores for name in score.metrics if "@" in name)
    return tuple(dict.fromkeys(named))


def _printed(table: TableSpec, row: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """A printed row's cells, and its name: the model, and what the table varies."""
    label = row[table.keys[0]]
    label += f", {int(row['steps']) // 1000}K steps" if "step" in table.varies else ""
    label += f", guidance {row['cfg']}" if "sampling.cfg_scale" in table.varies else ""
    return {column: row[column] for column in table.quality}, label


def _seeds(records: Iterable[ScoreRecord]) -> tuple[int, ...]:
    """The training seeds of some records."""
    trainings = [training for record in records if isinstance(training := record.get("training"), dict)]
    return tuple({training["seed"] for training in trainings if training.get("seed") is not None})


def counterpart_of(family: str) -> str | None:
    """The name of the family that one is compared with; None of a printed row, which has no family."""
    return next((known.counterpart for known in FAMILIES if known.name == family), None)


def at_depth(line: Line) -> bool:
    """Whether a row is of the paper's depth: of no variant but joint images."""
    return line.variant in ("", JOINT)


def rival(line: Line, lines: Sequence[Line]) -> Line | None:
    """Whom a row is compared with: its family's counterpart in its contest, of its variant or else at full depth."""
    others = [one for one in lines if one.contest == line.contest and one.family == counterpart_of(line.family)]
    exact = [one for one in others if one.variant == line.variant]
    plain = [one for one in others if at_depth(one)]
    return next(iter(exact or plain), None)
