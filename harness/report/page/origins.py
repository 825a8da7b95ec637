"""Where each number comes from: every record with its file and line, its commit, command and hashes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from harness.core.records import Record
from harness.report.recorded import RecordsFile

COLUMNS = ("record", "quantity", "of", "value", "unit", "method", "commit", "command", "hash")
SHOWN = ("convention", "input", "action", "dtype", "step", "device", "against")
"""Fields of the question, beside model, resolution and seed, that say what a record is of."""
DIGITS = 12
"""Of a hash or a commit."""


def places(files: Iterable[RecordsFile]) -> dict[int, str]:
    """Where each record stands, as `file:line`, by the identity of the object."""
    return {id(record): f"{file.name}:{number}" for file in files for number, record in file.lines.items()}


def origins(files: Sequence[RecordsFile]) -> dict[str, Any]:
    """The files with their digests, and a row a record; methods, commits and commands are given by number."""
    rows = [_row(f"{place}", record) for file in files for place, record in _placed(file)]
    texts: dict[str, list[str]] = {}
    for column in ("method", "commit", "command"):
        at = COLUMNS.index(column)
        texts[column] = list(dict.fromkeys(row[at] for row in rows))
        numbers = {text: number for number, text in enumerate(texts[column])}
        for row in rows:
            row[at] = numbers[row[at]]
    return {
        "files": [{"name": file.name, "sha256": file.sha256, "records": len(file.lines)} for file in files],
        "columns": COLUMNS,
        "texts": texts,
        "rows": rows,
    }


def _placed(file: RecordsFile) -> Iterable[tuple[str, Record]]:
    return ((f"{file.name}:{number}", record) for number, record in file.lines.items())


def _row(place: str, record: Record) -> list[Any]:
    origin = record.provenance
    commit = "unknown" if origin.commit is None else origin.commit[:DIGITS] + (" (edited)" if origin.dirty else "")
    value = record.verdict if record.value is None else record.value
    hashes = _hashes(record)
    return [place, record.quantity, of(record), value, record.unit, record.method, commit, origin.command, hashes]


def of(record: Record) -> str:
    """What a record is of, in a few words."""
    words = [str(record.get("model", ""))]
    words += [f"{record.get('resolution')} px"] if record.get("resolution") else []
    words += [f"{name} {record.get(name)}" for name in SHOWN if record.get(name) is not None]
    training = record.get("training")
    words += [f"seed {training['seed']}"] if isinstance(training, dict) and "seed" in training else []
    return ", ".join(filter(None, words))


def _hashes(record: Record) -> str:
    """Digests of the weights and of the samples, where the record states them."""
    source, samples = record.get("source_identity"), record.get("samples_sha256")
    weights = source.get("sha256") if isinstance(source, dict) else None
    found = {"weights": weights, "samples": samples}
    return ", ".join(f"{what} {str(digest)[:DIGITS]}" for what, digest in found.items() if digest)
