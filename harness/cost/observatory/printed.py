"""Costs as papers print them: results/published/costs.csv, and the efficiency tables of the DiM paper beside them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.core.paths import PROJECT
from harness.cost.published import published_costs

FORWARD, TRAINING, SAVING = "forward", "training", "saving"
"""What a printed figure is of: one forward pass of one image, all images seen in training, or what one pass saves of
that of DiT-XL/2, in per cent."""

SAVED_OF = "DiT-XL/2"
"""The model that a saving is of, at the cost that its own paper prints."""

DIM = "DiM"
OUT_OF_MEMORY = "OOM"
"""What the DiM paper prints of a DiT at 2048, in place of a cost."""

DIM_SOURCE = ("2405.15881", "Tables 4, 5 and 6", "the paper", "https://arxiv.org/abs/2405.15881")


@dataclass(frozen=True, kw_only=True)
class Printed:
    """One figure: who prints it where, of which model and resolution, the text with its digits, and its unit.

    `printed` is empty for a figure whose rule is known but that has not been read. `images` are those seen in training,
    as text, where the source prints them. `read_in` says what was read: the source, or what quotes it.
    """

    paper: str
    arxiv: str
    table: str
    model: str
    resolution: int
    quantity: str
    printed: str
    unit: str
    images: str
    read_in: str
    url: str

    @property
    def read(self) -> bool:
        """Whether the figure itself has been read."""
        return bool(self.printed)

    def agrees(self, value: float) -> bool:
        """Whether a value, in the printed unit, rounds to every printed digit."""
        mantissa, exponent, _ = self.printed.partition("e")
        decimals = len(mantissa.partition(".")[2])
        if exponent:
            return f"{value:.{decimals}e}" == f"{float(self.printed):.{decimals}e}"
        return f"{value:.{decimals}f}" == f"{float(self.printed):.{decimals}f}"


@cache
def printed_figures() -> tuple[Printed, ...]:
    """Every figure that is known here, paper by paper."""
    rows = [Printed(resolution=int(row.pop("resolution")), **row) for row in read_csv("costs.csv")]
    arxiv, table, read_in, url = DIM_SOURCE
    rows += [
        Printed(
            paper=DIM,
            arxiv=arxiv,
            table=table,
            model=model,
            resolution=resolution,
            quantity=FORWARD,
            printed=cell["published_gflops"],
            unit="Gflops",
            images="",
            read_in=read_in,
            url=url,
        )
        for (model, resolution), cell in published_costs().items()
        if cell["published_gflops"] != OUT_OF_MEMORY
    ]
    papers = list(dict.fromkeys(row.paper for row in rows))
    papers.insert(2, papers.pop(papers.index(DIM)))  # behind DiT's paper and repository
    return tuple(row for paper in papers for row in rows if row.paper == paper)


def chosen_figures(names: Iterable[str] = ()) -> list[Printed]:
    """The figures of these papers, arXiv numbers or models; all where none is named. Raises ValueError for another."""
    rows, names = printed_figures(), list(names)
    keys = {row: (row.paper, row.arxiv.partition("v")[0], row.model, row.model.partition("-")[0]) for row in rows}
    for name in names:
        if not any(name in key for key in keys.values()):
            papers = ", ".join(dict.fromkeys(row.paper for row in rows))
            raise ValueError(f"no published cost of {name!r}; choose from {papers}, or name one of their models")
    return [row for row in rows if not names or set(keys[row]) & set(names)]


def read_csv(name: str) -> list[dict[str, str]]:
    """The rows of a file in results/published, every cell a string."""
    path: Path = PROJECT / "published" / name
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
