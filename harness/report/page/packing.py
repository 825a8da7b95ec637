"""Rows as the page holds them: columns are named once, and texts that recur are given by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

DIGITS = 7
"""Of numbers that are not whole: more than the page ever shows."""


def packed(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    """Those columns of some rows; a column that a row lacks is None there. `unpacked` of the scripts undoes it."""
    texts: dict[str, list[str]] = {}
    for name in columns:
        found = [row.get(name) for row in rows]
        distinct = dict.fromkeys(value for value in found if isinstance(value, str))
        if distinct and all(value is None or isinstance(value, str) for value in found):
            texts[name] = list(distinct)
    numbers: dict[str, dict[Any, int]] = {
        name: {text: number for number, text in enumerate(several)} for name, several in texts.items()
    }
    cells = [
        [numbers[name].get(row.get(name)) if name in texts else _short(row.get(name)) for name in columns]
        for row in rows
    ]  # fmt: skip
    return {"columns": list(columns), "texts": texts, "rows": cells}


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else float(f"{value:.{DIGITS}g}")
    return value
