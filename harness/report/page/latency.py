"""How fast: what was measured, run by run, as the table of latency has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.core.records import Record
from harness.report.hardware import MISSING, SWEEP_COMMAND
from harness.report.latency import latency_rows
from harness.report.page import kinds


def latency(records: Iterable[Record]) -> dict[str, Any]:
    """Every measured run, and the command that measures more."""
    rows = [row for row in latency_rows(list(records), []) if row["verdict"] != MISSING]
    return {"command": SWEEP_COMMAND, "runs": [{**row, "kind": kinds.of_model(row["model"])} for row in rows]}
