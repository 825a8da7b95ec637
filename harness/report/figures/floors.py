"""Floors against resolution, a panel a card: which resource binds, and where the floors cross."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.core.cards import Card, card
from harness.core.records import Record
from harness.core.workload import Workload
from harness.cost.floors import Floor, floor
from harness.report.figures import style
from harness.report.floors import CARDS, MODELS, crossings, lines, measured_fields
from models import spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RESOLUTIONS = tuple(range(128, 2048 + 1, 32))
ARITHMETIC = "bfloat16"
DASHES: dict[str, Any] = {
    "matrix": "-",
    "bytes": (0, (1, 1)),
    "exponentials": (0, (4, 1.5)),
    "vector": (0, (4, 1, 1, 1)),
}
WORDS = {"matrix": "matrix products", "bytes": "bytes", "exponentials": "exponentials", "vector": "FP32 multiply-adds"}


def floors_figure(records: Sequence[Record]) -> Figure:
    """The floor of a forward pass of one image in bfloat16; a line's dashes say what binds, and a vertical line from
    where on a DiM's floor is the lower one. Rings: measured on that card, where records have it.
    """
    from matplotlib.lines import Line2D

    above = [row for row in measured_fields(records) if _is_drawn(row)]
    drawing, grid = style.sheet(style.PAGE, 4.4, 2, 3, sharex=True, sharey=True)
    *panels, last = grid.flat
    bound: dict[str, None] = {}
    for axes, name in zip(panels, CARDS, strict=True):
        bound |= _panel(axes, card(name))
        for row in (row for row in above if row["card"] == name):
            colour = style.look_of(row["model"])["color"]
            axes.plot(row["resolution"], row["measured_ms"], "o", markersize=4, markerfacecolor="none", color=colour)
    drawing.supylabel("floor of a forward pass (ms)", fontsize=8)
    drawing.supxlabel("resolution (pixels a side)", fontsize=8)
    grid[0][-1].tick_params(labelbottom=True)  # there is no panel below it
    last.set_axis_off()
    handles = [Line2D([], [], color=style.look_of(model)["color"], label=model) for model in MODELS]
    handles += [
        Line2D([], [], color=style.GREY, linestyle=DASHES[what], label=f"bound by {WORDS[what]}") for what in bound
    ]
    last.legend(handles=handles, loc="center", title=f"one image, {ARITHMETIC}", title_fontsize=7)
    return drawing


def _is_drawn(row: dict[str, Any]) -> bool:
    usual = (row["batch"], row["action"], row["arithmetic"]) == (1, "forward", ARITHMETIC)
    return usual and row["model"] in MODELS and RESOLUTIONS[0] <= row["resolution"] <= RESOLUTIONS[-1]


def _panel(axes: Axes, on: Card) -> dict[str, None]:
    """The lines of one card; gives what binds any of them."""
    bound: dict[str, None] = {}
    for model in MODELS:
        workloads = [Workload(spec=spec(model), resolution=px, dtype=ARITHMETIC) for px in RESOLUTIONS]
        floors = [floor(w, on, ARITHMETIC) for w in workloads]
        colour = style.look_of(model)["color"]
        for what, points in _stretches(floors):
            axes.plot(*zip(*points, strict=True), color=colour, linestyle=DASHES[what])
            bound[what] = None
    style.resolution_axis(axes, list(RESOLUTIONS))
    style.plain_log(axes, "y", (1,))
    axes.set(title=on.name, xlabel="")
    found = lines([Workload(spec=spec(model), resolution=RESOLUTIONS[0], dtype=ARITHMETIC) for model in MODELS], [on])
    for place, (one, _, where) in enumerate(crossings(found)):
        colour = style.look_of(one.workload.spec.name)["color"]
        px = where.lower_from
        if px and px >= RESOLUTIONS[0]:
            axes.axvline(px, color=colour, linewidth=0.8, linestyle="--", zorder=0)
        text = f"lower from {px} px on" if px and px >= RESOLUTIONS[0] else "lower everywhere"
        at: dict[str, Any] = {"xycoords": "axes fraction", "va": "top", "color": colour, "fontsize": 6.5}
        at["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axes.annotate(text, (0.03, 0.97 - 0.08 * place), **at)
    return bound


def _stretches(floors: Sequence[Floor]) -> list[tuple[str, list[tuple[int, float]]]]:
    """Runs of resolutions that one resource binds, each up to the first point of the next."""
    points = [(px, 1e3 * one.value) for px, one in zip(RESOLUTIONS, floors, strict=True)]
    found, start = [], 0
    for what, several in itertools.groupby(one.binds for one in floors):
        end = start + len(list(several))
        found.append((what, points[start : end + 1]))
        start = end
    return found
