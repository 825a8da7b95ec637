"""Costs as they are read: what the closed form gives first, then how it was checked and what others make of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness.core import formats
from harness.core.grid import paragraph
from harness.core.records import CostRecord
from harness.core.workload import Workload
from harness.cost import CONVENTIONS, FORMULAS, MAC_KINDS, Convention, Cost, analytic, equal_macs_depth, rivals
from harness.report.cost import Fields, cost_table, costs, table
from harness.report.layout import Block, Table, as_block
from models import ModelSpec

FORMATS = (*formats.FORMATS, "latex")
IN_FIRST_TABLE = ("exact", "flops")
TITLE = "Exact cost of a forward pass"
UNIT = "(1 GMAC = 10^9 multiply-adds = 2 GFLOP)"
MORE = "More: --details (what other tools count and leave out), --by-op, --format csv"
SHORT = {"model": "model", "resolution": "px", "frames": "frames", "params_m": "params (M)", "exact_gmacs": "GMAC",
         "flops_gflops": "GFLOP"}  # fmt: skip
"""Columns of the first screen, and their headings."""
ELEMENTWISE = "elementwise: norms, activations, gates, the scan's exponentials; results in 10^9, not in any total"


def write(sections: Iterable[str], output: Path | None) -> None:
    """Print sections as they come, an empty line between them, or write them all to a file. Raises OSError."""
    if output is None:
        for number, section in enumerate(sections):
            print("\n" * min(number, 1) + section, flush=True)
    else:
        text = "\n\n".join(sections)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n", encoding="utf-8")


def closed_form(records: Sequence[CostRecord], workloads: Sequence[Workload], details: bool = False) -> str:
    """Who is cheaper, where and by how much; then exact costs. `records` may lack those of tools.

    With `details` the costs are split by kind of operation.
    """
    units = dict.fromkeys(f"one {w.unit}" if w.batch == 1 else f"{w.batch} {w.unit}s" for w in workloads)
    title = f"{TITLE} of {' or '.join(units)}"
    if details:
        return _joined([_answers(records, workloads), _exact(costs(records), title), _depths(records, workloads)])
    return _joined([_answers(records, workloads), _compared(costs(records), workloads, title)])


def checked(
    records: Sequence[CostRecord], names: Sequence[str], workloads: Sequence[Workload], style: str, details: bool
) -> str:
    """What follows the closed form in a terminal: how it was checked, and with `details` what others make of it.

    `names` are those of conventions, "formula" among them for the paper's expressions. In another style, all as rows.
    """
    if style != "table":
        return _rows(records, style)
    methods = {str(record.method) for record in records if record.get("convention") == "exact"}
    check = paragraph(
        f"Checked: the closed form equals the traced count to the last unit [{'; '.join(sorted(methods))}]."
    )
    if details:
        return _joined([check, _others(costs(records)), _formulas(workloads) if "formula" in names else ""])
    return "\n".join(filter(None, [check, _recounted(costs(records)), MORE]))


def module(records: Sequence[CostRecord], style: str) -> str:
    """The traced cost of a model of the user's own, and what other conventions make of it."""
    if style != "table":
        return _rows(records, style)
    return _joined([_exact(costs(records), TITLE), _others(costs(records))])


def _rows(records: Sequence[CostRecord], style: str) -> str:
    """A row a model and question, for another program; as LaTeX the tables of the terminal."""
    rows = costs(records)
    if style != "latex":
        return formats.render(rows, style)
    shown = _tabulated(rows)
    matched = [{**row, "published_gflops": _with_match(row)} for row in rows]
    blocks = [as_block(_columns(rows, _exact_headings()), "Every multiply-add")]
    blocks += [as_block(_columns(matched, _other_headings(shown)), "As other tools count")] if shown else []
    notes = [*dict.fromkeys(str(row["note"]) for row in rows if row.get("note")), f"{ELEMENTWISE}."]
    return _latex("costs", TITLE, blocks, [*notes, *(f"{c.name}: {c.counts} [{_methods(rows, c)}]." for c in shown)])


def cells(number: int, records: Sequence[CostRecord], style: str) -> str:
    """The cells of an efficiency table of the paper."""
    if style in ("latex", "table"):
        made = cost_table(number, records)
        return (made.latex() if style == "latex" else made.terminal()).rstrip("\n")
    return formats.render(table(number, records), style)


def operations(named: Mapping[str, Cost], style: str) -> str:
    """A row for each module and kind of each named cost."""
    found = [row for name, cost in named.items() for row in by_operation(name, cost)]
    if style == "latex":
        return _latex("operations", f"{TITLE}, by operation", [as_block(found)], [])
    return formats.render(found, style)


