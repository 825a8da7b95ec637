"""Cost against resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.core.records import CostRecord, Record, of_kind
from harness.core.workload import Workload
from harness.cost import CONVENTIONS, crossovers, measure
from harness.report.cost import single_images
from harness.report.figures import style
from models import spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COST_MODELS = ("DiT-XL/2", "DiM-XL/2", "DiM-XL/2-matched")
RESOLUTIONS = (256, 384, 512, 768, 1024, 1536, 2048)
"""In pixels a side."""


def count_figure() -> list[CostRecord]:
    """What the cost figure shows, counted anew."""
    specs = [spec(name) for name in COST_MODELS]
    workloads = [Workload(spec=one, resolution=pixels) for one in specs for pixels in RESOLUTIONS]
    return measure(workloads, [CONVENTIONS["exact"], CONVENTIONS["paper"]]) + crossovers(specs)


def cost_figure(records: Sequence[Record]) -> Figure:
    """Cost against resolution, a line a model: exact, the crossovers marked; and under the convention of Table 4."""
    rows = [row for row in single_images(records).values() if row["model"] in COST_MODELS and "exact_gmacs" in row]
    if not rows:
        raise ValueError(
            f"the cost figure needs records of {', '.join(COST_MODELS)}: python -m harness.plots makes them"
        )
    resolutions = sorted({row["resolution"] for row in rows})
    crossovers = {
        record.workload["model"]: record.value
        for record in of_kind(records, CostRecord)
        if record.quantity == "crossover" and record.value and record.get("model") in COST_MODELS
    }
    counted = [row for row in rows if "published_gflops" in row]
    drawing, (exact, paper) = style.sheet(style.PAGE, 2.9, 1, 2, sharey=True)
    exact.set(title="Every multiply-add of an image", yscale="log", ylabel="cost of a forward pass (GMAC)")
    paper.set_title("As the paper counts, three images")
    mark_crossovers(exact, crossovers, resolutions[0], resolutions[-1])
    ends: dict[Axes, list[tuple[float, float, str, str]]] = {}
    for axes, column, shown in ((exact, "exact_gmacs", rows), (paper, "paper_gmacs", counted)):
        style.resolution_axis(axes, resolutions)
        for model in COST_MODELS:
            points = sorted((row["resolution"], row[column]) for row in shown if row["model"] == model)
            if points:
                look = style.look_of(model)
                axes.plot(*zip(*points, strict=True), **look, label=model)
                ends.setdefault(axes, []).append((*points[-1], model, look["color"]))
    for axes, several in ends.items():  # when the limits that both share are final
        style.label_ends(axes, several)
    return drawing


def mark_crossovers(axes: Axes, crossovers: Mapping[str, float], low: float, high: float) -> None:
    """A vertical line at each resolution in a range at which a model's exact cost falls to that of its counterpart."""
    for model, pixels in crossovers.items():
        if not low <= pixels <= high:
            continue
        colour = style.look_of(model)["color"]
        axes.axvline(pixels, color=colour, linewidth=0.8, linestyle="--", zorder=0)
        axes.annotate(f" {pixels:.0f} px", (pixels, 0.02), xycoords=("data", "axes fraction"), color=colour, fontsize=7)
