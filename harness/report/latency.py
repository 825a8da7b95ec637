"""Time on hardware: the table and the figure of latency against resolution, from what was measured and nothing else."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from harness.core.records import LatencyRecord, Record
from harness.core.workload import Workload
from harness.report.figures import style
from harness.report.figures.cost import mark_crossovers
from harness.report.hardware import (
    ANY_GPU,
    MISSING,
    SWEEP_COMMAND,
    Row,
    by_resolution,
    columns_of,
    is_gpu,
    runs_on_devices,
)
from harness.report.layout import Table
from models import counterpart, spec
from models.families import named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOTES = [
    "Latency: the median of a step of the batch, ± half the interquartile range of its raw samples; a forward pass, a "
    "guided denoising step (sample) or a training step (train). Each run in a process of its own, after warm-up.",
    "TFLOP/s: exact floating-point operations of the step (two a multiply-add) over its median.",
    f"{MISSING}: nobody has measured it on that device; on a machine with a GPU, `{SWEEP_COMMAND}` does.",
    "OOM: out of memory. error: the run failed; the record has its text.",
]


def latency_rows(records: Sequence[Record], sweep: Iterable[Workload] | None = None) -> list[Row]:
    """A row a run and device: median, spread, throughput, achieved FLOP/s; the GPU sweep's gaps as missing."""
    return [
        {"device": device, **columns_of(workload), **_row(record)}
        for device, workload, record in runs_on_devices(records, sweep)
    ]


def _row(record: LatencyRecord | None) -> Row:
    if record is None:
        return {"verdict": MISSING, "note": ""}
    row: Row = {"verdict": record.verdict}
    if record.verdict == "ok":
        low, median, high = pd.Series(record.samples).quantile([0.25, 0.5, 0.75])
        parts, batch = record.parts, record.workload["batch"]
        row |= {"ms": 1e3 * median, "iqr_ms": 1e3 * (high - low), "items_per_s": batch / median}
        row |= {"tflop_per_s": parts["flops"] / median / 1e12, "n_samples": len(record.samples)}
        row["joules_per_item"] = parts["joules"] / batch if "joules" in parts else None
    return row | {"note": record.note}


def latency_table(records: Sequence[Record], sweep: Iterable[Workload] | None = None) -> Table:
    """Latency, throughput and achieved FLOP/s by resolution, a set of grids a device."""
    rows = latency_rows(records, sweep)
    blocks = []
    for device in dict.fromkeys(row["device"] for row in rows):
        here = [row for row in rows if row["device"] == device]
        blocks.append(by_resolution([(row, _time(row)) for row in here], f"Latency on {device}, ms"))
        if any(row["verdict"] == "ok" for row in here):
            for column, caption in (
                ("items_per_s", "Throughput on {}, images (or clips) a second"),
                ("tflop_per_s", "TFLOP/s on {}"),
            ):
                cells = [(row, _figure(row, row.get(column))) for row in here]
                blocks.append(by_resolution(cells, caption.format(device)))
    return Table("latency", "Latency and throughput by resolution, measured", pd.DataFrame(rows), blocks, NOTES)


def _time(row: Row) -> str:
    return f"{_figure(row, row.get('ms'))} ± {row['iqr_ms'] / 2:.2g}" if row["verdict"] == "ok" else _figure(row, None)


def _figure(row: Row, value: float | None) -> str:
    if row["verdict"] != "ok" or value is None:
        return "OOM" if row["verdict"] == "oom" else row["verdict"]
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


# ---- The figure -----------------------------------------------------------------------------------------------------


def latency_figure(records: Sequence[Record]) -> Figure:
    """Latency of a forward pass against resolution, a panel a device, with the measured crossover and the analytic one.

    The first panel is of a GPU; where none was measured it says so in words.
    """
    rows = [row for row in latency_rows(records, []) if row["action"] == "forward" and not row["frames"]]
    devices = list(dict.fromkeys(row["device"] for row in rows))
    panels = [device for device in devices if is_gpu(device)] or [ANY_GPU]
    panels += [device for device in devices if not is_gpu(device)]
    drawing, grid = style.sheet(style.COLUMN * len(panels), 2.8, 1, len(panels), squeeze=False)
    for axes, device in zip(grid[0], panels, strict=True):
        here = [row for row in rows if row["device"] == device]
        if here:
            _panel(axes, here, records)
        else:
            style.say(axes, f"no GPU has been measured:\n{SWEEP_COMMAND}\nfills this panel")
            axes.set(xticks=[], yticks=[])
        axes.set(xlabel="resolution (pixels a side)", ylabel="latency of a forward pass (ms)")
        axes.set_title(device, fontsize=7)
    return drawing


def _panel(axes: Axes, rows: list[Row], records: Sequence[Record]) -> None:
    """Lines of one device, in the dtype and batch most measured there; what ran out of memory is named."""
    kinds = [(row["dtype"], row["batch"]) for row in rows]
    kind = max(kinds, key=kinds.count)
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    failed: list[str] = []
    for row in rows:
        if (row["dtype"], row["batch"]) != kind:
            continue
        if row["verdict"] == "ok":
            lines.setdefault((row["model"], row["mixer"]), []).append((row["resolution"], row["ms"]))
        else:
            what = ", ".join(filter(None, (row["model"], row["mixer"])))
            failed.append(f"{what} at {row['resolution']} px: {_figure(row, None)}")
    for (model, mixer), points in lines.items():
        look = style.look_of(model) | ({"linestyle": "--", "marker": "x"} if mixer.startswith("naive") else {})
        axes.plot(*zip(*sorted(points), strict=True), **look, label=", ".join(filter(None, (model, mixer))))
    resolutions = sorted({row["resolution"] for row in rows})
    models = {model for model, _ in lines}
    mark_crossovers(axes, records, models, resolutions[0], resolutions[-1])
    _mark_measured(axes, lines)
    style.resolution_axis(axes, resolutions)
    style.plain_log(axes, "y")
    title = f"{kind[0]}, batch {kind[1]}; dashed: equal multiply-adds; ring: equal time"
    axes.legend(loc="upper left", title="\n".join([title, *failed]), title_fontsize=6)


def _mark_measured(axes: Axes, lines: dict[tuple[str, str], list[tuple[int, float]]]) -> None:
    """A ring where a DiM's measured line meets that of its DiT with fused attention: of any model and counterpart."""
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


def crossing(one: list[tuple[int, float]], other: list[tuple[int, float]]) -> tuple[float, float] | None:
    """Where `one` falls to `other`, both interpolated between common resolutions on logarithmic axes; None: nowhere."""
    a, b = dict(one), dict(other)
    common = sorted(set(a) & set(b))
    for left, right in itertools.pairwise(common):
        before, after = (math.log(a[x] / b[x]) for x in (left, right))
        if before > 0 >= after:
            share = before / (before - after)
            return left * (right / left) ** share, a[left] * (a[right] / a[left]) ** share
    return None
