"""Parts of documents on quality: scores of small models, verdicts, settings, and the times that these compare at."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median
from typing import TYPE_CHECKING

from harness.core.paper import BASELINE, CHALLENGER, TableSpec
from harness.core.paper import FAMILIES as FAMILIES_TABLE
from harness.core.paper import TABLES as PAPER
from harness.core.records import Record
from harness.report.document_tables import grid, preloaded
from harness.suites.budget import exact_cost

if TYPE_CHECKING:
    from harness.report.comparison import Pair
    from harness.report.layout import Table
    from harness.suites.rows import Suite

PHOTOGRAPHS = {7: "guidance", 2: "training steps", 6: "size, at patch 4", 5: "patch, at size N"}
"""The tables of quality on photographs, in the order in which they are measured, and what they vary."""


def clip_scores(records: Sequence[Record], name: str) -> str:
    """The measured side of Table 3 of a suite of clips, as far as it is measured, and the score of real clips."""
    from harness.report.quality import quality_table
    from harness.report.tuning import floor
    from harness.suites.catalogue import suite

    found = suite(name, records)
    return f"{grid(*_measured_side(quality_table(3, found, records)))}\n\n{floor(found, records)}"


def clip_verdicts(records: Sequence[Record], name: str) -> str:
    """Which family has the lower Fréchet distance in a suite of clips, and how sure that is."""
    from harness.report.claims import RULE
    from harness.suites.catalogue import suite

    compared = _compared(PAPER[3], suite(name, records), records, "fvd")
    rows = [_verdict_cells(pair, p) for pair, p in compared]
    header = ["model", "baseline", "difference of FVD (95 % interval)", "relative", "verdict"]
    return f"{grid(header, rows)}\n\n{RULE}"


def _compared(table: TableSpec, suite: Suite, records: Sequence[Record], column: str) -> list[tuple[Pair, float]]:
    """What a table of quality compares in a column, each with its adjusted p."""
    from harness.report.comparison import decided
    from harness.report.lines import lines_of

    return decided(lines_of(table, suite, records), column, "step" in table.varies)


def _verdict_cells(pair: Pair, p: float) -> list[str]:
    return [f"{pair.name}{pair.at}", pair.rival, pair.absolute, pair.relative, f"**{pair.verdict(p)}**"]


def _measured_side(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table of quality without its printed columns and without rows that have no score yet."""
    from harness.report.cells import MISSING, NOT_MADE

    block = table.blocks[0]
    first = block.groups[0][1] if block.groups else 0  # the printed columns stand before
    texts = [[str(cell) for cell in row[first:]] for row in block.rows]
    return block.header[first:], [row for row in texts if row[0] != NOT_MADE and row[-1] != MISSING]


def photograph_scores(records: Sequence[Record]) -> str:
    """The measured side of the image tables on photographs, as far as they are measured, and the score of real ones."""
    from harness.report.quality import quality_table
    from harness.report.tuning import floor
    from harness.suites.catalogue import FASHION, suite

    found, parts = suite(FASHION, records), []
    for number, varied in PHOTOGRAPHS.items():
        header, rows = _measured_side(quality_table(number, found, records))
        varies = sum(row[0].startswith(BASELINE) for row in rows) > 1
        parts += [f"By {varied}:\n\n{grid(header, rows)}"] if varies else []
    return "\n\n".join([*parts, floor(found, records)])


def seed_distances(records: Sequence[Record]) -> str:
    """The Fréchet distance of every training seed on photographs, at the end of training, and their median."""
    from harness.report.lines import lines_of
    from harness.suites.catalogue import FASHION, suite

    found, known = suite(FASHION, records), dict[str, dict[int, list[float]]]()
    for line in (line for number in (6, 5) for line in lines_of(PAPER[number], found, records)):  # by size, by patch
        draws: dict[int, list[float]] = {}
        for record in line.records:
            if record.quantity == line.cells["fid"].quantity and record.value is not None:
                draws.setdefault(record.workload["training"]["seed"], []).append(float(record.value))
        if draws:
            known[line.label] = draws
    seeds = sorted({seed for draws in known.values() for seed in draws})
    rows = []
    for model, draws in known.items():
        means = {seed: fmean(values) for seed, values in draws.items()}
        cells = (f"{means[seed]:.0f}" if seed in means else "" for seed in seeds)
        rows.append([model, *cells, f"{median(means.values()):.0f}"])
    return grid(["model", *(f"seed {seed}" for seed in seeds), "median"], rows)


