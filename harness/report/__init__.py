"""What is shown: tables and figures from the records, measured beside published.

    from harness import report

    records = report.load()                                     # the project's; with yours: Recorded(own=True).load()
    report.tables(["2", "7"], records)                          # shown as Markdown; .csv(), .latex(), .write(folder)
    report.figure("cost", records)                              # a matplotlib Figure
    report.tables(["2"], records, own=report.included(["mine.jsonl"], records))

Commands and notebooks share it. Importing this package imports neither torch, pandas nor matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.core.formats import FORMATS, render
    from harness.core.grid import Bold
    from harness.core.paper import COST_TABLES, QUALITY_TABLES
    from harness.core.store import load
    from harness.cost.published import agrees, published, published_costs
    from harness.report.contents import TABLES, TUNING, tables
    from harness.report.cost import cost_table, costs, count_tables, table, table_notes
    from harness.report.drawing import FIGURES, WITH_OWN, count_figures, drawn, figure, own_rows
    from harness.report.figures.contact_sheets import SAMPLES
    from harness.report.figures.style import save
    from harness.report.latency import latency_table
    from harness.report.layout import Block, Table
    from harness.report.memory import memory_table
    from harness.report.own_scores import included
    from harness.report.quality import quality_table
    from harness.report.recorded import Recorded

__all__ = [
    "COST_TABLES",
    "FIGURES",
    "FORMATS",
    "QUALITY_TABLES",
    "SAMPLES",
    "TABLES",
    "TUNING",
    "WITH_OWN",
    "Block",
    "Bold",
    "Recorded",
    "Table",
    "agrees",
    "cost_table",
    "costs",
    "count_figures",
    "count_tables",
    "drawn",
    "figure",
    "included",
    "latency_table",
    "load",
    "memory_table",
    "own_rows",
    "published",
    "published_costs",
    "quality_table",
    "render",
    "save",
    "table",
    "table_notes",
    "tables",
]

_HOMES = {
    "harness.core.formats": "FORMATS render",
    "harness.core.grid": "Bold",
    "harness.core.paper": "COST_TABLES QUALITY_TABLES",
    "harness.core.store": "load",
    "harness.cost.published": "agrees published published_costs",
    "harness.report.contents": "TABLES TUNING tables",
    "harness.report.cost": "cost_table costs count_tables table table_notes",
    "harness.report.drawing": "FIGURES WITH_OWN count_figures drawn figure own_rows",
    "harness.report.figures.contact_sheets": "SAMPLES",
    "harness.report.figures.style": "save",
    "harness.report.own_scores": "included",
    "harness.report.latency": "latency_table",
    "harness.report.layout": "Block Table",
    "harness.report.memory": "memory_table",
    "harness.report.quality": "quality_table",
    "harness.report.recorded": "Recorded",
}
"""Where each name lies: a module is imported when one of its names is first used."""


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names.split():
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
