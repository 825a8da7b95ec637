"""Tables 2, 3, 5, 6 and 7: what the paper prints beside what was measured, each value with its spread or its mark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from harness.core import paper
from harness.core.grid import Bold
from harness.core.paper import QUALITY_TABLES, TableSpec
from harness.core.records import Record, ScoreRecord
from harness.report import protocol
from harness.report.cells import COLUMNS, MISSING, NAMES, NOT_MADE, Cell, measured_columns
from harness.report.claims import welch
from harness.report.comparison import sentences, spread
from harness.report.layout import Block, Table
from harness.report.lines import Line, lines_of, measured_name, rival
from harness.report.own_scores import fitting, included_lines
from harness.report.tuning import chosen, floor
from harness.report.variance import components
from harness.report.verdict import verdict

if TYPE_CHECKING:
    import pandas as pd

    from harness.suites.rows import Suite


def better(lines: Sequence[Line], columns: Iterable[str]) -> set[tuple[int, str]]:
    """Cells to be set in bold: (row, column) of the better of a contest where the difference exceeds the spread.

    A DiT is compared with the DiM of its own variant alone.
    """
    bold = set()
    place = {id(line): i for i, line in enumerate(lines)}
    for i, dim in enumerate(lines):
        dit = rival(dim, lines)
        if dit is None:
            continue
        for column in columns:
            none = Cell()
            test = welch(dim.cells.get(column, none).values, dit.cells.get(column, none).values)
            if test and test.exceeds_spread:
                if test.difference * COLUMNS[column][1] > 0:
                    bold.add((i, column))
                elif dim.variant == dit.variant:
                    bold.add((place[id(dit)], column))
    return bold


def quality_table(number: int, suite: Suite, records: Iterable[Record], own: Iterable[ScoreRecord] = ()) -> Table:
    """A quality table of the paper, printed beside measured, with its protocol and what becomes of its claim.

    Raises ValueError for an unknown table, and as `table_of`.
    """
    if number not in QUALITY_TABLES:
        raise ValueError(f"table {number} has no quality; choose from {', '.join(map(str, QUALITY_TABLES))}")
    return table_of(paper.TABLES[number], suite, records, own)


def table_of(table: TableSpec, suite: Suite, records: Iterable[Record], own: Iterable[ScoreRecord] = ()) -> Table:
    """A table of quality: what was measured, beside what the paper prints if it has that table.

    `records` are those of harness.core.store; `own` are a user's, shown as extra rows where they follow the protocol of
    the others, and else named in `left_out` of the table. Raises ValueError, naming the difference, for records of the
    suite that follow more than one protocol.
    """
    own, records = list(own), list(records)
    columns = measured_columns(table, suite, own)
    measured, yours, shared, left_out = _rows(table, suite, records, own)
    lines = measured + yours
    if any(line.records for line in lines):
        stated = protocol.words(shared, (seed for line in lines for seed in line.seeds))
    else:
        stated = f"Nothing is measured yet; `python -m harness.reproduce --suite {suite.name}` does it."
    claim = verdict(table, suite.name, lines) if table.rows else []
    notes = _notes(lines)
    if suite.choices:
        notes += filter(None, (spread(lines, table.quality[0]), floor(suite, records), *chosen(suite, records)))
        claim += sentences(lines, table.quality, "step" in table.varies)
    return Table(
        name=table.part,
        title=f"{table.quality_title}, printed and measured" if table.rows else table.quality_title,
        data=_frame(lines, columns),
        blocks=[_block(lines, list(table.quality) if table.rows else [], columns)],
        notes=notes,
        left_out=left_out,
        protocol=f"Suite `{suite.name}`: {suite.title}. {stated}",
        claim=claim,
        claim_heading="The paper's claim" if table.rows else "Comparisons",
    )


def own_lines(
    table: TableSpec, suite: Suite, records: Iterable[Record], own: Iterable[ScoreRecord]
) -> tuple[list[Line], list[str]]:
    """A user's scores as rows of a table, and a line for each checkpoint that is left out: what differs.

    Raises ValueError as `table_of`.
    """
    _, yours, _, left_out = _rows(table, suite, list(records), list(own))
    return yours, left_out


def _rows(
    table: TableSpec, suite: Suite, records: Sequence[Record], own: Sequence[ScoreRecord]
) -> tuple[list[Line], list[Line], protocol.Values, list[str]]:
    """A suite's rows and a user's own, the protocol that they share, and what is left out of it."""
    columns = measured_columns(table, suite, own)
    measured = lines_of(table, suite, records)
    labelled = [(line.label, record) for line in measured for record in line.records]
    chosen_settings = {choice.setting for choice in suite.choices}
    free = {f"training.{name}" for name in chosen_settings} | {f"sampling.{name}" for name in chosen_settings}
    shared = protocol.requested(table, suite) | protocol.common(table, labelled, free)
    fit, left_out = fitting(table, own, columns, shared)
    return measured, included_lines(table, fit, columns, measured), shared, left_out


def _block(lines: Sequence[Line], printed: list[str], columns: list[str]) -> Block:
    """The rows; without `printed` columns only their measured side."""
    columns = [c for c in columns if not _unsupported(c, lines)]
    bold, counted = better(lines, columns), len(_seeds(lines)) > 1
    arrows = {column: "↓" if COLUMNS[column][1] < 0 else "↑" for column in (*printed, *columns)}
    beside = ["model", *(f"{NAMES.get(c, c)} {arrows[c]}" for c in printed)] if printed else []
    largest = max((line.gmacs or 0 for line in lines), default=0)
    sizes, scale = largest > 0, 1 if largest >= 1 else 1000
    units = ["params, M", "GMAC"] if scale == 1 else ["params, K", "MMAC"]
    header = [*beside, "model", *(units if sizes else [])]
    header += [f"{measured_name(c, lines)} {arrows[c]}" for c in columns]
    rows = []
    for i, line in enumerate(lines):
        texts = [line.cells[c].text(counted) if c in line.cells else NOT_MADE for c in columns]
        marked = [Bold(text) if (i, c) in bold else text for c, text in zip(columns, texts, strict=True)]
        if any((line.label, line.contest) == (other.label, other.contest) != (NOT_MADE, "") for other in lines[:i]):
            continue  # a DiM of equal parameters may be that of equal multiply-adds, too
        size = [_three_digits(scale * n) if n else "" for n in (line.params_m, line.gmacs)] if sizes else []
        paper = [line.printed_label, *(line.printed.get(c, "") for c in printed)] if printed else []
        rows.append([*paper, line.label, *size, *marked])
    sides = [("printed", len(beside)), (_measured(lines), len(header) - len(beside))]
    return Block(header, rows, groups=sides if printed else [])


def _unsupported(column: str, lines: Iterable[Line]) -> bool:
    """Whether no measured row has that metric."""
    return {line.cells[column].mark for line in lines if column in line.cells} == {"unsupported"}


def _seeds(lines: Iterable[Line]) -> list[int]:
    """Over how many seeds cells are, but those of a single one."""
    return sorted({len(cell.values) for line in lines for cell in line.cells.values()} - {0, 1})


def _three_digits(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _measured(lines: Sequence[Line]) -> str:
    """What heads the measured columns: their features, where those are not the paper's own, and all the same."""
    spaces = _spaces(lines)
    return f"@{spaces[0]}" if len(spaces) == 1 else "measured"


