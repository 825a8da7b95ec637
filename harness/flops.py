"""`python -m harness.flops --res 256 512 1024 2048`: what DiT and DiM cost, exactly, and what other tools say of them.

Prints the exact multiply-adds of a forward pass beside the figures of thop, fvcore, torch and the paper, names what
each leaves out, and gives the resolution from which DiM is cheaper. Needs no GPU: nothing is computed.
Any other model: `--model package.module:factory --input 1x3x224x224`.
"""

from __future__ import annotations

import argparse
import itertools

import pandas as pd

from harness import report
from harness.core import paths, store
from harness.core.command import Parser, add_model_flags, sweep, writable
from harness.core.records import CostRecord
from harness.core.workload import Workload
from harness.cost import CONVENTIONS, FORMULAS, MAC_KINDS, Convention, Cost, analytic, equal_macs_depth

MODELS = ["DiT-XL/2", "DiM-XL/2", "DiM-XL/2-matched"]
RESOLUTIONS = [256, 512, 1024, 2048]
RECORDS = paths.measurements() / "flops.jsonl"


def main(argv: list[str] | None = None) -> None:
    """Parse, count, record, print."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        conventions = _conventions(args.convention)
        if any(":" in name for name in args.model):
            records, text = _foreign(args, conventions)
        else:
            records, text = _catalogue(args, conventions)
    except ValueError as error:
        parser.error(str(error))
    try:
        if args.output:
            args.output.write_text(text + "\n", encoding="utf-8")
        store.append(args.records, records, repeat=False)
    except OSError as error:
        parser.error(f"cannot write {error.filename}: {error.strerror}")
    if not args.output:
        print(text)


def _parser() -> Parser:
    parser = Parser(prog="harness.flops", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_flags(parser, MODELS, RESOLUTIONS)
    parser.add_argument("--input", nargs="+", metavar="SHAPE[:DTYPE]", help="inputs of package.module:factory")
    names = ", ".join([*CONVENTIONS, "formula"])
    parser.add_argument("--convention", nargs="+", metavar="NAME", help=f"of {names} (default: all)")
    parser.add_argument("--by-op", action="store_true", help="one row an operation")
    parser.add_argument("--table", type=int, choices=list(report.COST_TABLES), help="the cells of that table")
    parser.add_argument("--format", choices=report.FORMATS, default="table")
    parser.add_argument("--output", type=writable, metavar="FILE", help="write there instead of to the terminal")
    parser.add_argument("--records", type=writable, default=RECORDS, metavar="FILE", help="default: in results/")
    return parser


def _conventions(names: list[str] | None) -> list[Convention]:
    """The conventions of that name, `exact` always among them; `formula` is no count and is printed apart."""
    known = [*CONVENTIONS, "formula"]
    for name in names or []:
        if name not in known:
            raise ValueError(f"unknown convention {name!r}; choose from {', '.join(known)}")
    return [CONVENTIONS[name] for name in CONVENTIONS if not names or name in names or name == "exact"]


def _catalogue(args: argparse.Namespace, conventions: list[Convention]) -> tuple[list[CostRecord], str]:
    """Records and text for models of the catalogue."""
    from harness.cost.measure import crossovers, measure_all, workloads_of_tables

    if args.table:
        records = measure_all(workloads_of_tables([args.table]), list(CONVENTIONS.values()))
        return records, report.render(report.table(args.table, records), args.format)
    workloads = sweep(args)
    if args.by_op:
        return [], report.render(_by_op(workloads), args.format)
    records = measure_all(workloads, conventions) + crossovers(w.spec for w in workloads)
    units = " or ".join(dict.fromkeys(f"one {w.unit}" if w.batch == 1 else f"{w.batch} {w.unit}s" for w in workloads))
    sections = [_comparison_section(records, workloads)]
    if not args.convention or "formula" in args.convention:
        sections.append(_formula_section(workloads))
    return records, _text(args, records, conventions, f"a forward pass of {units}", sections)


def _foreign(args: argparse.Namespace, conventions: list[Convention]) -> tuple[list[CostRecord], str]:
    """Records and text for a model of the user's own."""
    from harness.cost.factory import build, parse_input
    from harness.cost.measure import measure_module
    from harness.cost.trace import count

    if len(args.model) > 1 or not args.input:
        raise ValueError(
            "a model of your own is counted alone: --model package.module:factory --input SHAPE[:DTYPE] ..."
        )
    if not args.convention:  # what can be counted without executing the model
        conventions = [c for c in conventions if c.name in ("exact", "flops", "flops-scan9", "thop", "torch")]
    inputs = [parse_input(text) for text in args.input]
    (name,) = args.model
    model = build(name)
    if args.by_op:
        return [], report.render(_op_frame(name, count(model, *inputs)), args.format)
    records = list(measure_module(name, model, inputs, conventions))
    return records, _text(args, records, conventions, "a forward pass", [])


def _text(
    args: argparse.Namespace,
    records: list[CostRecord],
    conventions: list[Convention],
    what: str,
    more: list[str],
) -> str:
    """The records in the format asked for; the sections of prose belong to the terminal's."""
    rows = report.costs(records)
    if args.format != "table":
        return report.render(pd.DataFrame(rows), args.format)
    sections = [_exact_section(rows, what), _convention_section(rows, conventions), *more]
    return "\n\n".join(section for section in sections if section)


def _by_op(workloads: list[Workload]) -> pd.DataFrame:
    frames = [
        _op_frame(f"{w.spec.name} at {w.resolution} px", analytic(w.spec, w.resolution, w.batch)) for w in workloads
    ]
    return pd.concat(frames, ignore_index=True)


