"""What is shown: tables and figures from the records, measured beside published. Doors and notebooks share it."""

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
