"""The tables by name: of quality, of cost, of memory and latency, of the field's published costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from harness.core import paper, store
from harness.core.paper import TableSpec
from harness.core.records import Record, ScoreRecord
from harness.report.cost import cost_table
from harness.report.floors import floors_table
from harness.report.latency import latency_table
from harness.report.layout import Table
from harness.report.memory import memory_table
from harness.report.observatory import published_table
from harness.report.quality import table_of
from harness.report.tuning import tuning_table
from harness.suites import Suite
from harness.suites import suite as suite_by_name

HARDWARE: dict[str, Callable[[Sequence[Record]], Table]] = {
    "memory": memory_table,
    "latency": latency_table,
    "floors": floors_table,
}
FIELD: dict[str, Callable[[Sequence[Record]], Table]] = {"published": published_table}
TUNING = "tuning"
TABLES = (*map(str, paper.TABLES), paper.FAMILIES.part, *HARDWARE, *FIELD, TUNING)
"""The paper's by number, each of which has quality, cost, or both; that of all families; those of hardware; that of the
field's costs; and what a suite has chosen."""
USUAL = tuple(name for name in TABLES if name not in (paper.FAMILIES.part, TUNING))
"""Those of the suites that stand in the tables where none is named."""


def tables(
    names: Iterable[str] = USUAL,
    records: Sequence[Record] | None = None,
    suite: Suite | None = None,
    own: Sequence[ScoreRecord] = (),
) -> list[Table]:
    """Tables from records (default: the project's): of cost, then of quality, of hardware, and of the field.

    Rows of quality are those of `suite` (default: each table's own), and with `own` a user's scores. Raises ValueError
    for an unknown name, for a table that the suite has no rows of, and where the records lack a cell of a cost.
    """
    records = store.load() if records is None else records
    chosen = list(names)
    for name in chosen:
        if name not in TABLES:
            raise ValueError(f"unknown table {name!r}; choose from {', '.join(TABLES)}")
    made = [cost_table(number, records) for number in cost_numbers(chosen)]
    made += [
        table_of(table, suite or suite_by_name(table.suite, records), records, own)
        for table in quality_tables(chosen, suite)
    ]
    if TUNING in chosen:
        made.append(tuning_table(suite or suite_by_name(paper.FAMILIES.suite, records), records))
    made += [make(records) for name, make in HARDWARE.items() if name in chosen]
    return made + [make(records) for name, make in FIELD.items() if name in chosen]


def quality_tables(names: Iterable[str], suite: Suite | None = None) -> list[TableSpec]:
    """The tables of quality among some names. Raises ValueError for one that the suite has no rows of."""
    chosen = {name: table for name, table in paper.QUALITY.items() if name in names}
    for name, table in chosen.items():
        if suite and table.part not in suite.parts:
            raise ValueError(f"suite {suite.name} has no rows of table {name}")
    return list(chosen.values())


def cost_numbers(names: Iterable[str]) -> list[int]:
    """The tables of cost among some names."""
    return [number for number in paper.COST_TABLES if str(number) in names]


def tables_of(suite: Suite | None) -> list[str]:
    """The names of the tables that can be made where a suite is given: all, but those that it has no rows of."""
    lacking = [name for name in paper.QUALITY if suite and name not in suite.tables]
    names = TABLES if suite and suite.choices else USUAL
    return [name for name in names if name not in lacking]
