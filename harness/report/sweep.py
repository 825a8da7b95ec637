"""A sweep of harness.bench as rows for a terminal: what was run, and its memory or its time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

from harness.core import store
from harness.core.formats import render
from harness.core.records import LatencyRecord
from harness.report.hardware import Fields, columns_of
from harness.report.latency import quartiles, tokens_of, utilisation

GIB = 2**30
FIRST, ANSWER = ("model", "resolution"), ("before ms", "after ms", "ratio", "99% interval", "change")
"""What a comparison begins with, and what it says of each row."""


def label(workload: Mapping[str, Any]) -> Fields:
    """What was run, in a few columns."""
    run = columns_of(workload)
    how = [run["action"], run["dtype"], run["mixer"], "checkpointing" if run["checkpointing"] else ""]
    return {"model": run["model"], "px": run["resolution"], "batch": run["batch"], "run": ", ".join(filter(None, how))}


def compared_text(before: Path, after: Path, style: str) -> str:
    """What changed between two files of latencies, beyond the noise; for reading, what all rows share in a line.

    Raises ValueError as `compare` does.
    """
    for path in (before, after):
        if not path.is_file():
            raise ValueError(f"no records at {path}")
    from harness.cost.compare import compare

    rows = compare(store.load(before), store.load(after))
    if style not in ("table", "markdown"):
        return render(rows, style)
    question = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in ANSWER]
    shared = {n: rows[0].get(n) for n in question if n not in FIRST and len({row.get(n) for row in rows}) == 1}
    order = [*FIRST, *ANSWER, *(name for name in question if name not in (*FIRST, *shared))]
    shown = [{name: row[name] for name in order if name in row} for row in rows]
    said = fill(f"Of all: {', '.join(f'{name} {value}' for name, value in shared.items())}.", 80) if shared else ""
    return "\n\n".join(filter(None, (said, render(shown, style))))


def measured_rows(records: Iterable[LatencyRecord], steps: int) -> list[Fields]:
    """Measured workloads, a row each; `steps` are those of a full sample."""
    return [_measured(record, steps) for record in records]


def _measured(record: LatencyRecord, steps: int) -> Fields:
    """Median and spread, throughput, achieved FLOP/s, memory beside its prediction."""
    row = label(record.workload) | {"verdict": record.verdict}
    if record.verdict != "ok":
        return row | {"note": record.note}
    parts, batch = record.parts, record.workload["batch"]
    unit = "clip" if record.get("frames") else "image"
    quarter, median, three_quarters = quartiles(record.samples)
    row |= {"ms": 1e3 * median, "IQR ms": 1e3 * (three_quarters - quarter), "samples": len(record.samples)}
    row |= {f"{unit}s/s": batch / median, "tokens/s": tokens_of(record.workload) / median}
    if record.get("action") == "sample":
        row["full samples/s"] = batch / (steps * median)
    row |= {"TFLOP/s": parts["flops"] / median / 1e12, "peak GiB": parts["peak_bytes"] / GIB}
    row["predicted GiB"] = parts["predicted_bytes"] / GIB
    row |= {"MFU": mfu} if (mfu := utilisation(record)) else {}
    return row | ({f"J/{unit}": parts["joules"] / batch} if "joules" in parts else {})
