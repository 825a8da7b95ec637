"""What is shown: tables and figures from the records, measured beside published. Doors and notebooks share it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.store import RESULTS
from models import spec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PUBLISHED = {
    2: "table2_training_steps.csv",
    3: "table3_ucf101_fvd.csv",
    4: "table4_gflops_by_resolution.csv",
    5: "table5_patch_size.csv",
    6: "table6_model_size.csv",
    7: "table7_guidance.csv",
}
COST_TABLES = {
    4: "Table 4: Gflops by resolution",
    5: "Table 5: parameters and Gflops by patch size",
    6: "Table 6: parameters and Gflops by model size",
}
COST_COLOURS = {"DiT-XL/2": "#0072B2", "DiM-XL/2": "#D55E00", "DiM-XL/2-matched": "#009E73"}
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.hashsalt": "harness",
}
FORMATS = ("table", "markdown", "csv", "json")
Row = dict[str, Any]


def published(table: int) -> pd.DataFrame:
    """A table of the paper as printed, every cell a string; tables 5 and 6 are of 256x256 and gain that column.

    Raises ValueError for a table that the paper's data does not have.
    """
    if table not in PUBLISHED:
        raise ValueError(f"unknown table {table}; choose from {', '.join(map(str, PUBLISHED))}")
    frame = pd.read_csv(RESULTS / "published" / PUBLISHED[table], dtype=str)
    if table in COST_TABLES and "resolution" not in frame:
        frame.insert(1, "resolution", "256")
    return frame


def published_costs(*tables: int) -> dict[tuple[str, int], Row]:
    """The efficiency cells as printed, by (model, resolution): `published_gflops`, `published_params_m` where given."""
    cells: dict[tuple[str, int], Row] = {}
    for table in tables or COST_TABLES:
        for row in published(table).to_dict("records"):
            cell = cells.setdefault((row["model"], int(row["resolution"])), {})
            cell["published_gflops"] = row["gflops"]
            if "params_m" in row:
                cell["published_params_m"] = row["params_m"]
    return cells


def agrees(value: float, printed: str) -> bool | None:
    """Whether a value rounds to the printed figure at its precision; None where the paper prints no number."""
    try:
        float(printed)
    except ValueError:
        return None
    return f"{value:.{len(printed.partition('.')[2])}f}" == printed


def costs(records: pd.DataFrame) -> list[Row]:
    """One row a model and question: parameters, exact GMACs by kind, each convention's figure, the published ones.

    Figures are in 10^9 of their unit, which the name ends in; parameters in 10^6. `records` are those of harness.store;
    of two that answer the same question the later counts.
    """
    rows: dict[tuple[Any, ...], Row] = {}
    for record in records.to_dict("records"):
        if record["quantity"] not in ("cost", "params", "elementwise"):
            continue
        by_input = isinstance(record.get("input"), str)
        question: Row = {"input": record["input"]} if by_input else {"resolution": int(record["resolution"])}
        row = rows.setdefault((record["model"], *question.values()), {"model": record["model"], **question})
        name = str(record["convention"])
        if record["quantity"] == "params":
            row["params_m" if name == "exact" else f"{name}_params_m"] = record["value"] / 1e6
            continue
        if record["quantity"] == "elementwise":
            row["elementwise_g"] = record["value"] / 1e9
            continue
        row[name + ("_gflops" if record["unit"] == "FLOP" else "_gmacs")] = record["value"] / 1e9
        row |= {f"{name}_method": record["method"], f"{name}_omits": ", ".join(record["omitted"])}
        row[f"{name}_omits_share"] = sum(record["omitted"].values())
        row |= {f"{kind}_gmacs": macs / 1e9 for kind, macs in record["parts"].items()}
        if record["note"]:
            row["note"] = record["note"]
    printed = published_costs()
    for key, row in rows.items():
        row |= printed.get(key, {})
        for ours, theirs in (("paper_gmacs", "published_gflops"), ("paper_params_m", "published_params_m")):
            if ours in row and theirs in row:
                row[theirs.removeprefix("published_") + "_match"] = agrees(row[ours], row[theirs])
    return list(rows.values())


def table(number: int, records: pd.DataFrame) -> pd.DataFrame:
    """An efficiency table of the paper (4, 5 or 6): as printed, under the paper's convention, and exact.

    `vs_dit` columns divide by the exact figure of the DiT of the same size, patch and resolution. Raises ValueError for
    another table, and for records that lack a cell, naming it.
    """
    if number not in COST_TABLES:
        raise ValueError(f"table {number} has no costs; choose from {', '.join(map(str, COST_TABLES))}")
    known = {(row["model"], row.get("resolution")): row for row in costs(records)} if len(records) else {}
    rows = []
    for (model, resolution), cell in published_costs(number).items():
        rival = spec(model.replace("DiM", "DiT")).name
        for needed in (model, rival):
            if (needed, resolution) not in known:
                raise ValueError(f"table {number}: no record of {needed} at {resolution} px")
        ours, dit = known[model, resolution], known[rival, resolution]
        row: Row = {"model": model, "resolution": resolution}
        for theirs, under_paper in (("published_params_m", "paper_params_m"), ("published_gflops", "paper_gmacs")):
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


def table_notes(number: int) -> list[str]:
    """What the columns of `table` mean, a sentence each."""
    notes = [
        "published_*: as the paper prints it.",
        "paper_*: thop run on a batch of three images, in 10^9 of its MACs and 10^6 of its parameters; "
        "*_match: equal to the published figure at its printed precision ('-' where the paper prints no number).",
        "params_m, exact_gmacs, flops_gflops: all parameters (10^6), all multiply-adds of one image (10^9), and twice "
        "those; *_vs_dit: divided by the same figure of the DiT of that size, patch and resolution.",
    ]
    if number == 4:
        notes.append(
            "OOM: the paper ran out of memory where it ran DiT; a count needs no memory, and the same convention gives "
            "the figure beside it."
        )
    return notes


def render(frame: pd.DataFrame, style: str) -> str:
    """A frame as text: "table" and "markdown" round to two decimals for reading, "csv" and "json" keep every digit."""
    if style == "csv":
        return frame.to_csv(index=False).rstrip("\n")
    if style == "json":
        rows = json.loads(frame.to_json(orient="records", double_precision=15))
        return json.dumps(rows, indent=1, ensure_ascii=False)
    text = frame.map(_cell)
    if style == "markdown":
        lines = [list(text.columns), ["---"] * text.shape[1], *text.to_numpy().tolist()]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    if style == "table":
        return text.to_string(index=False)
    raise ValueError(f"unknown format {style!r}; choose from {', '.join(FORMATS)}")


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {_cell(amount)}" for name, amount in value.items())
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.2g}"
    return str(value)


def figure(name: str, records: pd.DataFrame) -> Figure:
    """A figure by name, from the records. Raises ValueError for an unknown name or for records that lack it."""
    if name not in FIGURES:
        raise ValueError(f"unknown figure {name!r}; choose from {', '.join(FIGURES)}")
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        return FIGURES[name](records)


def _cost_figure(records: pd.DataFrame) -> Figure:
    """Exact cost against resolution, a line a model, the crossovers marked; the printed Gflops of Table 4 beside it."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    rows = [row for row in costs(records) if row["model"] in COST_COLOURS and "exact_gmacs" in row]
    if not rows:
        raise ValueError(f"the cost figure needs records of {', '.join(COST_COLOURS)}")
    drawing = Figure(figsize=(5.6, 4.0), layout="constrained")
    axes = drawing.subplots()
    for model, colour in COST_COLOURS.items():
        points = sorted((row["resolution"], row["exact_gmacs"]) for row in rows if row["model"] == model)
        axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, label=f"{model}, exact")
        printed = [
            (row["resolution"], row["paper_gmacs"])
            for row in rows
            if row["model"] == model and "published_gflops" in row
        ]
        if printed:
            label = f"{model}, as Table 4 counts (batch of 3)"
            axes.plot(
                *zip(*sorted(printed), strict=True), color=colour, linestyle=":", marker="x", markersize=4, label=label
            )
    resolutions = sorted({row["resolution"] for row in rows})
    for record in records[records["quantity"] == "crossover"].to_dict("records"):
        if record["model"] in COST_COLOURS and record["value"] and record["value"] >= resolutions[0]:
            axes.axvline(record["value"], color=COST_COLOURS[record["model"]], linewidth=0.8, linestyle="--", zorder=0)
            where = (record["value"], 0.02)
            axes.annotate(
                f" {record['value']:.0f} px", where, xycoords=("data", "axes fraction"),
                color=COST_COLOURS[record["model"]], fontsize=8,
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="resolution (pixels a side)", ylabel="cost of a forward pass (GMAC)")
    axes.set_xticks([r for r in resolutions if r & (r - 1) == 0])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(fontsize=7.5, framealpha=1, edgecolor="none")
    return drawing


FIGURES = {"cost": _cost_figure}
