"""Time on hardware: the table of latency by resolution, from what was measured and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.core.cards import peak_flops
from harness.core.records import TASK, LatencyRecord, Record
from harness.core.workload import Workload
from harness.report.crossing import crossing_block
from harness.report.hardware import (
    MISSING,
    MIXER,
    SWEEP_COMMAND,
    Fields,
    by_resolution,
    columns_of,
    is_gpu,
    known_lines,
    measured,
    missing_note,
    runs_on_devices,
)
from harness.report.layout import Table
from models import spec

NOTES = [
    "Latency: the median of a step of the batch, ± half the interquartile range of its raw samples; a forward pass, a "
    "guided denoising step (sample) or a training step (train). Each run has its own process. After warm-up it takes "
    "turns with the other runs of the same call, until the median is known to 2 % (95 %, order statistics) or the "
    "time limit is reached. A sample is rejected and repeated if other processes used the cores or a GPU throttled.",
    MIXER,
    "TFLOP/s, GFLOP/s: exact floating-point operations of the step (two a multiply-add) over its median.",
    "OOM: out of memory; the data names the tensor, as observed and as predicted. error: the record has its text.",
]


def latency_rows(records: Sequence[Record], sweep: Iterable[Workload] | None = None) -> list[Fields]:
    """A row a run and device: median, spread, throughput, achieved FLOP/s; the GPU sweep's gaps as missing."""
    return [
        {"device": device, **columns_of(workload), **_row(record)}
        for device, workload, record in runs_on_devices(records, sweep)
    ]


def _row(record: LatencyRecord | None) -> Fields:
    if record is None:
        return {"verdict": MISSING, "note": ""}
    row: Fields = {"verdict": record.verdict}
    if record.verdict == "ok":
        low, median, high = quartiles(record.samples)
        parts, batch = record.parts, record.workload["batch"]
        row |= {"ms": 1e3 * median, "iqr_ms": 1e3 * (high - low), **percentiles_ms(record.samples)}
        row |= {"items_per_s": batch / median, "tokens_per_s": tokens_of(record.workload) / median}
        row |= {"tflop_per_s": parts["flops"] / median / 1e12, "n_samples": len(record.samples)}
        row["mfu"] = utilisation(record)
        row |= {"rejected": parts.get("rejected"), "others_share": parts.get("elsewhere")}
        row["joules_per_item"] = parts["joules"] / batch if "joules" in parts else None
    return row | {"note": record.note}


def quartiles(samples: Sequence[float]) -> tuple[float, float, float]:
    """The quartiles of raw samples, interpolated."""
    import numpy as np

    low, median, high = np.quantile(samples, [0.25, 0.5, 0.75])
    return float(low), float(median), float(high)


def percentiles_ms(samples: Sequence[float]) -> Fields:
    """The tails of raw samples in milliseconds, interpolated."""
    import numpy as np

    return {f"p{share}_ms": 1e3 * float(np.percentile(samples, share)) for share in (5, 95)}


def utilisation(record: LatencyRecord) -> float | None:
    """MFU: the exact operations of a step over what the device could do meanwhile; None without its data sheet.

    (PaLM, arXiv 2204.02311, appendix B.) float32 is of the FP32 units, which is what torch uses unless permitted more.
    """
    assert record.value is not None
    peak = peak_flops(record.get("device", ""), record.workload["dtype"])
    return record.parts["flops"] / record.value / peak if peak else None


def tokens_of(workload: Mapping[str, Any]) -> int:
    """Tokens of a batch: positions of all its images, or of all frames of its clips."""
    task = {name: workload[name] for name in TASK if name in workload}
    known = spec(workload["model"].partition("(")[0], **task)
    return int(workload["batch"] * max(1, workload.get("frames", 0)) * known.tokens(workload["resolution"]))


def latency_table(records: Sequence[Record], sweep: Iterable[Workload] | None = None) -> Table:
    """Latency, throughput and achieved FLOP/s by resolution, a set of grids a device that was measured.

    What a GPU has not answered of the sweep is named in a note; every run is a row of the data.
    """
    import pandas as pd

    rows = latency_rows(records, sweep)
    blocks = []
    for device in dict.fromkeys(row["device"] for row in rows if row["verdict"] != MISSING):
        here = [row for row in rows if row["device"] == device]
        blocks.append(by_resolution(known_lines((row, shown_time(row)) for row in here), f"Latency on {device}, ms"))
        if any(row["verdict"] == "ok" for row in here):
            unit, scale = ("TFLOP/s", 1) if is_gpu(device) else ("GFLOP/s", 1e3)
            for column, factor, caption in (
                ("items_per_s", 1, f"Throughput on {device}, images (or clips) a second"),
                ("tflop_per_s", scale, f"{unit} on {device}"),
            ):
                cells = known_lines((row, figure_of(row, factor * row.get(column, 0))) for row in here)
                blocks.append(by_resolution(cells, caption))
            blocks += crossing_block(measured(records)[device], device)
    notes = NOTES + missing_note(rows, "verdict", SWEEP_COMMAND)
    return Table("latency", "Latency and throughput by resolution, measured", pd.DataFrame(rows), blocks, notes)


def shown_time(row: Fields) -> str:
    """Median and half the interquartile range in milliseconds, to the second digit of the latter."""
    if row["verdict"] != "ok":
        return figure_of(row, None)
    median, error = row["ms"], row["iqr_ms"] / 2
    coarse = float(f"{error:.1e}")
    if coarse < 100:
        return f"{figure_of(row, median)} ± {error:.2g}"
    digit = math.floor(math.log10(coarse)) - 1  # the second that counts
    return f"{round(median, -digit):.0f} ± {round(error, -digit):.0f}"


def figure_of(row: Fields, value: float | None) -> str:
    if row["verdict"] != "ok" or value is None:
        return "OOM" if row["verdict"] == "oom" else row["verdict"]
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