def photograph_verdicts(records: Sequence[Record]) -> str:
    """Which family has the lower Fréchet distance on photographs, and how sure that is, as far as it is measured."""
    from harness.report.claims import RULE
    from harness.suites.catalogue import FASHION, suite

    found, rows = suite(FASHION, records), []
    for number, varied in PHOTOGRAPHS.items():
        compared = _compared(PAPER[number], found, records, "fid")
        if len({pair.rival for pair, _ in compared}) > 1:  # else nothing is varied yet
            rows += [[varied, *_verdict_cells(pair, p)] for pair, p in compared]
    header = ["rows differ in", "model", "baseline", "difference of FD (95 % interval)", "relative", "verdict"]
    within = "In this table, p is adjusted among the rows that differ in the same thing."
    return f"{grid(header, rows)}\n\n{RULE} {within}" if rows else ""


def chosen_settings(records: Sequence[Record], name: str) -> str:
    """The settings of each family in a suite, at the models that they were chosen at, as far as they are."""
    from harness.report.tuning import TITLES
    from harness.suites.catalogue import suite

    chosen: dict[str, dict[str, str]] = {}
    for choice in suite(name, records).choices:
        made = choice.made(records)
        chosen.setdefault(choice.tuned, {})[choice.setting] = "" if made is None else f"{made:g}"
    titles = {setting: title for setting, title in TITLES.items() if any(setting in made for made in chosen.values())}
    rows = [[model, *(made.get(setting, "") for setting in titles)] for model, made in chosen.items()]
    return grid(["chosen at", *titles.values()], rows)


def family_scores(records: Sequence[Record]) -> str:
    """Every family on photographs, at equal parameters, as far as it is measured."""
    from harness.report.quality import table_of
    from harness.suites.catalogue import FASHION, suite

    return grid(*_measured_side(table_of(FAMILIES_TABLE, suite(FASHION, records), records)))


def family_verdicts(records: Sequence[Record]) -> str:
    """Which family has the lower Fréchet distance on photographs than its DiT, and how sure that is."""
    from harness.suites.catalogue import FASHION, suite

    rows = [_verdict_cells(pair, p) for pair, p in _compared(FAMILIES_TABLE, suite(FASHION, records), records, "fid")]
    return grid(["model", "baseline", "difference of FD (95 % interval)", "relative", "verdict"], rows)


def sequence_ratios(records: Sequence[Record]) -> str:
    """The Fréchet distance of the DiM over that of the DiT at each length of the sequence, as far as it is measured."""
    from harness.report.figures import style
    from harness.report.figures.sequence import ratios
    from harness.suites.catalogue import FASHION, suite

    alike: dict[tuple[str, ...], list[str]] = {}  # one run may be of equal parameters and of equal multiply-adds
    found = ratios(suite(FASHION, records), records)
    counted = len({count for one in found for count in one.seeds}) > 1
    for one in found:
        between = f" ({one.low:.2f} to {one.high:.2f})" if one.low and one.high else ""
        own, other = (
            f"{text} ({count})" if counted else text for text, count in zip(one.distances, one.seeds, strict=True)
        )
        row = (str(one.tokens), one.contest, other, own, f"{one.value:.2f}{between}")
        alike.setdefault(row, []).append(style.words("", one.variant).strip(", "))
    header = ["tokens", "images", f"FD of {BASELINE}", f"FD of {CHALLENGER}"]
    header += ["ratio of geometric means (95 % interval)", "compared at"]
    return grid(header, [[*row, " and ".join(kinds)] for row, kinds in alike.items()]) if alike else ""


def step_times(records: Sequence[Record]) -> str:
    """A training step of every model on photographs, timed side by side: milliseconds, and beside its DiT's."""
    from harness.diffusion.config import PRESETS
    from harness.suites.catalogue import FASHION, suite
    from harness.suites.steps import step_seconds

    runs = {run.spec: run for run in suite(FASHION, records).runs()
            if run.config.resolution == PRESETS[run.preset].resolution}  # fmt: skip
    seconds, wide = (step_seconds(runs.values(), of) for of in (records, preloaded()))
    rows = []
    for size, patch in sorted({(model.width, model.patch) for model in runs}, key=lambda one: (one[0], -one[1])):
        alike = [run for model, run in runs.items() if (model.width, model.patch) == (size, patch) and run in seconds]
        for run in alike:
            base = next(one for one in alike if one.spec.family == BASELINE)
            macs, time = exact_cost(run).macs / exact_cost(base).macs, seconds[run] / seconds[base]
            depth = f" of depth {run.config.depth}" if run.config.depth else ""
            other = f"{wide[run] / wide[base]:.2f}" if wide else ""
            rows.append([f"{run.model}{depth}", f"{1e3 * seconds[run]:.3g}", f"{time:.2f}", other, f"{macs:.2f}"])
    header = ["model", "ms a step", f"time over {BASELINE}'s", "with AVX-512", f"multiply-adds over {BASELINE}'s"]
    return grid(header, rows) if rows else ""
