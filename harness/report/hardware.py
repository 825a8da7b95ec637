"""Runs on hardware as rows: what a record of time or memory is of, and which runs nobody has measured yet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from harness.core.workload import Workload, preset
from harness.report.layout import Block
from models.families import implementations

SWEEP = "gpu-sweep"
SWEEP_COMMAND = f"python -m harness.bench --preset {SWEEP}"
ANY_GPU = "any CUDA GPU"
MISSING = "missing"
Row = dict[str, Any]


def key_of(record: Row) -> Row:
    """What was run, of a record of `latency` or `peak_memory`, of `Workload.settings()`, or of a row made by this."""
    run = ((ways, record.get(field)) for field, ways in implementations().items())
    named = (ways.words(name) for ways, name in run if isinstance(name, str))  # a frame with gaps has NaN
    mixer = record["mixer"] if isinstance(record.get("mixer"), str) else next(named, "")
    counts = {"resolution": int(record["resolution"]), "batch": int(record["batch"])}  # a frame with gaps has floats
    how = {"action": record["action"], "dtype": record["dtype"], "mixer": mixer}
    frames = record.get("frames", 0)
    clip = {"frames": int(frames) if frames > 0 else 0}  # of images there are none, which a frame of records has as NaN
    return {"model": record["model"], **counts, **clip, **how, "checkpointing": bool(record["checkpointing"])}


def sweep_keys(workloads: Iterable[Workload] | None = None) -> list[Row]:
    """The runs of the GPU sweep, or of other workloads, as `key_of` gives them."""
    return [key_of(w.settings()) for w in (preset(SWEEP) if workloads is None else workloads)]


def is_gpu(device: str) -> bool:
    return not device.startswith("cpu")


def measured(records: pd.DataFrame) -> dict[str, list[Row]]:
    """The latest record of each run, by device, GPUs first; an error stands only where nothing better was recorded."""
    latest: dict[tuple[str, str], Row] = {}
    for record in _of(records, "latency"):
        known = (record["device"], str(key_of(record)))
        if record["verdict"] != "error" or latest.get(known, record)["verdict"] == "error":
            latest[known] = record
    devices = dict.fromkeys(sorted((device for device, _ in latest), key=lambda name: (not is_gpu(name), name)))
    return {device: [row for (where, _), row in latest.items() if where == device] for device in devices}


def with_missing(found: dict[str, list[Row]], asked: list[Row]) -> dict[str, list[Row]]:
    """`measured`, and a record of verdict `missing` for each run of the sweep that a GPU has not answered.

    Where no GPU has been measured, all of them are missing on "any CUDA GPU".
    """
    gpus = [device for device in found if is_gpu(device)] or [ANY_GPU]
    filled = {}
    for device in gpus:
        have = {str(key_of(row)): row for row in found.get(device, [])}
        rows = [have.pop(str(key), {**key, "device": device, "verdict": MISSING}) for key in asked]
        filled[device] = rows + list(have.values())
    return filled | {device: rows for device, rows in found.items() if device not in filled}


def predicted(records: pd.DataFrame) -> dict[str, Row]:
    """The latest prediction of each run, by its key as text."""
    return {str(key_of(record)): record for record in _of(records, "peak_memory")}


def _of(records: pd.DataFrame, quantity: str) -> list[Row]:
    return records[records["quantity"] == quantity].to_dict("records") if len(records) else []


def by_resolution(rows: list[tuple[Row, str]], caption: str) -> Block:
    """Cells in a grid: a line a model and way of running it, a column a resolution."""
    columns = sorted({key["resolution"] for key, _ in rows})
    lines: dict[tuple[str, ...], dict[int, str]] = {}
    for key, cell in rows:
        how = ", ".join(filter(None, (key["mixer"], "checkpointing" if key["checkpointing"] else "")))
        batch = f"{key['batch']} of {key['frames']} frames" if key["frames"] else str(key["batch"])
        line = (str(key["model"]), batch, key["action"], key["dtype"], how)
        lines.setdefault(line, {})[key["resolution"]] = cell
    header = ["model", "batch", "run", "dtype", "mixer", *(f"{pixels} px" for pixels in columns)]
    return Block(header, [[*line, *(cells.get(c, "") for c in columns)] for line, cells in lines.items()], caption)
