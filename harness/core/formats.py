"""Rows as text: for a terminal, Markdown, CSV or JSON. Imports no pandas; a data frame is rows too."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from harness.core.grid import grid

if TYPE_CHECKING:
    import pandas as pd

Rows: TypeAlias = "Sequence[Mapping[str, Any]] | pd.DataFrame"

FORMATS = ("table", "markdown", "csv", "json")


def render(rows: Rows, style: str) -> str:
    """Rows as text: "table" and "markdown" round to two decimals for reading, "csv" and "json" keep every digit.

    A table is as wide as the terminal: columns that do not fit follow below, with those that say what a row is of.

    Columns come in the order in which they first occur; a row that lacks one is empty there, as for None and NaN.
    Raises ValueError for another style.
    """
    columns, lines = _columns_and_lines(rows)
    if style == "csv":
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([columns, *lines])
        return file.getvalue().rstrip("\n")
    if style == "json":
        objects = [dict(zip(columns, map(_finite, line), strict=True)) for line in lines]
        return json.dumps(objects, indent=1, ensure_ascii=False, default=_plain)
    cells = [[_cell(value) for value in line] for line in lines]
    if style == "markdown":
        return "\n".join("| " + " | ".join(line) + " |" for line in [columns, ["---"] * len(columns), *cells])
    if style == "table":
        return grid(columns, cells, _keys(lines))
    raise ValueError(f"unknown format {style!r}; choose from {', '.join(FORMATS)}")


def _keys(lines: Sequence[Sequence[Any]]) -> int:
    """How many columns say what a row is of: those before the first that lacks a cell, or has one with a fraction."""
    measured = [
        i
        for i in range(len(lines[0]) if lines else 1)
        if any(line[i] in (None, "") or isinstance(line[i], float) for line in lines)
    ]
    return max(1, min(measured, default=1))


def _columns_and_lines(rows: Rows) -> tuple[list[str], list[list[Any]]]:
    """The names of columns, and their values row by row; None where there is none."""
    if isinstance(rows, Sequence):
        columns = list(dict.fromkeys(name for row in rows for name in row))
    else:
        columns, rows = list(rows.columns), rows.to_dict("records")
    return columns, [[_known(row.get(name)) for name in columns] for row in rows]


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    return None if isinstance(value, float) and math.isinf(value) else value


def _plain(value: Any) -> Any:
    """What JSON has no type for: a dataclass by its fields, a number of numpy as Python's."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value.item()


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {_cell(amount)}" for name, amount in value.items())
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.2g}"
    return str(value)