def by_operation(name: str, cost: Cost) -> list[Fields]:
    """A row for each module and kind, in 10^9; what has no rule is named behind them."""
    sums: dict[tuple[str, str], list[int]] = {}
    for op in cost.ops:
        amounts = sums.setdefault((op.where or "(top)", op.kind), [0, 0])
        amounts[0] += op.macs
        amounts[1] += op.elementwise
    found: list[Fields] = [
        {"model": name, "module": where, "kind": kind, "gmacs": macs / 1e9, "elementwise_g": elementwise / 1e9,
         "share": macs / cost.macs if cost.macs else 0.0}
        for (where, kind), (macs, elementwise) in sums.items()
    ]  # fmt: skip
    return found + [
        {"model": name, "module": operator, "kind": f"NO RULE, {calls} calls"}
        for operator, calls in cost.uncounted.items()
    ]


def _latex(name: str, title: str, blocks: list[Block], notes: list[str]) -> str:
    import pandas as pd

    return Table(name, title, pd.DataFrame(), blocks, notes).latex().rstrip("\n")


def _joined(sections: Sequence[str]) -> str:
    return "\n\n".join(section for section in sections if section)


def _columns(rows: Sequence[Fields], headings: Mapping[str, str]) -> list[Fields]:
    """Those columns that any row fills, under their headings."""
    filled = {name: heading for name, heading in headings.items() if any(row.get(name) is not None for row in rows)}
    return [{heading: row.get(name) for name, heading in filled.items()} for row in rows]


def _exact_headings() -> dict[str, str]:
    first = {"model": "model", "resolution": "px", "frames": "frames", "input": "input", "params_m": "params (M)"}
    kinds = {f"{kind}_gmacs": kind for kind in MAC_KINDS}
    return first | kinds | {"exact_gmacs": "GMAC", "flops_gflops": "GFLOP", "elementwise_g": "elementwise (G)"}


def _exact(rows: Sequence[Fields], title: str) -> str:
    grid = formats.render(_columns(rows, _exact_headings()), "table")
    notes = dict.fromkeys(str(row["note"]) for row in rows if row.get("note"))
    return "\n".join([title, UNIT, "", grid, "", *map(paragraph, [ELEMENTWISE, *notes])])


def _pairs(workloads: Iterable[Workload]) -> list[tuple[ModelSpec, ModelSpec]]:
    """Each model with one of its counterpart's, where both are counted."""
    specs = list(dict.fromkeys(w.spec for w in workloads))
    return [(one, other) for one in specs for other in specs if rivals(one, other)]


def _compared(rows: Sequence[Fields], workloads: Sequence[Workload], title: str) -> str:
    """A row a model and question, with the share of its counterpart's cost."""
    rival = {one.name: other for one, other in reversed(_pairs(workloads))}
    known = {(row["model"], row["resolution"]): row["exact_gmacs"] for row in rows}
    families = " or ".join(dict.fromkeys(other.family for other in rival.values()))
    shown = []
    for row in rows:
        cells = _columns([row], SHORT)[0]
        other = rival.get(row["model"])
        if rival:
            ratio = row["exact_gmacs"] / known[other.name, row["resolution"]] if other else None
            cells |= {f"× its {families}": f"{ratio:.3f}" if ratio else ""}
        shown.append(cells)
    return "\n".join([title, UNIT, "", formats.render(shown, "table")])


def _answers(records: Sequence[CostRecord], workloads: Sequence[Workload]) -> str:
    """Who costs less than its counterpart, where, and by how much: a sentence or two a pair."""
    where = {(r.get("model"), r.get("against")): r.value for r in records if r.quantity == "crossover"}
    resolutions = list(dict.fromkeys(w.resolution for w in workloads))
    batch = workloads[0].batch
    found = []
    for one, other in _pairs(workloads):
        ratios = [analytic(one, px, batch).macs / analytic(other, px, batch).macs for px in resolutions]
        first, *rest = (f"{ratio:.3f} at {px}" for ratio, px in zip(ratios, resolutions, strict=True))
        times = ", ".join([f"{first} px", *rest])
        crossed = where.get((one.name, other.name))
        less = f"above {crossed:.0f} px" if crossed else "everywhere" if max(ratios) < 1 else "nowhere"
        found.append(paragraph(f"{one.name} costs less than {other.name} {less}. Ratio of the costs: {times}."))
    return "\n".join(found)


