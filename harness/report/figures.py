"""The figures by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd

from harness.report import style
from harness.report.cost_figure import cost_figure
from harness.report.latency import latency_figure
from harness.report.memory import memory_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "cost": cost_figure,
    "memory": memory_figure,
    "latency": latency_figure,
}


def figure(name: str, records: pd.DataFrame) -> Figure:
    """A figure by name, from the records. Raises ValueError for an unknown name or for records that lack it."""
    if name not in FIGURES:
        raise ValueError(f"unknown figure {name!r}; choose from {', '.join(FIGURES)}")
    with style.styled():
        return FIGURES[name](records)