def _spaces(lines: Sequence[Line]) -> list[str]:
    return sorted({space for line in lines for space in line.spaces})


def _frame(lines: Iterable[Line], columns: list[str]) -> pd.DataFrame:
    """Every digit, a row a line."""
    import pandas as pd

    return pd.DataFrame([_data(line, columns) for line in lines])


def _data(line: Line, columns: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"printed_row": line.printed_label, "measured_row": line.label, "family": line.family}
    row |= {"variant": line.variant, "contest": line.contest, "params_m": line.params_m, "gmacs": line.gmacs}
    for column in columns:
        cell = line.cells.get(column, Cell(mark="" if line.label == NOT_MADE else MISSING))
        spread_of = {0: "", 1: "samples of one seed"}.get(len(cell.values), "seeds")
        row |= {f"{column}_printed": line.printed.get(column, ""), column: cell.mean, f"{column}_spread": cell.spread}
        split = components(cell.draws)
        if split:
            row |= {f"{column}_training_sd": split.training_sd, f"{column}_sampling_sd": split.sampling_sd}
        row |= {f"{column}_spread_of": spread_of, f"{column}_seeds": len(cell.values), f"{column}_mark": cell.mark}
    return row


def _repetitive(line: Line) -> list[tuple[int, float]]:
    """Training seeds whose samples repeat themselves beyond what harness.eval lets pass, and the share."""
    from harness.metrics.settings import MAX_DUPLICATES

    shares: dict[int, float] = {}
    for record in line.records:
        if record.get("training") and record.get("duplicates"):
            digests, seed = record.get("samples_sha256"), int(record.workload["training"]["seed"])
            samples = record.workload["n_samples"] * (len(digests) if isinstance(digests, list | tuple) else 1)
            shares[seed] = max(shares.get(seed, 0.0), record.workload["duplicates"] / samples)
    return [(seed, share) for seed, share in sorted(shares.items()) if share > MAX_DUPLICATES]


