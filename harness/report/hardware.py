"""Runs on hardware as rows: what a record of time or memory is of, and which runs nobody has measured yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from harness.core.records import TASK, Key, LatencyRecord, MemoryRecord, Record, latest, of_kind
from harness.core.workload import CHOICES, Workload, preset
from harness.report.layout import Block
from models import catalogue, spec
from models.families import implementations

SWEEP = "gpu-sweep"
SWEEP_COMMAND = f"python -m harness.bench --preset {SWEEP}"
ANY_GPU = "any CUDA GPU"
MISSING = "missing"
Fields = dict[str, Any]
MIXER = (
    "mixer: sdpa attention is torch's `scaled_dot_product_attention`, naive attention stores all scores; auto scan is "
    "the fastest scan backend that runs on the device, naive scan is portable torch code."
)
RUN = ("model", "resolution", "batch", "frames", "action", "dtype", "mixer", "checkpointing")
"""Columns that say what was run."""


def key_of(workload: Mapping[str, Any]) -> Key:
    """What was run, whatever it was run on: the key of a predicted peak of the same workload."""
    return MemoryRecord.key_of("peak_memory", workload)


def columns_of(workload: Mapping[str, Any]) -> Fields:
    """The same as columns of a table."""
    run = [ways.words(workload[name]) for name, ways in implementations().items() if workload.get(name)]
    kept = ["operands kept"] if workload.get("operands") == "kept" else []
    mixer = ", ".join(run[:1] + kept)
    stated = {"frames": 0, "checkpointing": False, **workload, "mixer": mixer}
    if workload.get("weights") == "bfloat16":
        stated["dtype"] = "bfloat16 and weights"
    return {name: stated[name] for name in RUN}


def is_gpu(device: str) -> bool:
    return not device.startswith("cpu")


def measured(records: Iterable[Record]) -> dict[str, list[LatencyRecord]]:
    """The latest record of each run, by device, GPUs first, then by size, action and resolution.

    An error stands only where nothing better was recorded. Steps of a suite's models, which learn another task than
    ImageNet's latents, are no rows of hardware.
    """
    found: dict[Key, LatencyRecord] = {}
    for record in of_kind(records, LatencyRecord):
        if any(name in record.workload for name in TASK):
            continue
        if record.verdict != "error" or found.get(record.key(), record).verdict == "error":
            found[record.key()] = record
    names = dict.fromkeys(record.workload["device"] for record in found.values())
    devices = sorted(names, key=lambda name: (not is_gpu(name), name))
    runs = sorted(found.values(), key=_place)
    return {device: [r for r in runs if r.workload["device"] == device] for device in devices}


def _place(record: LatencyRecord) -> tuple[int, int, int]:
    """Width, action and resolution; models of a user's own come first."""
    model, action = record.workload["model"].partition("(")[0], record.workload["action"]
    width = spec(model).width if model in catalogue() else 0
    return width, CHOICES["action"].index(action), record.workload["resolution"]


def runs_on_devices(
    records: Iterable[Record], sweep: Iterable[Workload] | None = None
) -> Iterator[tuple[str, Mapping[str, Any], LatencyRecord | None]]:
    """Device, workload and record of each run; None for a run of the sweep that a GPU has not answered.

    `sweep` are the workloads that a GPU is expected to answer (default: the GPU sweep's). Where no GPU was measured,
    all of them are missing on "any CUDA GPU".
    """
    expected = [w.settings() for w in (preset(SWEEP) if sweep is None else sweep)]
    found = measured(records)
    gpus = [device for device in found if is_gpu(device)] or [ANY_GPU]
    for device in dict.fromkeys([*gpus, *found]):
        have = {key_of(record.workload): record for record in found.get(device, [])}
        for workload in expected if is_gpu(device) else []:
            yield device, workload, have.pop(key_of(workload), None)
        for record in have.values():
            yield device, record.workload, record


def predicted(records: Iterable[Record]) -> dict[Key, MemoryRecord]:
    """The latest prediction of each run."""
    return latest(of_kind(records, MemoryRecord))


def known_lines(rows: Iterable[tuple[Fields, str]]) -> list[tuple[Fields, str]]:
    """Rows with their cells, without those lines of a grid of which nothing is known."""
    rows = list(rows)
    known = {_line(row) for row, cell in rows if cell != MISSING}
    return [(row, cell) for row, cell in rows if _line(row) in known]


def missing_note(rows: Iterable[Fields], column: str, command: str) -> list[str]:
    """In a sentence, which runs are `missing` in a column; none where none is."""
    lacking = [row for row in rows if row[column] == MISSING]
    if not lacking:
        return []
    columns = ("device", "model", "action", "dtype")
    device, models, actions, dtypes = (", ".join(dict.fromkeys(row[name] for row in lacking)) for name in columns)
    pixels = sorted({row["resolution"] for row in lacking})
    where = f" on {device}" if device else ""
    return [
        f"{MISSING}{where}: {len(lacking)} runs ({models}; {actions}; {dtypes}; {pixels[0]} to {pixels[-1]} px): "
        f"`{command}` measures them."
    ]


def by_resolution(rows: list[tuple[Fields, str]], caption: str) -> Block:
    """Cells in a grid: a line a model and way of running it, a column a resolution."""
    columns = sorted({row["resolution"] for row, _ in rows})
    lines: dict[tuple[str, ...], dict[int, str]] = {}
    for row, cell in rows:
        lines.setdefault(_line(row), {})[row["resolution"]] = cell
    header = ["model", "batch", "run", "dtype", "mixer", *(f"{pixels} px" for pixels in columns)]
    return Block(header, [[*line, *(cells.get(c, "") for c in columns)] for line, cells in lines.items()], caption)


def _line(row: Fields) -> tuple[str, ...]:
    """The cells of a grid that say what its line is of."""
    how = ", ".join(filter(None, (row["mixer"], "checkpointing" if row["checkpointing"] else "")))
    batch = f"{row['batch']} of {row['frames']} frames" if row["frames"] else str(row["batch"])
    return str(row["model"]), batch, row["action"], row["dtype"], how
