"""How fast: what was measured, beside the least time that each step can take, and the floors of cards."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from harness.core.cards import card
from harness.core.records import Record
from harness.core.workload import CHOICES, Workload
from harness.report import floors
from harness.report.hardware import MISSING, SWEEP_COMMAND, Fields
from harness.report.latency import latency_rows
from harness.report.page import kinds
from harness.report.page.packing import packed
from models import counterpart, spec

RUN = (
    "device", "verdict", "model", "size", "kind", "rival", "resolution", "batch", "frames", "action", "precision",
    "mixer", "ms", "iqr_ms", "floor_ms", "binds", "items_per_s", "tflop_per_s", "mfu", "joules_per_item",
)  # fmt: skip
"""What is shown of a run, or of a floor."""
SAME = ("device", "model", "resolution", "batch", "action", "mixer")
"""What a measured step and its floor have in common, beside the arithmetic."""


def latency(records: Iterable[Record]) -> dict[str, Any]:
    """Every measured run with its floor, the floors of the cards of which data sheets are at hand, and a command."""
    records = list(records)
    below = {_key(row, row["arithmetic"]): row for row in floors.measured_fields(records)}
    runs = []
    for row in latency_rows(records, []):
        if row["verdict"] != MISSING:
            known = below.get(_key(row, row["dtype"]), {})
            runs.append({**row, **_of(row["model"]), "precision": row["dtype"], "floor_ms": known.get("floor_ms"),
                         "binds": known.get("binds")})  # fmt: skip
    return {"command": SWEEP_COMMAND, "runs": packed(runs, RUN), "floors": packed(_floors(), RUN)}


def _key(row: Fields, arithmetic: str) -> tuple[object, ...]:
    return (*(row[name] for name in SAME), arithmetic)


def _of(model: str) -> Fields:
    """How a model is drawn, and what it is compared with."""
    known = spec(model.partition("(")[0])
    rival = counterpart(known)
    return {"size": known.size, "kind": kinds.of_model(model), "rival": rival.name if rival else None}


def _floors() -> list[Fields]:
    """Of one image, as the table of floors has them."""
    steps = itertools.product(floors.ACTIONS, CHOICES["dtype"], floors.MODELS, floors.RESOLUTIONS)
    workloads = [Workload(spec=spec(m), resolution=px, action=action, dtype=dtype) for action, dtype, m, px in steps]
    rows = (line.fields() for line in floors.lines(workloads, map(card, floors.CARDS)))
    return [
        {"device": row["card"], "verdict": "floor", "precision": row["arithmetic"], "mixer": "", **_of(row["model"]),
         **{name: row[name] for name in ("model", "resolution", "batch", "frames", "action", "floor_ms", "binds")}}
        for row in rows
    ]  # fmt: skip
