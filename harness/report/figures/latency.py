"""Latency against resolution, from what was measured and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from harness.core.records import Record
from harness.cost import crossover
from harness.report.crossing import crossing
from harness.report.figures import style
from harness.report.figures.cost import mark_crossovers
from harness.report.hardware import SWEEP_COMMAND, Fields, is_gpu
from harness.report.latency import figure_of, latency_rows
from models import catalogue, counterpart, spec
from models.families import named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def latency_figure(records: Sequence[Record]) -> Figure:
    """Latency of a forward pass against resolution, a panel a device, with the measured crossover and the analytic one.

    Where no GPU was measured the first panel says so. Raises ValueError where nothing was.
    """
    rows = [row for row in latency_rows(records, []) if row["action"] == "forward" and not row["frames"]]
    panels = list(dict.fromkeys(row["device"] for row in rows if row["verdict"] == "ok"))
    if not panels:
        raise ValueError(f"the latency figure needs measured forward passes: {SWEEP_COMMAND}")
    drawing, grid = style.sheet(style.COLUMN * len(panels), 2.8, 1, len(panels), squeeze=False)
    for axes, device in zip(grid[0], panels, strict=True):
        _panel(axes, [row for row in rows if row["device"] == device])
        axes.set(xlabel="resolution (pixels a side)", ylabel="latency of a forward pass (ms)")
        axes.set_title(device, fontsize=7)
    if not any(map(is_gpu, panels)):
        grid[0][0].set_title(f"{panels[0]}\nno GPU has been measured: {SWEEP_COMMAND}", fontsize=6)
    return drawing


def _panel(axes: Axes, rows: list[Fields]) -> None:
    """Lines of one device, in the dtype and batch most measured there; what ran out of memory is named."""
    kinds = [(row["dtype"], row["batch"]) for row in rows if row["verdict"] == "ok"]
    kind = max(kinds, key=kinds.count)
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    failed: list[str] = []
    chosen = [row for row in rows if (row["dtype"], row["batch"]) == kind]
    for row in chosen:
        if row["verdict"] == "ok":
            lines.setdefault((row["model"], row["mixer"]), []).append((row["resolution"], row["ms"]))
        else:
            what = ", ".join(filter(None, (row["model"], row["mixer"])))
            failed.append(f"{what} at {row['resolution']} px: {figure_of(row, None)}")
    looks = style.looks(model for model, _ in lines)
    for (model, mixer), points in lines.items():
        look = looks[model] | (style.NAIVE if mixer.startswith("naive") else {})
        axes.plot(*zip(*sorted(points), strict=True), **look, label=", ".join(filter(None, (model, mixer))))
    resolutions = sorted({row["resolution"] for row in chosen})
    mark_crossovers(axes, _crossovers(model for model, _ in lines), resolutions[0], resolutions[-1])
    _mark_measured(axes, lines)
    style.resolution_axis(axes, resolutions)
    style.plain_log(axes, "y")
    title = f"{kind[0]}, batch {kind[1]}; dashed: equal multiply-adds; ring: equal time"
    style.legend(axes, "\n".join([title, *failed]), 6)


def _crossovers(models: Iterable[str]) -> dict[str, float]:
    """The resolution in pixels at which each model's exact cost falls to that of its counterpart, where it does."""
    known = [spec(model) for model in dict.fromkeys(models) if model in catalogue()]
    pairs = [(model, rival) for model in known if (rival := counterpart(model))]
    return {model.name: pixels for model, rival in pairs if (pixels := crossover(model, rival))}


def _mark_measured(axes: Axes, lines: dict[tuple[str, str], list[tuple[int, float]]]) -> None:
    """A ring where a model's measured line meets that of its counterpart in the counterpart's usual implementation."""
    for (model, _), points in lines.items():
        rival = counterpart(spec(model.partition("(")[0]))
        ways = named(rival.family).implementations if rival else None
        beside = lines.get((rival.name, ways.words(ways.default) if ways else "")) if rival else None
        where = crossing(sorted(points), sorted(beside)) if beside else None
        if where:
            colour = style.look_of(model)["color"]
            axes.plot(*where, marker="o", markersize=9, markerfacecolor="none", color=colour, linestyle="none")
            axes.annotate(
                f"{where[0]:.0f} px", where, xytext=(6, -9), textcoords="offset points", color=colour, fontsize=7
            )
