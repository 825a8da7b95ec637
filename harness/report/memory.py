"""Memory on hardware: the table of peak memory, predicted beside measured, against what cards have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.core.records import LatencyRecord, MemoryRecord, Record
from harness.core.workload import Workload
from harness.report.hardware import (
    MISSING,
    RUN,
    SWEEP_COMMAND,
    Fields,
    by_resolution,
    columns_of,
    key_of,
    known_lines,
    missing_note,
    predicted,
    runs_on_devices,
)
from harness.report.layout import Table

CARDS = (24, 40, 80, 141)
"""Memory of common cards in GiB: RTX 3090 and 4090, A100 40 GB, A100 and H100 80 GB, H200."""

PREDICT_COMMAND = "python -m harness.bench --predict --preset gpu-sweep"
GIB = 2**30
NOTES = [
    "Of a DiM in bfloat16 the prediction is unproven: on a CPU a small one takes up to a third more.",
    "Predicted: allocations of the real model, followed on fake tensors; weights, optimizer and EMA (training), "
    "gradients and activations. In brackets the smallest card, of 24, 40, 80 and 141 GiB, that it fits; OOM: none.",
    "Measured: torch's own peak on the device of the heading; OOM where the device ran out of memory.",
]


def memory_rows(records: Sequence[Record], sweep: Iterable[Workload] | None = None) -> list[Fields]:
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


def _predicted(known: MemoryRecord | None, record: LatencyRecord | None) -> Fields:
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


def _measured(record: LatencyRecord | None) -> Fields:
    if record is None or record.verdict != "ok":
        return {"measured": record.verdict if record else MISSING}
    peak, guess = record.parts["peak_bytes"], record.parts["predicted_bytes"]
    return {"measured": "ok", "measured_gib": peak / GIB, "measured_over_predicted": peak / guess}


def memory_table(records: Sequence[Record], sweep: Iterable[Workload] | None = None) -> Table:
    """Peak memory by resolution: measured on each device, and predicted, with the card that it fits.

    What a GPU has not answered of the sweep is named in a note; every run is a row of the data.
    """
    import pandas as pd

    rows = memory_rows(records, sweep)
    blocks = []
    for device in dict.fromkeys(row["device"] for row in rows if row["device"] and row["measured"] != MISSING):
        cells = known_lines((row, _peak(row)) for row in rows if row["device"] == device)
        blocks.append(by_resolution(cells, f"Measured peak on {device}, GiB"))
    once = {tuple(row[name] for name in RUN): row for row in rows}.values()
    cells = known_lines((row, _card(row["predicted_gib"])) for row in once)
    blocks += [by_resolution(cells, "Predicted peak, GiB [smallest card]")] if cells else []
    notes = NOTES + missing_note(rows, "measured", SWEEP_COMMAND)
    unpredicted = [{**row, "device": "", "predicted": MISSING} for row in once if row["predicted_gib"] is None]
    notes += [f"Not predicted, {note}" for note in missing_note(unpredicted, "predicted", PREDICT_COMMAND)]
    return Table("memory", "Peak memory by resolution, measured and predicted", pd.DataFrame(rows), blocks, notes)


def _card(gib: float | None) -> str:
    if gib is None:
        return MISSING
    return f"{gib:.2f} [{next((f'{card}' for card in CARDS if gib <= card), 'OOM')}]"


def _peak(row: Fields) -> str:
    if row["measured"] == "ok":
        return f"{row['measured_gib']:.2f}"
    return "OOM" if row["measured"] == "oom" else row["measured"]
