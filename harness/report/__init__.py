"""What is shown: tables and figures from the records, measured beside published. Commands and notebooks share it.

The names below are imported from their modules when they are first used: most of them need pandas, and what a command
prints first, its help or a complaint, must not wait for that.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.core.formats import FORMATS, render
    from harness.cost.published import PUBLISHED, agrees, published, published_costs
    from harness.report.cells import included
    from harness.report.cost import COST_TABLES, Row, cost_table, costs, table, table_notes
    from harness.report.figures import FIGURES, drawn, figure
    from harness.report.figures.cost import COST_MODELS
    from harness.report.figures.style import save
    from harness.report.latency import latency_table
    from harness.report.layout import Block, Bold, Table
    from harness.report.memory import memory_table
    from harness.report.quality import QUALITY_TABLES, quality_table

__all__ = [
    "COST_MODELS",
    "COST_TABLES",
    "FIGURES",
    "FORMATS",
    "PUBLISHED",
    "QUALITY_TABLES",
    "Block",
    "Bold",
    "Row",
    "Table",
    "agrees",
    "cost_table",
    "costs",
    "drawn",
    "figure",
    "included",
    "latency_table",
    "memory_table",
    "published",
    "published_costs",
    "quality_table",
    "render",
    "save",
    "table",
    "table_notes",
]

_NAMES_OF = {
    "harness.core.formats": "FORMATS render",
    "harness.cost.published": "PUBLISHED agrees published published_costs",
    "harness.report.cells": "included",
    "harness.report.cost": "COST_TABLES Row cost_table costs table table_notes",
    "harness.report.figures": "FIGURES drawn figure",
    "harness.report.figures.cost": "COST_MODELS",
    "harness.report.figures.style": "save",
    "harness.report.latency": "latency_table",
    "harness.report.layout": "Block Bold Table",
    "harness.report.memory": "memory_table",
    "harness.report.quality": "QUALITY_TABLES quality_table",
}


def __getattr__(name: str) -> Any:
    for module, names in _NAMES_OF.items():
        if name in names.split():
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
