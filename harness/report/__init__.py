"""What is shown: tables and figures from the records, measured beside published.

    from harness import report

    records = report.load()                                     # the project's; own=True adds yours
    report.tables(["2", "7"], records)                          # shown as Markdown; .csv(), .latex(), .write(folder)
    report.figure("cost", records)                              # a matplotlib Figure
    report.tables(["2"], records, own=report.included(["mine.jsonl"], records))

Commands and notebooks share it. Importing this package imports neither torch, pandas nor matplotlib.
"""

from harness.core.formats import FORMATS, render
from harness.core.paper import COST_TABLES, QUALITY_TABLES
from harness.core.store import load
from harness.cost.published import agrees, published, published_costs
from harness.report.contents import TABLES, tables
from harness.report.cost import cost_table, costs, count_tables, table, table_notes
from harness.report.drawing import FIGURES, count_figures, drawn, figure
from harness.report.figures.contact_sheets import SAMPLES
from harness.report.figures.style import save
from harness.report.included import included
from harness.report.latency import latency_table
from harness.report.layout import Block, Bold, Table
from harness.report.memory import memory_table
from harness.report.quality import quality_table
from harness.report.recorded import Recorded

__all__ = [
    "COST_TABLES",
    "FIGURES",
    "FORMATS",
    "QUALITY_TABLES",
    "SAMPLES",
    "TABLES",
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
    "published",
    "published_costs",
    "quality_table",
    "render",
    "save",
    "table",
    "table_notes",
    "tables",
]
