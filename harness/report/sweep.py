"""A sweep of harness.bench as rows for a terminal: what was run, and its memory or its time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.core import store
from harness.core.records import LatencyRecord
from harness.report.hardware import Fields, columns_of
from harness.report.latency import quartiles, tokens_of, utilisation

GIB = 2**30


def label(workload: Mapping[str, Any]) -> Fields:
    """What was run, in a few columns."""
    run = columns_of(workload)
    how = [run["action"], run["dtype"], run["mixer"], "checkpointing" if run["checkpointing"] else ""]
    return {"model": run["model"], "px": run["resolution"], "batch": run["batch"], "run": ", ".join(filter(None, how))}


def compared_rows(before: Path, after: Path) -> list[Fields]:
    """What changed between two files of latencies, beyond the noise. Raises ValueError as `compare` does."""
    for path in (before, after):
        if not path.is_file():
            raise ValueError(f"no records at {path}")
    from harness.cost.compare import compare

    return compare(store.load(before), store.load(after))


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
