"""Costs from the records: a row a model and question, and the paper's efficiency tables rebuilt beside the printed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from harness.core.paper import BASELINE, COST_TABLES, TABLES
from harness.core.records import CostRecord, Key, Record, latest, of_kind
from harness.cost import CONVENTIONS, measure, workloads_of_tables
from harness.cost.published import agrees, published_costs
from harness.report.layout import Block, Table, as_block
from models import counterpart, spec

if TYPE_CHECKING:
    import pandas as pd

RECOUNTED = {"published_params_m": "paper_params_m", "published_gflops": "paper_gmacs"}
"""Columns of the paper, and those that count the same under its convention."""

Fields = dict[str, Any]


def costs(records: Iterable[Record]) -> list[Fields]:
    """One row a model and question: parameters, exact GMACs by kind, each convention's figure, the published ones.

    Figures are in 10^9 of their unit, which the name ends in; parameters in 10^6. Of two records of one question the
    later counts. A convention that fixes a batch of its own stands beside every batch of its model and resolution.
    """
    rows: dict[Key, Fields] = {}
    fixed: dict[Key, Fields] = {}
    for record in latest(of_kind(records, CostRecord)).values():
        if record.quantity == "crossover":
            continue
        convention = CONVENTIONS.get(str(record.get("convention")))
        if convention and convention.batch:
            if record.get("batch") == convention.batch:
                fixed.setdefault(_question(record, "convention", "batch"), {}).update(_figures(record))
            continue
        row = rows.setdefault(_question(record, "convention"), _first_columns(record))
        row |= _figures(record)
    printed = published_costs()
    for key, row in rows.items():
        row |= fixed.get(tuple(pair for pair in key if pair[0] != "batch"), {})
        row |= printed.get((row["model"], row.get("resolution", 0)), {}) if "batch" not in row else {}
        for ours, theirs in (("paper_gmacs", "published_gflops"), ("paper_params_m", "published_params_m")):
            if ours in row and theirs in row:
                row[theirs.removeprefix("published_") + "_match"] = agrees(row[ours], row[theirs])
    return list(rows.values())


def _question(record: CostRecord, *without: str) -> Key:
    """What a row is of: the record's key, apart from its quantity and those fields."""
    return tuple(pair for pair in record.key() if pair[0] not in ("quantity", *without))


def _first_columns(record: CostRecord) -> Fields:
    """Model, resolution or shapes of the inputs; frames of a clip; the batch where it is not one."""
    row = {"model": record.get("model")}
    row |= {name: record.get(name) for name in ("input", "resolution") if record.get(name) is not None}
    row |= {"frames": record.get("frames")} if record.get("frames") else {}
    return row | ({"batch": record.get("batch")} if record.get("batch", 1) != 1 else {})


def _figures(record: CostRecord) -> Fields:
    """The columns that a record fills."""
    assert record.value is not None
    name = str(record.get("convention"))
    if record.quantity == "params":
        return {"params_m" if name == "exact" else f"{name}_params_m": record.value / 1e6}
    if record.quantity == "elementwise":
        return {"elementwise_g": record.value / 1e9}
    row: Fields = {name + ("_gflops" if record.unit == "FLOP" else "_gmacs"): record.value / 1e9}
    row |= {f"{name}_method": record.method, f"{name}_omits": ", ".join(record.omitted)}
    row[f"{name}_omits_share"] = sum(record.omitted.values())
    row |= {f"{kind}_gmacs": macs / 1e9 for kind, macs in record.parts.items()}
    return row | ({"note": record.note} if record.note else {})


def count_tables(numbers: Iterable[int]) -> list[CostRecord]:
    """The cells of the paper's efficiency tables, counted anew under every convention."""
    chosen = list(numbers)
    if not chosen:
        return []
    return measure(workloads_of_tables(chosen), list(CONVENTIONS.values()))


def single_images(records: Iterable[Record]) -> dict[tuple[str, int], Fields]:
    """The rows of one image or clip a forward pass, by model and resolution."""
    alone = [row for row in costs(records) if "resolution" in row and "batch" not in row]
    return {(row["model"], row["resolution"]): row for row in alone}


