"""Where each number comes from: every record with its file and line, its commit, command and hashes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from harness.core.records import Record
from harness.report.page.packing import packed
from harness.report.recorded import RecordsFile

COLUMNS = ("file", "line", "quantity", "of", "value", "unit", "method", "commit", "command", "hash")
SHOWN = ("convention", "input", "action", "dtype", "device")
"""Fields of the question that say what a record is of, by their value alone."""
NAMED = ("against", "step")
"""The same, by their name, too."""
DIGITS = 12
"""Of a hash or a commit."""


def places(files: Iterable[RecordsFile]) -> dict[int, int]:
    """The place of each record among the rows of `origins`, by the identity of the object."""
    records = (record for file in files for record in file.lines.values())
    return {id(record): place for place, record in enumerate(records)}


def origins(files: Sequence[RecordsFile]) -> dict[str, Any]:
    """The files with their digests, and a row a record."""
    rows = [_row(file.name, line, record) for file in files for line, record in file.lines.items()]
    about = [{"name": file.name, "sha256": file.sha256, "records": len(file.lines)} for file in files]
    return {"files": about, "records": packed(rows, COLUMNS)}


def _row(file: str, line: int, record: Record) -> dict[str, Any]:
    origin = record.provenance
    commit = "unknown" if origin.commit is None else origin.commit[:DIGITS] + (" (edited)" if origin.dirty else "")
    return {
        "file": file, "line": line, "quantity": record.quantity, "of": of(record), "value": record.value,
        "unit": record.verdict if record.value is None else record.unit, "method": record.method, "commit": commit,
        "command": origin.command, "hash": _hashes(record),
    }  # fmt: skip


def of(record: Record) -> str:
    """What a record is of, in a few words."""
    words = [str(record.get("model", ""))]
    words += [f"{record.get('resolution')} px"] if record.get("resolution") else []
    words += [str(record.get(name)) for name in SHOWN if record.get(name) is not None]
    words += [f"{name} {record.get(name)}" for name in NAMED if record.get(name) is not None]
    training = record.get("training")
    words += [f"seed {training['seed']}"] if isinstance(training, dict) and "seed" in training else []
    return ", ".join(filter(None, words))


def _hashes(record: Record) -> str:
    """Digests of the weights and of the samples, where the record states them."""
    source, samples = record.get("source_identity"), record.get("samples_sha256")
    weights = source.get("sha256") if isinstance(source, dict) else None
    found = {"weights": weights, "samples": samples}
    return ", ".join(f"{what} {str(digest)[:DIGITS]}" for what, digest in found.items() if digest)
