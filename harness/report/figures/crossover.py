"""Time over the counterpart's against resolution, measured, beside the ratio of their multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.core.records import Record
from harness.cost import analytic
from harness.report.crossing import Crossing, crossings
from harness.report.figures import style
from harness.report.hardware import SWEEP_COMMAND, is_gpu, measured
from models import spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REFERENCE = "naive"
"""An implementation that nobody chooses for its speed: no comparison rests on it."""


def crossover_figure(records: Sequence[Record]) -> Figure:
    """The ratio of times of a forward pass, a panel a device and size; below one, the model is the faster of the two.

    Raises ValueError where no model was measured beside its counterpart at two resolutions.
    """
    panels: dict[tuple[str, str, str], list[Crossing]] = {}
    for device, runs in measured(records).items():
        for one in crossings(runs):
            if one.action == "forward" and len(one.ratios) > 1 and not one.rival_mixer.startswith(REFERENCE):
                panels.setdefault((device, one.rival, one.dtype), []).append(one)
    if not panels:
        raise ValueError(f"the crossover figure needs forward passes of both families, measured: {SWEEP_COMMAND}")
    drawing, grid = style.panels(len(panels), 2.7, sharey=True)
    for axes, ((device, rival, dtype), found) in zip(grid, panels.items(), strict=True):
        for one in found:
            _lines(axes, one)
        style.resolution_axis(axes, sorted({r for one in found for r in one.ratios}))
        style.plain_log(axes, "y", (1, 1.5, 2, 3, 5, 7))
        axes.set_title(f"beside {rival}" + (f", {dtype}" if is_gpu(device) else "") + f"\n{device}", fontsize=7)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22))
    grid[0].set_ylabel("ratio to DiT's: time (solid),\nmultiply-adds (dashed)")
    return drawing


def _lines(axes: Axes, one: Crossing) -> None:
    look = style.look_of(one.model)
    resolutions = sorted(one.ratios)
    equal = f": equal at {one.pixels:.0f} px" if one.pixels else ""
    axes.plot(resolutions, [one.ratios[r] for r in resolutions], **look | {"linestyle": "-"}, label=one.model + equal)
    macs = [analytic(spec(one.model), r).macs / analytic(spec(one.rival), r).macs for r in resolutions]
    axes.plot(resolutions, macs, color=look["color"], linestyle="--", linewidth=0.8)
    axes.axhline(1, color=style.GREY, linewidth=0.8)
    if one.pixels and one.interval:
        low, high = one.interval
        within = (max(low, resolutions[0]), min(high, resolutions[-1]))
        axes.plot(within, (1, 1), color=look["color"], linewidth=4, alpha=0.4, solid_capstyle="butt")
