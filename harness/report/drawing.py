"""The figures by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core import paper
from harness.core.records import CostRecord, Record, ScoreRecord
from harness.report.figures import style
from harness.report.figures.contact_sheets import SAMPLES, contact_figure
from harness.report.figures.cost import cost_figure, count_figure
from harness.report.figures.crossover import crossover_figure
from harness.report.figures.floors import floors_figure
from harness.report.figures.frontier import frontier_figure
from harness.report.figures.latency import latency_figure
from harness.report.figures.memory import memory_figure
from harness.report.figures.published import published_figure
from harness.report.figures.quality import gmacs_figure, guidance_figure, params_figure, patch_figure, training_figure
from harness.report.figures.sequence import sequence_figure
from harness.report.quality import own_lines
from harness.suites import Suite
from harness.suites import suite as suite_by_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from harness.report.lines import Line


@dataclass(frozen=True)
class FigureSpec:
    """A figure: what draws it, of a suite's scores, alone or with a user's, of its samples or of records alone.

    `count` is what is counted for it.
    """

    of_all_scores: Callable[[Suite, Sequence[Record], Sequence[Line]], Figure] | None = None
    of_scores: Callable[[Suite, Sequence[Record]], Figure] | None = None
    of_samples: Callable[[Suite, Path], Figure] | None = None
    of_records: Callable[[Sequence[Record]], Figure] | None = None
    count: Callable[[], list[CostRecord]] | None = None

    @property
    def of_suite(self) -> bool:
        return self.of_records is None


FIGURES: dict[str, FigureSpec] = {
    "figure1": FigureSpec(of_scores=training_figure),
    "figure3": FigureSpec(of_samples=contact_figure),
    "quality-vs-gmacs": FigureSpec(gmacs_figure),
    "quality-vs-params": FigureSpec(params_figure),
    "guidance": FigureSpec(of_scores=guidance_figure),
    "patch-size": FigureSpec(of_scores=patch_figure),
    "sequence-length": FigureSpec(of_scores=sequence_figure),
    "frontier": FigureSpec(frontier_figure),
    "cost": FigureSpec(of_records=cost_figure, count=count_figure),
    "memory": FigureSpec(of_records=memory_figure),
    "latency": FigureSpec(of_records=latency_figure),
    "crossover": FigureSpec(of_records=crossover_figure),
    "floors": FigureSpec(of_records=floors_figure),
    "published": FigureSpec(of_records=published_figure),
}


WITH_OWN = tuple(name for name, spec in FIGURES.items() if spec.of_all_scores)
"""Those that show a user's own scores, which follow the protocol of the table of sizes."""


def count_figures(names: Iterable[str]) -> list[CostRecord]:
    """What the figures of these names show of costs, counted anew."""
    return [record for name in names if (count := FIGURES[name].count) for record in count()]


def own_rows(
    records: Sequence[Record], own: Sequence[ScoreRecord], suite: Suite | None = None
) -> tuple[list[Line], list[str]]:
    """A user's scores as `figure` takes them, and a line for each checkpoint that is left out: what differs."""
    return own_lines(paper.TABLES[6], suite or suite_by_name(paper.SUITES[0], records), records, own)


def figure(
    name: str,
    records: Sequence[Record],
    suite: Suite | None = None,
    samples: Path = SAMPLES,
    yours: Sequence[Line] = (),
) -> Figure:
    """A figure by name, from the records; those of quality are of a suite (default: that of the image tables).

    `samples` is the folder of grids that Figure 3 shows (default: the project's); `yours` are marked in the figures of
    WITH_OWN, where their costs are known. Raises ValueError for an unknown name, and where the records lack what the
    figure shows, with the command that makes them.
    """
    if name not in FIGURES:
        raise ValueError(f"unknown figure {name!r}; choose from {', '.join(FIGURES)}")
    chosen = FIGURES[name]
    suite = suite or suite_by_name(paper.SUITES[0])
    with style.styled():
        if chosen.of_all_scores:
            return chosen.of_all_scores(suite, records, yours)
        if chosen.of_scores:
            return chosen.of_scores(suite, records)
        if chosen.of_samples:
            return chosen.of_samples(suite, samples)
        assert chosen.of_records
        return chosen.of_records(records)


def drawn(
    name: str,
    records: Sequence[Record],
    suite: Suite | None = None,
    samples: Path = SAMPLES,
    yours: Sequence[Line] = (),
) -> Figure | str:
    """`figure`, or where the records lack it, a sentence that says so."""
    try:
        return figure(name, records, suite, samples, yours)
    except ValueError as error:
        if name not in FIGURES:
            raise
        return f"not drawn: {error}"
