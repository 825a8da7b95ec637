"""The figures by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.core.records import Record
from harness.report.figures import style
from harness.report.figures.contact_sheets import contact_figure
from harness.report.figures.cost import cost_figure
from harness.report.figures.quality import gmacs_figure, guidance_figure, params_figure, patch_figure, training_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from harness.suites.suite import Suite



def _memory(records: Sequence[Record]) -> Figure:
    from harness.report.memory import memory_figure  # which imports the style, and so this module

    return memory_figure(records)


def _latency(records: Sequence[Record]) -> Figure:
    from harness.report.latency import latency_figure

    return latency_figure(records)


OF_COSTS: dict[str, Callable[[Sequence[Record]], Figure]] = {
    "cost": cost_figure,
    "memory": _memory,
    "latency": _latency,
}
OF_QUALITY: dict[str, Callable[[Suite, Sequence[Record]], Figure]] = {
    "figure1": training_figure,
    "figure3": lambda suite, records: contact_figure(suite),
    "quality-vs-gmacs": gmacs_figure,
    "quality-vs-params": params_figure,
    "guidance": guidance_figure,
    "patch-size": patch_figure,
}
FIGURES = (*OF_QUALITY, *OF_COSTS)


def drawn(name: str, records: Sequence[Record], suite: Suite | None = None) -> Figure | str:
    """`figure`, or where the records lack it, a sentence that says so."""
    try:
        return figure(name, records, suite)
    except ValueError as error:
        if name not in FIGURES:
            raise
        return f"not drawn: {error}"


def figure(name: str, records: Sequence[Record], suite: Suite | None = None) -> Figure:
    """A figure by name, from the records; those of quality are of a suite (default: `digits`).

    Raises ValueError for an unknown name, and where the records lack what it shows, with the command that makes them.
    """
    if name not in FIGURES:
        raise ValueError(f"unknown figure {name!r}; choose from {', '.join(FIGURES)}")
    with style.styled():
        if name in OF_COSTS:
            return OF_COSTS[name](records)
        if suite is None:
            from harness.suites.suite import suite as suite_by_name

            suite = suite_by_name("digits")
        return OF_QUALITY[name](suite, records)
