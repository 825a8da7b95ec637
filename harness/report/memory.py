"""Memory on hardware: the table and the figure of peak memory, predicted beside measured, against what cards have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.core.records import LatencyRecord, MemoryRecord, Record
from harness.core.workload import Workload
from harness.report.figures import style
from harness.report.hardware import (
    MISSING,
    RUN,
    SWEEP_COMMAND,
    Row,
    by_resolution,
    columns_of,
    is_gpu,
    key_of,
    predicted,
    runs_on_devices,
)
from harness.report.layout import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CARDS = (24, 40, 80, 141)
"""Memory of common cards in GiB: RTX 3090 and 4090, A100 40 GB, A100 and H100 80 GB, H200."""

PREDICT_COMMAND = "python -m harness.bench --predict --preset gpu-sweep"
GIB = 2**30
NOTES = [
    "Of a DiM in bfloat16 the prediction is unproven: on a CPU a small one takes up to a third more.",
    "Predicted: allocations of the real model, followed on fake tensors; weights, optimizer and EMA (training), "
    "gradients and activations. In brackets the smallest card, of 24, 40, 80 and 141 GiB, that it fits; OOM: none.",
    "Measured: torch's own peak on the device of the heading; OOM where the device ran out of memory.",
    f"{MISSING}: no record. `{SWEEP_COMMAND}` measures on a machine with a GPU, `{PREDICT_COMMAND}` predicts on any.",
]


def memory_rows(records: Sequence[Record], sweep: Iterable[Workload] | None = None) -> list[Row]:
    """A row a run and device: the predicted peak, what it consists of, the measured peak, and their ratio; in GiB.

    Runs that were only predicted are rows without a device.
    """
    predictions = predicted(records)
    rows, seen = [], set()
    for device, workload, record in runs_on_devices(records, sweep):
        seen.add(key_of(workload))
        guess = _predicted(predictions.get(key_of(workload)), record)
        rows.append({**columns_of(workload), "device": device, **guess, **_measured(record)})
    alone = [record for key, record in predictions.items() if key not in seen]
    return rows + [{**columns_of(r.workload), "device": "", **_predicted(r, None), "measured": ""} for r in alone]


def _predicted(known: MemoryRecord | None, record: LatencyRecord | None) -> Row:
    if known is None:
        nbytes = record.parts.get("predicted_bytes") if record else None
        return {"predicted_gib": nbytes / GIB if nbytes else None}
    assert known.value is not None
    parts = {name.replace(" ", "_") + "_gib": nbytes / GIB for name, nbytes in known.parts.items()}
    return {
        "predicted_gib": known.value / GIB,
        **parts,
        "largest": known.note.removeprefix("largest activation: "),
    }


def _measured(record: LatencyRecord | None) -> Row:
    if record is None or record.verdict != "ok":
        return {"measured": record.verdict if record else MISSING}
    peak, guess = record.parts["peak_bytes"], record.parts["predicted_bytes"]
    return {"measured": "ok", "measured_gib": peak / GIB, "measured_over_predicted": peak / guess}


def memory_table(records: Sequence[Record], sweep: Iterable[Workload] | None = None) -> Table:
    """Peak memory by resolution: predicted, with the card that it fits, and measured on each device."""
    rows = memory_rows(records, sweep)
    once = {tuple(row[name] for name in RUN): row for row in rows}.values()
    blocks = [
        by_resolution([(row, _card(row["predicted_gib"])) for row in once], "Predicted peak, GiB [smallest card]")
    ]
    for device in dict.fromkeys(row["device"] for row in rows if row["device"]):
        cells = [(row, _peak(row)) for row in rows if row["device"] == device]
        blocks.append(by_resolution(cells, f"Measured peak on {device}, GiB"))
    return Table("memory", "Peak memory by resolution, predicted and measured", pd.DataFrame(rows), blocks, NOTES)


def _card(gib: float | None) -> str:
    if gib is None:
        return MISSING
    return f"{gib:.2f} [{next((f'{card}' for card in CARDS if gib <= card), 'OOM')}]"


def _peak(row: Row) -> str:
    if row["measured"] == "ok":
        return f"{row['measured_gib']:.2f}"
    return "OOM" if row["measured"] == "oom" else row["measured"]


# ---- The figure -----------------------------------------------------------------------------------------------------

PANELS = (("forward", "float32"), ("train", "bfloat16"))


def memory_figure(records: Sequence[Record]) -> Figure:
    """Peak memory of one image against resolution: lines predicted, rings measured on a GPU, cards as levels."""
    rows = [
        row for row in memory_rows(records, []) if row["batch"] == 1 and not (row["checkpointing"] or row["frames"])
    ]
    rows = [row for row in rows if row["predicted_gib"]]
    panels = [(action, dtype) for action, dtype in PANELS if _of(rows, action, dtype)]
    if not panels:
        raise ValueError(f"the memory figure needs predictions: {PREDICT_COMMAND}")
    drawing, grid = style.sheet(style.COLUMN * len(panels), 2.9, 1, len(panels), squeeze=False, sharey=True)
    for axes, (action, dtype) in zip(grid[0], panels, strict=True):
        _panel(axes, _of(rows, action, dtype), axes is grid[0][-1])
        name = "a forward pass" if action == "forward" else "a training step"
        axes.set_title(f"{name}, {dtype}, one image")
    grid[0][0].set_ylabel("peak memory (GiB)")
    return drawing


def _of(rows: list[Row], action: str, dtype: str) -> list[Row]:
    return [row for row in rows if (row["action"], row["dtype"]) == (action, dtype)]


def on_gpu(row: Row) -> bool:
    return row["measured"] == "ok" and is_gpu(row["device"])


def _panel(axes: Axes, rows: list[Row], label_cards: bool) -> None:
    lines: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        if row["mixer"] != "naive scan":
            lines.setdefault((row["model"], row["mixer"]), {})[row["resolution"]] = row["predicted_gib"]
    for (model, mixer), points in lines.items():
        look = style.look_of(model) | ({"linestyle": "--", "marker": "x"} if mixer.startswith("naive") else {})
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
    axes.legend(loc="upper left", title=title, title_fontsize=6.5)