def _features(lines: Sequence[Line], columns: Iterable[str]) -> str:
    """Which columns are measured on which network, in a sentence."""
    several: dict[str, list[str]] = {}
    for column in columns:
        spaces = {
            record.workload["metric"].partition("@")[2]
            for line in lines
            for record in line.records
            if column in line.cells and record.quantity == line.cells[column].quantity
        }
        for name in sorted(spaces):
            several.setdefault(name, []).append(measured_name(column, lines))
    return "; ".join(f"{', '.join(names)}: @{name}" for name, names in several.items()) + "."


def _notes(lines: Sequence[Line]) -> list[str]:
    cells = [cell for line in lines for cell in line.cells.values()]
    notes = []
    if any(line.params_m for line in lines):
        notes.append("params and MACs: exact, of the measured model: parameters, and multiply-adds of a forward pass.")
    if any(line.variant.startswith("matched") for line in lines):
        notes.append("matched: the model whose depth brings its parameters nearest to its DiT's.")
    if any(" of depth " in line.label for line in lines):
        notes.append("of depth N: the DiM whose depth brings its multiply-adds nearest to its DiT's; if that is the "
                     "matched one, one row serves both comparisons.")  # fmt: skip
    if any(len(cell.values) > 1 for cell in cells):
        seeds = _seeds(lines)
        count = "training seeds (how many)" if len(seeds) > 1 else f"{seeds[0]} training seeds"
        notes.append(f"mean ± standard deviation over {count}. Bold: the better of a DiT and another model of one "
                     "setting, if Welch's t-test of this pair alone gives p < 0.05. That p is not adjusted for the "
                     "number of comparisons, so a bold value can belong to an inconclusive one: the verdicts "
                     "count.")  # fmt: skip
    if any(len(cell.values) == 1 for cell in cells):
        notes.append("†: one seed; ± is the standard error of its samples (bootstrap, or binomial for precision and "
                     "recall), without the spread between trainings; none where all samples agree.")  # fmt: skip
    columns = list(dict.fromkeys(column for line in lines for column in line.cells))
    if "accuracy" in columns:
        notes.append("accuracy: share of frames in which a classifier of the data sees the requested digit.")
    if "moving" in columns:
        notes.append("moving: share of steps from frame to frame that are as long as those of real clips.")
    if "continuing" in columns:
        notes.append("continuing: share of steps that go on as the one before, or turn back at a wall; of copies none.")
    if "speed_distance" in columns:
        notes.append("speed distance: 1-Wasserstein, in pixels, between the speeds of an axis and those of real clips.")
    for line in lines:
        notes += [f"{line.label}, seed {seed}: {share:.0%} of the samples are copies of an earlier one."
                  for seed, share in _repetitive(line)]  # fmt: skip
    marks = {cell.mark for cell in cells}
    if MISSING in marks:
        notes.append("missing: no record yet.")
    lacking = [column for column in columns if _unsupported(column, lines)]
    if lacking:
        names = ", ".join(NAMES.get(column, column) for column in lacking)
        notes.append(f"{names}: these features do not define this metric, so it has no column.")
    if any(line.cells[c].mark == "unsupported" for line in lines for c in line.cells if c not in lacking):
        notes.append("unsupported: these features do not define this metric.")
    if any(cell.mark == "estimated" for cell in cells):
        notes.append("≈: estimated, not measured.")
    from harness.metrics.features import space

    if len(_spaces(lines)) > 1:
        notes.append(_features(lines, [column for column in columns if column not in lacking]))
    of_data = [name for name in _spaces(lines) if space(name).data]
    notes += [f"@{name}: measured on that network's features, not Inception's; not "
              "comparable with the printed columns." for name in _spaces(lines) if name not in of_data]  # fmt: skip
    spaces = ", ".join(f"@{name}" for name in of_data)
    if spaces:
        notes.append(f"{spaces}: measured on the features of a small network trained on that data, not Inception's "
                     "or I3D's; not comparable with the printed columns.")  # fmt: skip
    if any(line.label == NOT_MADE for line in lines):
        notes.append(f"{NOT_MADE}: a row of the paper that has no counterpart in this suite.")
    return notes
