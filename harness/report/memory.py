"""Memory on hardware: the table of peak memory, predicted beside measured, against what cards have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.core.capacity import GIB, MARGIN_BYTES
from harness.core.records import LatencyRecord, MemoryRecord, Record
from harness.core.workload import Workload
from harness.report.hardware import (
    MISSING,
    MIXER,
    RUN,
    SWEEP_COMMAND,
    Fields,
    by_resolution,
    columns_of,
    is_gpu,
    key_of,
    known_lines,
    measured,
    missing_note,
    predicted,
    runs_on_devices,
)
from harness.report.layout import Block, Table

CARDS = (24, 40, 80, 141)
"""Memory of common cards in GiB: RTX 3090 and 4090, A100 40 GB, A100 and H100 80 GB, H200."""

PREDICT_COMMAND = "python -m harness.bench --predict --preset memory --device-memory 80GiB"
RATIO_COMMAND = (
    "python -m harness.bench --model DiT-S/2 DiM-S/2 DiM-S/2-matched --res 256 --action train "
    "--operands recomputed kept"
)
NOTES = [
    "Predicted: allocations of the real model on a GPU, simulated with fake tensors: weights, optimizer and EMA "
    "(training), gradients and activations. In brackets the smallest card, of 24, 40, 80 and 141 GiB, that it fits; "
    f"OOM: it fits none of them. {MARGIN_BYTES / GIB:g} GiB of each card are reserved for the CUDA context, the "
    "libraries and the allocator.",
    "bfloat16 and weights: the weights of linear layers and convolutions are stored in bfloat16, too, and not cast.",
    MIXER,
    "Measured: torch's own peak on the device of the heading, in brackets over the predicted one; OOM where the device "
    "ran out of memory.",
]


def memory_rows(records: Sequence[Record], sweep: Iterable[Workload] | None = None) -> list[Fields]:
    """A row a run and device: the predicted peak, what it consists of, the measured peak, and their ratio; in GiB.

    Runs that were only predicted are rows without a device. Those on a CPU have the prediction for it, of their record.
    """
    predictions = predicted(records)
    rows, seen = [], set()
    for device, workload, record in runs_on_devices(records, sweep):
        seen |= {key_of(workload)} if is_gpu(device) else set()
        guess = _predicted(predictions.get(key_of(workload)) if is_gpu(device) else None, record)
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
        return {"measured": record.verdict if record else MISSING, "note": record.note if record else ""}
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
        here = [row for row in rows if row["device"] == device]
        cells = known_lines((row, _peak(row)) for row in here)
        blocks.append(by_resolution(cells, f"Measured peak on {device}, GiB (over the predicted peak)"))
        blocks += _ran_out(here, device)
    on_cards = [row for row in rows if not row["device"] or is_gpu(row["device"])]
    once = {tuple(row[name] for name in RUN): row for row in on_cards}.values()
    cells = known_lines((row, _card(row["predicted_gib"])) for row in once)
    blocks += [by_resolution(cells, "Predicted peak, GiB [smallest card]")] if cells else []
    notes = [*NOTES, *_agreement(rows), *_recomputation(records), *missing_note(rows, "measured", SWEEP_COMMAND)]
    unpredicted = [{**row, "device": "", "predicted": MISSING} for row in once if row["predicted_gib"] is None]
    notes += [f"Not predicted, {note}" for note in missing_note(unpredicted, "predicted", PREDICT_COMMAND)]
    return Table("memory", "Peak memory by resolution, measured and predicted", pd.DataFrame(rows), blocks, notes)


def _ran_out(rows: Iterable[Fields], device: str) -> list[Block]:
    """What ended each run that ran out of memory, as observed and as predicted; none where none did."""
    lines = []
    for row in rows:
        if row["measured"] == "oom":
            met, _, foreseen = row["note"].removeprefix("met: ").partition("; predicted: ")
            needed = f"{row['predicted_gib']:.2f}" if row["predicted_gib"] else MISSING
            lines.append([row["model"], str(row["resolution"]), row["action"], needed, met, foreseen])
    header = ["model", "px", "run", "predicted, GiB", "failed allocation", "predicted outcome"]
    return [Block(header, lines, f"Out of memory on {device}")] if lines else []


def _agreement(rows: Iterable[Fields]) -> list[str]:
    """How far the measured peaks on each device are from their predictions."""
    ratios: dict[str, list[float]] = {}
    for row in rows:
        if row["measured"] == "ok":
            ratios.setdefault(row["device"], []).append(row["measured_over_predicted"])
    return [
        f"Measured over predicted on {device}: {min(found):.3f} to {max(found):.3f} in {len(found)} runs."
        for device, found in ratios.items()
    ]


def _recomputation(records: Sequence[Record]) -> list[str]:
    """What it costs in time to make the operands of scans again, where something is known of runs that keep them."""
    if not any(record.get("operands") == "kept" for record in records):
        return []
    ratios: dict[str, list[float]] = {}
    for device, found in measured(records).items():
        steps = {key_of(record.workload): record for record in found}
        for kept in (record for record in found if record.get("operands") == "kept"):
            usual = {name: value for name, value in kept.workload.items() if name != "operands"}
            twin = steps.get(key_of(usual))
            if twin and twin.value and kept.value:
                ratios.setdefault(device, []).append(twin.value / kept.value)
    ends = {device: dict.fromkeys((f"{min(all_):.3f}", f"{max(all_):.3f}")) for device, all_ in ratios.items()}
    times = [f"{' to '.join(both)} on {device} ({len(ratios[device])} x measured)" for device, both in ends.items()]
    known = f"is {'; '.join(times)}" if times else f"is not measured: `{RATIO_COMMAND}`"
    return [
        "operands kept: the operands of DiM's scans are stored for the backward pass; otherwise they are recomputed. "
        f"The time of a training step that recomputes them, over one that stores them, {known}."
    ]


def _card(gib: float | None) -> str:
    if gib is None:
        return MISSING
    needed = gib + MARGIN_BYTES / GIB
    return f"{gib:.2f} [{next((f'{card}' for card in CARDS if needed <= card), 'OOM')}]"


def _peak(row: Fields) -> str:
    if row["measured"] == "ok":
        return f"{row['measured_gib']:.2f} ({row['measured_over_predicted']:.3f})"
    return "OOM" if row["measured"] == "oom" else row["measured"]