def table(number: int, records: Iterable[Record]) -> pd.DataFrame:
    """An efficiency table of the paper (4, 5 or 6): as printed, under the paper's convention, and exact.

    `vs_dit` columns divide by the exact figure of the DiT of the same size, patch and resolution. Raises ValueError for
    another table, and for records that lack a cell, naming it.
    """
    import pandas as pd

    if number not in COST_TABLES:
        raise ValueError(f"table {number} has no costs; choose from {', '.join(map(str, COST_TABLES))}")
    known = single_images(records)
    rows = []
    for (model, resolution), cell in published_costs(number).items():
        rival = rival_of(model) or model
        needed = {rival: ["params_m", "exact_gmacs"]}
        needed[model] = ["params_m", "exact_gmacs", "flops_gflops", *(RECOUNTED[theirs] for theirs in cell)]
        for name, columns in needed.items():
            lacking = [column for column in columns if column not in known.get((name, resolution), {})]
            if lacking:
                raise ValueError(f"table {number}: no record of {name} at {resolution} px ({', '.join(lacking)})")
        ours, dit = known[model, resolution], known[rival, resolution]
        row: Fields = {"model": model, "resolution": resolution}
        for theirs, under_paper in RECOUNTED.items():
            if theirs in cell:
                match = agrees(ours[under_paper], str(cell[theirs]))
                mark = "-" if match is None else "yes" if match else "NO"
                row |= {
                    theirs: cell[theirs],
                    under_paper: ours[under_paper],
                    theirs.removeprefix("published_") + "_match": mark,
                }
        for exact in ("params_m", "exact_gmacs"):
            row |= {exact: ours[exact], exact + "_vs_dit": round(ours[exact] / dit[exact], 3)}
        row["flops_gflops"] = ours["flops_gflops"]
        rows.append(row)
    return pd.DataFrame(rows)


PRINTED, RECOUNT, EXACT = "printed", "thop, 3 images", "exact"
HEADINGS: dict[str, tuple[str, str]] = {
    "model": ("", "model"), "resolution": ("", "px"),
    "published_params_m": (PRINTED, "params (M)"), "published_gflops": (PRINTED, "Gflops"),
    "paper_params_m": (RECOUNT, "params (M)"), "params_m_match": ("", "params as printed?"),
    "paper_gmacs": (RECOUNT, "GMAC"), "gflops_match": ("", "Gflops as printed?"),
    "params_m": (EXACT, "params (M)"), "params_m_vs_dit": (EXACT, f"params / {BASELINE}'s"),
    "exact_gmacs": (EXACT, "GMAC"), "exact_gmacs_vs_dit": (EXACT, f"GMAC / {BASELINE}'s"),
}  # fmt: skip
"""Columns of `table` that are read, under which heading, in their order; a GFLOP is twice a GMAC."""


def table_notes(number: int) -> list[str]:
    """What the columns of a cost table mean, a sentence each."""
    notes = [
        "thop, 3 images: what the tool thop counts on a batch of three images, in 10^9 multiply-adds and 10^6 "
        "parameters; as printed: equal to the printed figure, at its precision ('-' where the paper prints no number).",
        "exact: all parameters, and all multiply-adds of one image (1 GMAC is 2 GFLOP); "
        f"/ {BASELINE}'s: divided by the figure of the {BASELINE} of that size, patch and resolution.",
    ]
    if any(cell.get("published_gflops") == "OOM" for cell in published_costs(number).values()):
        notes.append(
            "OOM: the paper ran out of memory where it ran DiT; a count needs no memory, and the same convention gives "
            "the figure beside it."
        )
    return notes


def _block(data: pd.DataFrame) -> Block:
    """The columns that are read, under their headings."""
    shown = {name: heading for name, heading in HEADINGS.items() if name in data}
    cells = as_block(data[list(shown)])
    groups = [(text, len(list(several))) for text, several in itertools.groupby(text for text, _ in shown.values())]
    return Block([name for _, name in shown.values()], cells.rows, groups=groups)


def cost_table(number: int, records: Iterable[Record]) -> Table:
    """`table`, to be shown: with what its columns mean. Raises ValueError as `table` does."""
    data = table(number, records)
    title, name = TABLES[number].costs_title, f"{TABLES[number].part}_cost"
    return Table(name, title, data, [_block(data)], table_notes(number), claim=_claim(data))


def rival_of(model: str) -> str | None:
    """The name of the model that one is compared with, by their public names; None where its family has none."""
    rival = counterpart(spec(model))
    return rival.name if rival else None


def _claim(data: pd.DataFrame) -> list[str]:
    """At how many resolutions one family costs less than the other, where the paper prints both: as printed, recounted,
    in truth."""
    rows = {(row["model"], row["resolution"]): row for row in data.to_dict("records")}
    pairs = [(rows[rival_of(model), r], row) for (model, r), row in rows.items() if (rival_of(model), r) in rows]
    if not pairs:
        return []

    def cheaper(column: str) -> str:
        known = [pair for pair in pairs if all(agrees(0, str(row[column])) is not None for row in pair)]
        less = [f"{dim['resolution']}" for dit, dim in known if float(dim[column]) < float(dit[column])]
        return f"at {len(less)} of {len(known)} resolutions" + (f" ({', '.join(less)} px)" if less else "")

    return [
        f"The paper prints fewer Gflops for DiM than for DiT {cheaper('published_gflops')}.",
        f"Counted by thop on three images: fewer {cheaper('paper_gmacs')}.",
        f"All multiply-adds counted, exactly: fewer {cheaper('exact_gmacs')}. "
        "The DiM has about 1.5 times the parameters of its DiT.",
    ]
