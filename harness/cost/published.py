"""The paper's tables as it prints them: the CSV files of results/published, every cell a string."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.paths import PROJECT

if TYPE_CHECKING:
    import pandas as pd

PUBLISHED = {
    2: "table2_training_steps.csv",
    3: "table3_ucf101_fvd.csv",
    4: "table4_gflops_by_resolution.csv",
    5: "table5_patch_size.csv",
    6: "table6_model_size.csv",
    7: "table7_guidance.csv",
}
EFFICIENCY = (4, 5, 6)
"""Tables with a Gflops column."""


WHERE_NONE_IS_STATED = "256"
"""The resolution of Tables 5 and 6."""


def published(table: int) -> pd.DataFrame:
    """A table of the paper as printed, every cell a string; tables 5 and 6 are of 256x256 and gain that column.

    Raises ValueError for a table that the paper's data does not have.
    """
    import pandas as pd

    frame = pd.read_csv(_file(table), dtype=str)
    if table in EFFICIENCY and "resolution" not in frame:
        frame.insert(1, "resolution", WHERE_NONE_IS_STATED)
    return frame


def published_costs(*tables: int) -> dict[tuple[str, int], dict[str, str]]:
    """The efficiency cells as printed, by (model, resolution): `published_gflops`, `published_params_m` where given."""
    cells: dict[tuple[str, int], dict[str, str]] = {}
    for table in tables or EFFICIENCY:
        with _file(table).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                cell = cells.setdefault((row["model"], int(row.get("resolution", WHERE_NONE_IS_STATED))), {})
                cell["published_gflops"] = row["gflops"]
                if "params_m" in row:
                    cell["published_params_m"] = row["params_m"]
    return cells


def _file(table: int) -> Path:
    if table not in PUBLISHED:
        raise ValueError(f"unknown table {table}; choose from {', '.join(map(str, PUBLISHED))}")
    return PROJECT / "published" / PUBLISHED[table]


def agrees(value: float, printed: str) -> bool | None:
    """Whether a value rounds to the printed figure at its precision; None where the paper prints no number."""
    try:
        float(printed)
    except ValueError:
        return None
    return f"{value:.{len(printed.partition('.')[2])}f}" == printed
