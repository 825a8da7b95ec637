"""Printed costs of an image, in Gflops, over all of its multiply-adds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.core.records import Record
from harness.cost.observatory import Observation, observe
from harness.report.figures import style
from harness.report.observatory import ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RESOLUTIONS = (256, 512)
"""In pixels a side: those at which papers print costs."""

COLOURS = (style.BLUE, style.VERMILION, style.GREEN, style.ORANGE, style.SKY, style.PURPLE, style.BLACK, style.GREY,
           style.YELLOW)  # fmt: skip
MARKERS = "osDv^P*X<>"


def published_figure(records: Sequence[Record] = ()) -> Figure:
    """A panel a resolution, a point a printed figure; on the line at one, what is printed are all multiply-adds.

    It is made of data and closed forms; `records` are not needed.
    """
    found = [one for one in observe() if ratio(one)]
    families = list(dict.fromkeys(_family(one) for one in found))
    drawing, grid = style.panels(len(RESOLUTIONS), 3.0, sharey=True)
    for axes, pixels in zip(grid, RESOLUTIONS, strict=True):
        _panel(axes, [one for one in found if one.printed.resolution == pixels], families)
        axes.set_title(f"{pixels} x {pixels}")
        axes.set_xlabel("exact, one image (GMAC)")
    grid[0].set_ylabel("printed per image (Gflops) / exact (GMAC)")
    handles = dict(zip(*reversed(grid[0].get_legend_handles_labels()), strict=True))
    handles |= dict(zip(*reversed(grid[1].get_legend_handles_labels()), strict=True))
    drawing.legend(handles.values(), handles.keys(), loc="outside right upper", title="model, in whose paper")
    return drawing


def _panel(axes: Axes, found: Sequence[Observation], families: Sequence[str]) -> None:
    axes.axhline(1, color=style.GREY, linewidth=0.8, zorder=0)
    for place, family in enumerate(families):
        points = [(one.exact_gmacs, ratio(one)) for one in found if _family(one) == family]
        if points:
            axes.plot(*zip(*points, strict=True), label=family, linestyle="",
                      color=COLOURS[place % len(COLOURS)], marker=MARKERS[place % len(MARKERS)])  # fmt: skip
    axes.set_xscale("log")
    axes.set_ylim(0, 1.1)


def _family(one: Observation) -> str:
    """The model's family; where another paper prints it, that too."""
    family = re.split(r"-(?=[A-Z]+(?:$|[/ ]))", one.printed.model)[0]
    paper = one.printed.paper
    return family if family == paper else f"{family}, in {paper}"
