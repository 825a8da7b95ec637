"""The paper's tables as it prints them: the CSV files of results/published, every cell a string."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.core.paper import COST_TABLES, printed

if TYPE_CHECKING:
    import pandas as pd

WHERE_NONE_IS_STATED = "256"
"""The resolution of Tables 5 and 6."""


def published(table: int) -> pd.DataFrame:
    """A table of the paper as printed, every cell a string. Raises ValueError for an unknown table."""
    import pandas as pd

    return pd.DataFrame(printed(table))


def published_costs(*tables: int) -> dict[tuple[str, int], dict[str, str]]:
    """The efficiency cells as printed, by (model, resolution): `published_gflops`, `published_params_m` where given."""
    cells: dict[tuple[str, int], dict[str, str]] = {}
    for table in tables or COST_TABLES:
        for row in printed(table):
            cell = cells.setdefault((row["model"], int(row.get("resolution", WHERE_NONE_IS_STATED))), {})
            cell["published_gflops"] = row["gflops"]
            if "params_m" in row:
                cell["published_params_m"] = row["params_m"]
    return cells


def agrees(value: float, printed: str) -> bool | None:
    """Whether a value rounds to the printed figure at its precision; None where the paper prints no number."""
    try:
        float(printed)
    except ValueError:
        return None
    return f"{value:.{len(printed.partition('.')[2])}f}" == printed
