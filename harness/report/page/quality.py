"""How good: every score of the suites, one a draw of samples, with what it cost and the command that makes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness import suites
from harness.core import paper
from harness.core.records import Record, ScoreRecord
from harness.report.cells import COLUMNS, NAMES, Evaluations, cell_of_row, evaluations, measured_columns
from harness.report.page import kinds
from harness.report.page.packing import packed
from harness.report.scores import protocol
from harness.suites import Row, Run, Suite
from harness.suites.budget import exact_cost
from harness.suites.steps import step_seconds

POINT = (
    "metric", "value", "model", "kind", "size", "patch", "px", "step", "guidance", "seed", "params", "macs", "seconds",
    "run", "protocol", "record",
)  # fmt: skip
"""What is shown of a score; its command is with its record."""
ONE_RATE = (
    "All were trained at one learning rate, {}. It may suit one family and not another: read no order of "
    "the families from these scores."
)


def quality(records: Iterable[Record], places: Mapping[int, int]) -> dict[str, Any]:
    """The suites that have scores, those with a caution last, with every score once.

    `places` are those of the records among all. `seconds` are those of the training up to the score: steps times the
    time of one where all models of a suite are timed side by side, else the CPU seconds that a record may state.
    """
    records = list(records)
    known = evaluations(records)
    found = []
    for name in suites.SUITES:
        one = suites.suite(name, records)
        found.append(_suite(one, known, places, step_seconds((row.scores[0].run for row in one.rows), records)))
    shown = sorted(filter(lambda one: one["points"], found), key=lambda one: bool(one["caution"]))
    return {"suites": [{**one, "points": packed(one["points"], POINT)} for one in shown]}


def _suite(
    suite: Suite, known: Evaluations, places: Mapping[int, int], seconds: Mapping[Run, float]
) -> dict[str, Any]:
    points: dict[int, dict[str, Any]] = {}
    metrics: dict[str, dict[str, Any]] = {}
    for row in suite.rows:
        for column in _columns(suite, row):
            cell, used = cell_of_row(row, column, known)
            if used:
                metrics.setdefault(column, {"name": column, "words": NAMES.get(cell.quantity, cell.quantity),
                                            "better": COLUMNS[column][1]})  # fmt: skip
            for record in used:
                points.setdefault(id(record), _point(row, column, record, places, seconds))
    rates = {str(run.config.learning_rate): run for run in suite.runs()}
    caution = ONE_RATE.format(*rates) if len(rates) == 1 else ""
    return {"name": suite.name, "title": suite.title, "caution": caution, "metrics": list(metrics.values()),
            "points": list(points.values())}  # fmt: skip


def _columns(suite: Suite, row: Row) -> list[str]:
    """The metrics of a row: those of its table, or where it is of no table, of any that the suite has."""
    tables = [table for table in paper.TABLES.values() if table.quality and table.part in suite.parts]
    own = [table for table in tables if table.part == row.part] or tables
    return list(dict.fromkeys(column for table in own for column in measured_columns(table, suite)))


def _point(
    row: Row, column: str, record: ScoreRecord, places: Mapping[int, int], seconds: Mapping[Run, float]
) -> dict[str, Any]:
    run, cost = row.scores[0].run, exact_cost(row.scores[0].run)
    training, sampling = record.workload["training"], record.workload["sampling"]
    return {
        "metric": column,
        "value": record.value,
        "model": record.get("model"),
        "kind": kinds.name(row.family, row.variant),
        "size": run.spec.size,
        "patch": run.spec.patch,
        "px": run.config.resolution,
        "step": record.get("step"),
        "guidance": sampling["cfg_scale"],
        "seed": training["seed"],
        "params": cost.params,
        "macs": cost.macs,
        "run": str(record.get("source")),
        "seconds": record.workload["step"] * seconds[run] if seconds else record.get("training_cpu_seconds"),
        "protocol": f"{record.get('metric')}: {_protocol(record)}",
        "record": places[id(record)],
    }


def _protocol(record: ScoreRecord) -> str:
    """What scores have in common: all but the digest of their own samples."""
    return ", ".join(part for part in protocol(record).split(", ") if not part.startswith("samples "))
