"""A frame as text: for a terminal, Markdown, CSV or JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("table", "markdown", "csv", "json")


def render(frame: pd.DataFrame, style: str) -> str:
    """A frame as text: "table" and "markdown" round to two decimals for reading, "csv" and "json" keep every digit."""
    if style == "csv":
        return frame.to_csv(index=False).rstrip("\n")
    if style == "json":
        rows = json.loads(frame.to_json(orient="records", double_precision=15))
        return json.dumps(rows, indent=1, ensure_ascii=False)
    text = frame.map(_cell)
    if style == "markdown":
        lines = [list(text.columns), ["---"] * text.shape[1], *text.to_numpy().tolist()]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    if style == "table":
        return text.to_string(index=False)
    raise ValueError(f"unknown format {style!r}; choose from {', '.join(FORMATS)}")


def _cell(value: object) -> str:
    import pandas as pd

    if isinstance(value, dict):
        return "; ".join(f"{name} {_cell(amount)}" for name, amount in value.items())
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.2g}"
    return str(value)
