"""Does it fit: predicted peaks of memory, what they consist of, and what was measured of the same runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.core.records import Key, LatencyRecord, MemoryRecord, Record, latest, of_kind
from harness.report.hardware import columns_of, key_of
from harness.report.memory import CARDS
from harness.report.page import kinds

PARTS = ("weights", "optimizer and EMA", "gradients", "activations")
COLOURS = ("#7A8B99", "#E69F00", "#CC79A7", "#56B4E9")
"""Of the parts."""
LARGEST = "largest activation: "
"""What a predicted record's note begins with."""


def memory(records: Iterable[Record], places: Mapping[int, int]) -> dict[str, Any]:
    """Every predicted run, with its place among the records; the cards are in GiB, all else in bytes."""
    records = list(records)
    measured = _measured(records)
    predictions = latest(of_kind(records, MemoryRecord))
    return {
        "cards": CARDS,
        "parts": [{"part": part, "colour": colour} for part, colour in zip(PARTS, COLOURS, strict=True)],
        "runs": [
            {
                **columns_of(record.workload),
                "kind": kinds.of_model(str(record.get("model"))),
                "peak": record.value,
                "parts": {name: int(nbytes) for name, nbytes in record.parts.items()},
                "largest": record.note.removeprefix(LARGEST),
                "measured": measured.get(key, []),
                "record": places[id(record)],
            }
            for record in predictions.values()
            if record.value is not None
            for key in [key_of(record.workload)]
        ],
    }


def _measured(records: Iterable[Record]) -> dict[Key, list[dict[str, Any]]]:
    """Peaks that devices measured, by run."""
    found: dict[Key, list[dict[str, Any]]] = {}
    for record in latest(of_kind(records, LatencyRecord)).values():
        if record.verdict == "ok" and "peak_bytes" in record.parts:
            peak = {"device": record.workload["device"], "peak": int(record.parts["peak_bytes"])}
            found.setdefault(key_of(record.workload), []).append(peak)
    return found
