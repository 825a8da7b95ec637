"""Latency against resolution, from what was measured and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from harness.core.records import Record
from harness.cost import crossover
from harness.report.crossing import crossing
from harness.report.figures import style
from harness.report.figures.cost import mark_crossovers
from harness.report.hardware import SWEEP_COMMAND, Fields
from harness.report.latency import figure_of, latency_rows
from models import catalogue, counterpart, spec
from models.families import named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def latency_figure(records: Sequence[Record]) -> Figure:
    """Time of a forward pass against resolution, a panel a device and size, with both crossovers.

    A panel has the dtype and batch most measured on its device. Raises ValueError where nothing was measured.
    """
    rows = [row for row in latency_rows(records, []) if row["action"] == "forward" and not row["frames"]]
    panels = _panels(rows)
    if not panels:
        raise ValueError(f"the latency figure needs measured forward passes: {SWEEP_COMMAND}")
    drawing, grid = style.panels(len(panels), 2.9)
    for axes, ((device, kind, size), chosen) in zip(grid, panels.items(), strict=True):
        _panel(axes, chosen)
        axes.set_title(f"{size} on {device}\n{kind[0]}, batch {kind[1]}", fontsize=7)
        axes.set_xlabel("resolution (pixels a side)")
        axes.set_ylabel("time of a forward pass (s)")
    return drawing


def _panels(rows: list[Fields]) -> dict[tuple[str, tuple[str, int], str], list[Fields]]:
    """Rows by device, kind and size with its patch; panels in which nothing was answered are left out."""
    found: dict[tuple[str, tuple[str, int], str], list[Fields]] = {}
    for device in dict.fromkeys(row["device"] for row in rows if row["verdict"] == "ok"):
        here = [row for row in rows if row["device"] == device]
        kinds = [(row["dtype"], row["batch"]) for row in here if row["verdict"] == "ok"]
        kind = max(kinds, key=kinds.count)
        for row in here:
            if (row["dtype"], row["batch"]) == kind:
                size = row["model"].partition("(")[0].split("-")[1]
                found.setdefault((device, kind, size), []).append(row)
    return {key: some for key, some in found.items() if any(row["verdict"] == "ok" for row in some)}


def _panel(axes: Axes, rows: list[Fields]) -> None:
    """Lines of one device and size; what ran out of memory is named."""
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    failed: list[str] = []
    for row in rows:
        if row["verdict"] == "ok":
            lines.setdefault((row["model"], row["mixer"]), []).append((row["resolution"], row["ms"] / 1e3))
        else:
            what = ", ".join(filter(None, (row["model"], row["mixer"])))
            failed.append(f"{what} at {row['resolution']} px: {figure_of(row, None)}")
    for (model, mixer), points in lines.items():
        look = style.look_of(model) | (style.NAIVE if mixer.startswith("naive") else {})
        axes.plot(*zip(*sorted(points), strict=True), **look, label=", ".join(filter(None, (model, mixer))))
    resolutions = sorted({row["resolution"] for row in rows})
    mark_crossovers(axes, _crossovers(model for model, _ in lines), resolutions[0], resolutions[-1])
    _mark_measured(axes, lines)
    style.resolution_axis(axes, resolutions)
    style.plain_log(axes, "y", (1, 3))
    title = "\n".join(["dashed: equal multiply-adds; ring: equal time", *failed])
    below_the_labels = 4.5  # font sizes, whatever height the layout leaves to the axes
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=below_the_labels, title=title, title_fontsize=6
    )


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