def _depths(records: Sequence[CostRecord], workloads: Sequence[Workload]) -> str:
    """How many blocks a model would have at its counterpart's cost."""
    resolutions = list(dict.fromkeys(w.resolution for w in workloads))
    lines = []
    for one, other in _pairs(workloads):
        if not one.variant:
            depths = ", ".join(f"{equal_macs_depth(one, other, r)} at {r} px" for r in resolutions)
            lines.append(
                paragraph(f"{one.name} has {one.depth} blocks; it would cost what {other.name} does with {depths}.")
            )
    return "\n".join(lines)


def _recounted(rows: Sequence[Fields]) -> str:
    """How many printed cells the paper's convention gives again."""
    matches = [row["gflops_match"] for row in rows if row.get("gflops_match") is not None]
    if not matches:
        return ""
    rule = CONVENTIONS["paper"].counts.removesuffix(", printed as Gflops")
    return paragraph(f"{sum(matches)} of {len(matches)} printed Gflops come out to the last digit: {rule}.")


def _tabulated(rows: Sequence[Fields]) -> list[Convention]:
    """The conventions that rows have figures of, apart from those of the first table."""
    known = {column for row in rows for column in row}
    return [c for name, c in CONVENTIONS.items() if f"{name}_method" in known and name not in IN_FIRST_TABLE]


def _other_headings(conventions: Sequence[Convention]) -> dict[str, str]:
    headings = {"model": "model", "resolution": "px", "input": "input"}
    for convention in conventions:
        unit = "GFLOP" if convention.unit == "FLOP" else "GMAC"
        batch = f"x{convention.batch}, " if convention.batch else ""
        headings[f"{convention.name}_{unit.lower()}s"] = f"{convention.name} ({batch}{unit})"
    return headings | {"published_gflops": "published Gflops, same"}


def _others(rows: Sequence[Fields]) -> str:
    """The same passes as others count them, the published figures, and what each leaves out."""
    shown = _tabulated(rows)
    if not shown:
        return ""
    matched = [{**row, "published_gflops": _with_match(row)} for row in rows]
    grid = formats.render(_columns(matched, _other_headings(shown)), "table")
    lines = ["The same passes as others count them", "", grid, ""]
    for convention in shown:
        lines.append(paragraph(f"{convention.name}: {convention.counts} [{_methods(rows, convention)}]"))
        lines += map(paragraph, _omissions(rows, convention))
    return "\n".join(lines)


def _with_match(row: Fields) -> str | None:
    """A printed figure, and whether the paper's convention gives it again."""
    match = row.get("gflops_match")
    printed: str | None = row.get("published_gflops")
    return printed if match is None else f"{printed} {'yes' if match else 'NO'}"


def _methods(rows: Sequence[Fields], convention: Convention) -> str:
    return "; ".join(dict.fromkeys(str(row[f"{convention.name}_method"]) for row in rows))


def _omissions(rows: Sequence[Fields], convention: Convention) -> list[str]:
    """One line a model: what the convention leaves out, and how much of the exact cost that is."""
    lines, name, share = [], f"{convention.name}_omits", f"{convention.name}_omits_share"
    for model, of_model in itertools.groupby(rows, key=lambda row: row["model"]):
        omitting = [row for row in of_model if row[name]]
        if omitting:
            first, *rest = omitting
            spans = [f"{row[share]:.1%} at {row['resolution']} px" for row in (first, *rest[-1:])]
            lines.append(f"  leaves out of {model}: {first[name]} ({' to '.join(spans)})")
    return lines


def _formulas(workloads: Sequence[Workload]) -> str:
    """Section 3.4's expressions for the widths and lengths at hand, and what they leave out; it has none for clips."""
    rows = []
    for w in workloads:
        if w.spec.frames:
            continue
        L, D, S = w.spec.group * w.spec.tokens(w.resolution), w.spec.width, w.spec.state
        row: Fields = {"model": w.spec.name, "px": w.resolution, "L": L, "D": D, "N": S}
        row |= {f.name: f.multiply_adds(L, D, S) / 1e9 for f in FORMULAS}
        ops = analytic(w.spec, w.resolution).ops
        block = sum(op.macs for op in ops if "block" in op.where.partition(".")[0])  # DiS: in_blocks, mid_block, …
        rows.append(row | {"exact, one block": block / 1e9 / w.spec.depth})
    if not rows:
        return ""
    title = "The paper's expressions (section 3.4), GMAC of one block"
    expressions = [f"{f.name}: {f.expression}; {f.remark}" for f in FORMULAS]
    return "\n".join([title, "", formats.render(rows, "table"), "", *map(paragraph, expressions)])
