"""Peak memory against resolution, predicted and measured, and what cards have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.core.records import Record
from harness.report.figures import style
from harness.report.hardware import Fields, is_gpu
from harness.report.memory import CARDS, PREDICT_COMMAND, memory_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOT_DRAWN = ("naive scan", "operands kept")
"""A reference that nobody trains with, and what DiM does not do unless it is made to."""
USUAL = (("forward", "float32"), ("train", "bfloat16"))
"""What the panels are of where there are predictions of it."""
ACTIONS = {"forward": "a forward pass", "sample": "a denoising step", "train": "a training step"}


def memory_figure(records: Sequence[Record]) -> Figure:
    """Peak memory of one image against resolution: lines predicted, rings measured on a GPU, cards as levels.

    Raises ValueError where nothing is predicted.
    """
    rows = [
        row
        for row in memory_rows(records, [])
        if row["batch"] == 1
        and not (row["checkpointing"] or row["frames"])
        and row["predicted_gib"]
        and not row["mixer"].endswith(NOT_DRAWN)
        and (not row["device"] or is_gpu(row["device"]))
    ]
    there = dict.fromkeys((row["action"], row["dtype"]) for row in rows)
    panels = [panel for panel in USUAL if panel in there] or list(there)[:2]
    if not panels:
        raise ValueError(f"the memory figure needs predictions: {PREDICT_COMMAND}")
    drawing, grid = style.sheet(style.COLUMN * len(panels), 2.9, 1, len(panels), squeeze=False, sharey=True)
    for axes, (action, dtype) in zip(grid[0], panels, strict=True):
        here = [row for row in rows if (row["action"], row["dtype"]) == (action, dtype)]
        _panel(axes, here, axes is grid[0][-1])
        axes.set_title(f"{ACTIONS[action]}, {dtype}, one image")
    grid[0][0].set_ylabel("peak memory (GiB)")
    return drawing


def on_gpu(row: Fields) -> bool:
    return row["measured"] == "ok" and is_gpu(row["device"])


def _panel(axes: Axes, rows: list[Fields], label_cards: bool) -> None:
    lines: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        lines.setdefault((row["model"], row["mixer"]), {})[row["resolution"]] = row["predicted_gib"]
    looks = style.looks(model for model, _ in lines)
    for (model, mixer), points in lines.items():
        look = looks[model] | (style.NAIVE if mixer.startswith("naive") else {})
        label = f"{model}, {mixer}" if mixer.endswith("attention") else model
        axes.plot(*zip(*sorted(points.items()), strict=True), **look, label=label)
        same = [r for r in rows if (r["model"], r["mixer"]) == (model, mixer)]
        rings = [(r["resolution"], r["measured_gib"]) for r in same if on_gpu(r)]
        if rings:
            ring: dict[str, Any] = {"marker": "o", "markersize": 7, "markerfacecolor": "none", "linestyle": "none"}
            axes.plot(*zip(*rings, strict=True), **ring, color=look["color"])
    resolutions = sorted({row["resolution"] for row in rows})
    for card in CARDS:
        axes.axhline(card, color=style.GREY, linewidth=0.7, linestyle=(0, (1, 2)), zorder=0)
        where: dict[str, Any] = {
            "xycoords": ("axes fraction", "data"),
            "va": "center",
            "color": style.GREY,
            "fontsize": 6,
        }
        axes.annotate(f"{card} GiB" if label_cards else "", (1.01, card), **where)
    style.resolution_axis(axes, resolutions)
    style.plain_log(axes, "y")
    title = "lines: predicted; rings: measured" if any(map(on_gpu, rows)) else "predicted"
    style.legend(axes, title, 6.5)
