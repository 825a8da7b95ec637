"""A user's own scores as rows: those that follow a table's protocol; the others are named with what differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness.core import store
from harness.core.paper import TableSpec
from harness.core.records import Record, ScoreRecord, of_kind
from harness.cost import Cost, analytic
from harness.report import protocol
from harness.report.cells import COLUMNS, MISSING, Cell, cell_of
from harness.report.lines import Line
from harness.suites.run import task_spec

HOW = {"step": " at {:,} steps", "sampling.cfg_scale": ", guidance {:g}"}
"""What a field in which the rows of a table differ adds to the name of a user's row."""


def included(names: Iterable[str], records: Iterable[Record], mine: Iterable[Record] = ()) -> list[ScoreRecord]:
    """A user's own records: of files (.jsonl), or of a model or source by name, among `mine`, else among `records`.

    Raises ValueError for a file that is not there and for a name that no evaluation has.
    """
    pools = [[one for one in of_kind(several, ScoreRecord) if one.get("metric")] for several in (mine, records)]
    found: list[ScoreRecord] = []
    for name in names:
        if name.endswith(".jsonl"):
            if not Path(name).is_file():
                raise ValueError(f"no records at {name}")
            scores = of_kind(store.load(Path(name)), ScoreRecord)
            if not scores:
                raise ValueError(f"no valid score in {name}: harness.eval --records writes such a file")
            found += scores
            continue
        named = ([r for r in pool if name in (r.get("model"), r.get("source"))] for pool in pools)
        chosen = next(filter(None, named), [])
        if not chosen:
            raise ValueError(f"no evaluation of {name!r} among the records: give a .jsonl, a model or a source")
        found += chosen
    return found


def fitting(
    table: TableSpec, records: Iterable[ScoreRecord], columns: Sequence[str], shared: protocol.Values
) -> tuple[list[ScoreRecord], list[str]]:
    """Those of a user's records that follow a table's protocol, and a line for each checkpoint of which some do not.

    Only quantities that the table has columns of are looked at. What no record has fixed so far the first one fixes,
    in `shared`.
    """
    quantities = {quantity for column in columns for quantity in COLUMNS[column][0]}
    fit: list[ScoreRecord] = []
    unlike: dict[str, list[str]] = {}
    for record in records:
        if record.quantity not in quantities or not record.get("metric") or record.value is None:
            continue
        difference = protocol.difference(table, record, shared)
        if difference:
            unlike.setdefault(name_of(record), []).append(difference)
        else:
            protocol.join(table, record, shared)
            fit.append(record)
    return fit, [f"left out: {name}: {'; '.join(dict.fromkeys(several))}." for name, several in unlike.items()]


def included_lines(
    table: TableSpec, records: Iterable[ScoreRecord], columns: Sequence[str], beside: Sequence[Line]
) -> list[Line]:
    """Rows of a user's own records, `beside` a suite's: one a checkpoint, step, guidance and average, the latest.

    The decay of an average is named where several of one checkpoint are scored.
    """
    marks = {c: {line.cells[c].mark for line in beside if c in line.cells} for c in columns}
    absent = {c: Cell(mark="unsupported" if marks[c] == {"unsupported"} else MISSING) for c in columns}
    lines: dict[str, dict[object, dict[str, ScoreRecord]]] = {}
    for record in records:
        decay = (record.get("training") or {}).get("ema_decay")
        for column in columns:
            if record.quantity in COLUMNS[column][0]:
                label = name_of(record) + _how(table, record)
                lines.setdefault(label, {}).setdefault(decay, {})[column] = record
    return [
        _line(f"{label}{f', EMA decay {decay}' if len(averages) > 1 else ''}, yours", cells, absent)
        for label, averages in lines.items()
        for decay, cells in averages.items()
    ]


def _line(label: str, records: Mapping[str, ScoreRecord], absent: Mapping[str, Cell]) -> Line:
    """One row, with the exact cost of the model where the records state which one was scored."""
    cost = _cost(next(iter(records.values())))
    return Line(
        label,
        cells={**absent, **{column: cell_of([record], record.quantity) for column, record in records.items()}},
        records=tuple(records.values()),
        params_m=cost.params / 1e6 if cost else None,
        gmacs=cost.gmacs if cost else None,
    )


def _cost(record: ScoreRecord) -> Cost | None:
    """The exact cost of what was scored; None where its training is not stated, or no family has the model.

    A bare state dict's record states neither classes nor channels, on which parameters depend.
    """
    training = record.get("training") or {}
    try:
        model = task_spec(
            str(record.get("model")), str(training.get("dataset")), str(training["autoencoder"]).partition("#")[0],
            {name: training[name] for name in ("num_classes", "depth", "frames") if training.get(name)},
        )  # fmt: skip
        return analytic(model, training["resolution"])
    except (KeyError, ValueError):
        return None


def name_of(record: ScoreRecord) -> str:
    """What was scored, by its source and model."""
    source, model = record.get("source"), record.get("model")
    return f"{source} ({model})" if source and model else str(source or model)


def _how(table: TableSpec, record: ScoreRecord) -> str:
    """What sets this row apart from others of the same checkpoint."""
    fields = protocol.fields(record)
    stated = {name: fields.get(name) for name in HOW if name in table.varies}
    return "".join(HOW[name].format(value) for name, value in stated.items() if value is not None)