def _op_frame(name: str, cost: Cost) -> pd.DataFrame:
    """Operations by module and kind, as they come; `elementwise_g` is apart from the multiply-adds."""
    ops = pd.DataFrame(
        {
            "model": name,
            "module": [op.where or "(top)" for op in cost.ops],
            "kind": [op.kind for op in cost.ops],
            "gmacs": [op.macs / 1e9 for op in cost.ops],
            "elementwise_g": [op.elementwise / 1e9 for op in cost.ops],
        }
    )
    rows = ops.groupby(["model", "module", "kind"], sort=False, as_index=False).sum()
    rows["share"] = rows["gmacs"] / cost.gmacs
    no_rule = [
        {"model": name, "module": uncounted, "kind": f"NO RULE, {calls} calls"}
        for uncounted, calls in cost.uncounted.items()
    ]
    return pd.concat([rows, pd.DataFrame(no_rule)], ignore_index=True)


def _exact_section(rows: list[report.Fields], what: str) -> str:
    columns = {"model": "model", "resolution": "px", "frames": "frames", "input": "input", "params_m": "params (M)"}
    columns |= {f"{kind}_gmacs": kind for kind in MAC_KINDS}
    columns |= {"exact_gmacs": "GMAC", "flops_gflops": "GFLOP", "elementwise_g": "elementwise (G)"}
    lines = [
        f"Exact cost of {what} (1 GMAC = 10^9 multiply-adds = 2 GFLOP)",
        "",
        report.render(_columns(rows, columns), "table"),
        "",
        "elementwise: norms, activations, gates, the scan's exponentials; results in 10^9, in no total",
        *(str(row["note"]) for row in rows if row.get("note")),
    ]
    return "\n".join(lines)


def _columns(rows: list[report.Fields], columns: dict[str, str]) -> pd.DataFrame:
    """Those columns that any row fills, under their headings."""
    frame = pd.DataFrame(rows).reindex(columns=list(columns))
    return frame.dropna(axis="columns", how="all").rename(columns=columns)


def _convention_section(rows: list[report.Fields], conventions: list[Convention]) -> str:
    """The same passes as others count them, the published figures, and what each leaves out."""
    others = [c for c in conventions if c.name not in ("exact", "flops")]
    if not others:
        return ""
    columns = {"model": "model", "resolution": "px", "input": "input"}
    for convention in others:
        unit = "GFLOP" if convention.unit == "FLOP" else "GMAC"
        column = f"{convention.name}_{'gflops' if convention.unit == 'FLOP' else 'gmacs'}"
        columns[column] = f"{convention.name} ({'x' + str(convention.batch) + ', ' if convention.batch else ''}{unit})"
    columns |= {"published_gflops": "published Gflops", "gflops_match": "same"}
    table = report.render(_columns(rows, columns), "table")
    lines = ["The same passes as others count them", "", table, ""]
    for convention in others:
        methods = dict.fromkeys(str(row[f"{convention.name}_method"]) for row in rows)
        lines.append(f"{convention.name}: {convention.counts} [{'; '.join(methods)}]")
        lines += _omissions(rows, convention)
    return "\n".join(lines)


def _omissions(rows: list[report.Fields], convention: Convention) -> list[str]:
    """One line a model: what the convention leaves out, and how much of the exact cost that is."""
    lines = []
    for model, cells in itertools.groupby(rows, key=lambda row: row["model"]):
        omitting = [row for row in cells if row[f"{convention.name}_omits"]]
        if omitting:
            first, *rest = omitting
            spans = [
                f"{row[f'{convention.name}_omits_share']:.1%} at {row['resolution']} px" for row in (first, *rest[-1:])
            ]
            lines.append(f"  leaves out of {model}: {first[f'{convention.name}_omits']} ({' to '.join(spans)})")
    return lines


def _comparison_section(records: list[CostRecord], workloads: list[Workload]) -> str:
    """Where each model becomes cheaper than its counterpart of the same size, and its depth at equal cost."""
    lines = []
    resolutions = list(dict.fromkeys(w.resolution for w in workloads))
    specs = {w.spec.name: w.spec for w in workloads}
    for record in records:
        if record.quantity != "crossover":
            continue
        one, other = specs[str(record.workload["model"])], specs[str(record.workload["against"])]
        where = f"above {record.value:.0f} px" if record.value else "nowhere"
        lines.append(f"{one.name} ({one.depth} blocks) costs less than {other.name} {where}")
        if not one.variant:
            depths = ", ".join(f"{equal_macs_depth(one, other, r)} at {r} px" for r in resolutions)
            lines.append(f"  a {one.family} of that width costs what {other.name} does with this many blocks: {depths}")
    return "\n".join(["Crossover (exact, analytic)", "", *lines]) if lines else ""


def _formula_section(workloads: list[Workload]) -> str:
    """Section 3.4's expressions for the widths and lengths at hand, and what they leave out."""
    rows = []
    blocks = {(w.spec.family, w.spec.width, w.spec.patch, w.resolution): w for w in workloads if not w.spec.frames}
    if not blocks:
        return ""
    for w in blocks.values():
        L, D, S = w.spec.tokens(w.resolution), w.spec.width, w.spec.state
        row: report.Fields = {"model": w.spec.name, "px": w.resolution, "L": L, "D": D, "N": S}
        row |= {f.name: f.multiply_adds(L, D, S) / 1e9 for f in FORMULAS}
        block = sum(op.macs for op in analytic(w.spec, w.resolution).ops if op.where.startswith("blocks.*"))
        rows.append(row | {"exact, one block": block / 1e9 / w.spec.depth})
    title = "The paper's expressions (section 3.4), GMAC of one block"
    lines = [title, "", report.render(pd.DataFrame(rows), "table"), ""]
    lines += [f"{f.name}: {f.expression}; {f.remark}" for f in FORMULAS]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
