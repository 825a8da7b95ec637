"""The tables inside README.md and docs/: made from the records, between two comments, and never typed.

<!-- made: crossovers -->
| size, patch 2 | ...
<!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

from harness.core import paths, store
from harness.core.paper import BASELINE, CHALLENGER, TableSpec, printed
from harness.core.paper import FAMILIES as FAMILIES_TABLE
from harness.core.paper import TABLES as PAPER
from harness.core.records import Record
from harness.cost import crossover
from harness.cost.analytic import at_tokens
from harness.cost.observatory import observe
from harness.report.cost import costs
from harness.report.crossing import Crossing, crossings
from harness.report.hardware import measured
from harness.report.observatory import largest, ratio
from harness.suites.budget import exact_cost
from models import ModelSpec, catalogue, counterpart, spec
from models.families import FAMILIES

if TYPE_CHECKING:
    from harness.report.comparison import Pair
    from harness.report.layout import Table
    from harness.suites.rows import Suite

MADE = re.compile(r"(<!-- made: (?P<name>[a-z-]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)
PRELOADED = paths.PROJECT / "benchmarks" / "mkl-avx512.jsonl"
SIZES = ("S", "B", "L", "XL")
PUBLISHED_AT = 256
"""Pixels a side: where most papers print a cost."""
PHOTOGRAPHS = {7: "guidance", 2: "training steps", 6: "size, at patch 4", 5: "patch, at size N"}
"""The tables of quality on photographs, in the order in which they are measured, and what they vary."""


def documents(root: Path) -> list[Path]:
    """README and the pages of docs/ under a folder."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def filled(text: str, records: Sequence[Record]) -> str:
    """A document with all its tables regenerated. Raises ValueError for a name that no table has."""

    def made(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in PARTS:
            raise ValueError(f"unknown part {name!r} of a document; choose from {', '.join(PARTS)}")
        return f"{match[1]}{PARTS[name](records)}\n{match['end']}"

    return MADE.sub(made, text)


def _grid(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def published_gflops(records: Sequence[Record]) -> str:
    """Table 4 as printed, under thop's rule, and exact, with a DiM's ratio to its DiT of both."""
    counted = {(row["model"], row.get("resolution")): row for row in costs(records) if "paper_gmacs" in row}
    shown = {(cell["model"], int(cell["resolution"])): cell["gflops"] for cell in printed(4)}
    rows = []
    for (model, pixels), gflops in shown.items():
        row, rival, ratios = counted[model, pixels], counterpart(spec(model)), ["", ""]
        if rival:
            beside, theirs = counted[rival.name, pixels], shown[rival.name, pixels]
            exact = row["exact_gmacs"] / beside["exact_gmacs"]
            number = theirs.replace(".", "").isdigit()
            ratios = [f"**{exact:.3f}**", f"{float(gflops) / float(theirs):.3f}" if number else f"({theirs})"]
        rows.append([model, str(pixels), gflops, f"{row['paper_gmacs']:.2f}", f"{row['exact_gmacs']:.2f}", *ratios])
    header = ["model", "resolution", 'published "Gflops"', "thop, batch of 3 (GMAC)", "exact, one image (GMAC)"]
    return _grid([*header, "exact, DiM / DiT", "published, DiM / DiT"], rows)


def crossovers(records: Sequence[Record]) -> str:
    """The resolutions from which on a model costs less than its counterpart, by size, at patch 2."""
    rows = []
    for family in (family for family in FAMILIES if family.counterpart):
        for variant, words in (("", "the published depths"), ("-matched", "equal parameters")):
            names = [f"{family.name}-{size}/2{variant}" for size in SIZES]
            cells = [_crossover_cell(name) if name in catalogue() else "" for name in names]
            if any(cells):
                rows.append([f"{family.name} costs less than {family.counterpart} above (px), {words}", *cells])
    return _grid(["size, patch 2", *SIZES], rows)


def _crossover_cell(name: str) -> str:
    rival = counterpart(spec(name))
    pixels = crossover(spec(name), rival) if rival else None
    return f"{pixels:.0f}" if pixels else "" if rival is None else "always" if _cheaper(name, rival) else "never"


def _cheaper(name: str, rival: ModelSpec) -> bool:
    """Whether a model that never meets its counterpart is the one below."""
    return at_tokens(spec(name), 1).macs < at_tokens(rival, 1).macs


def published_costs(records: Sequence[Record]) -> str:
    """Of each family the largest model whose cost is printed at 256 pixels, beside its exact cost; of data alone."""
    header = ["model", "printed (Gflops)", "by", "counting rule", "verdict", "not counted"]
    rows = []
    for one in largest(observe(), PUBLISHED_AT):
        shares: dict[str, float] = {}
        for name, share in one.missing.items():
            kind = name.partition(" ")[0]
            shares[kind] = shares.get(kind, 0) + share
        left_out = [f"{kind} {share:.1%}" for kind, share in sorted(shares.items(), key=lambda item: -item[1])]
        rule = one.best.reading.reading if one.best else ""
        rows.append([one.printed.model, one.printed.printed, one.printed.paper, rule, one.verdict, ", ".join(left_out),
                     f"{one.exact_gmacs:.2f}", f"{ratio(one):.3f}"])  # fmt: skip
    return _grid([*header, "exact (GMAC)", "printed per image / exact"], rows)


def measured_crossovers(records: Sequence[Record]) -> str:
    """Measured times of a forward pass over the counterpart's, where they are equal, and where multiply-adds are.

    Those of MKL's AVX-512 kernels on a CPU of AMD follow.
    """
    several = {"": records, ", with MKL's AVX-512 kernels": _preloaded()}
    return "\n\n".join(filter(None, (_times_over_counterparts(of, how) for how, of in several.items())))


def _preloaded() -> list[Record]:
    """What was measured with a library loaded before torch, by which MKL takes any CPU for Intel's."""
    return store.load(PRELOADED) if PRELOADED.is_file() else []


def _times_over_counterparts(records: Sequence[Record], how: str) -> str:
    found = [
        (device, one)
        for device, runs in measured(records).items()
        for one in crossings(runs)
        if one.action == "forward" and not one.rival_mixer.startswith("naive")
    ]
    resolutions = sorted({pixels for _, one in found for pixels in one.ratios})
    header = ["model", "divided by", *(f"{pixels} px" for pixels in resolutions)]
    header += ["equal time at (px)", "equal multiply-adds at (px)"]
    devices = dict.fromkeys(device for device, _ in found)
    return "\n\n".join(
        f"Time of a forward pass of the model, divided by that of its DiT (batch 1, {device}{how}):\n\n"
        + _grid(header, [_crossing_cells(one, resolutions) for where, one in found if where == device])
        for device in devices
    )


def _crossing_cells(one: Crossing, resolutions: Sequence[int]) -> list[str]:
    ratios = [f"{one.ratios[pixels]:.2f}" if pixels in one.ratios else "" for pixels in resolutions]
    equal = f"{one.equal_macs_pixels:.0f}" if one.equal_macs_pixels else "never"
    return [one.model, one.rival, *ratios, one.verdict, equal]


def clip_scores(records: Sequence[Record]) -> str:
    """The measured side of Table 3 on clips of digits, each family at its own best, and the score of real clips."""
    from harness.report.quality import quality_table
    from harness.report.tuning import floor
    from harness.suites.catalogue import CLIPS, suite

    found = suite(CLIPS, records)
    return f"{_grid(*_measured_side(quality_table(3, found, records)))}\n\n{floor(found, records)}"


def clip_verdicts(records: Sequence[Record]) -> str:
    """Which family has the lower Fréchet distance on clips of digits, and how sure that is."""
    from harness.report.claims import RULE
    from harness.suites.catalogue import CLIPS, suite

    compared = _compared(PAPER[3], suite(CLIPS, records), records, "fvd")
    rows = [_verdict_cells(pair, p) for pair, p in compared]
    header = ["model", "baseline", "difference of FVD (95 % interval)", "relative", "verdict"]
    return f"{_grid(header, rows)}\n\n{RULE}"


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
        parts += [f"By {varied}:\n\n{_grid(header, rows)}"] if varies else []
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
    return _grid(["model", *(f"seed {seed}" for seed in seeds), "median"], rows)


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
    return f"{_grid(header, rows)}\n\n{RULE} {within}" if rows else ""


def chosen_settings(records: Sequence[Record]) -> str:
    """The settings of each family on photographs, at the models that they were chosen at, as far as they are."""
    from harness.report.tuning import TITLES
    from harness.suites.catalogue import FASHION, suite

    chosen: dict[str, dict[str, str]] = {}
    for choice in suite(FASHION, records).choices:
        made = choice.made(records)
        chosen.setdefault(choice.tuned, {})[choice.setting] = "" if made is None else f"{made:g}"
    rows = [[model, *(settings.get(name, "") for name in TITLES)] for model, settings in chosen.items()]
    return _grid(["chosen at", *TITLES.values()], rows)


def family_scores(records: Sequence[Record]) -> str:
    """Every family on photographs, at equal parameters, as far as it is measured."""
    from harness.report.quality import table_of
    from harness.suites.catalogue import FASHION, suite

    return _grid(*_measured_side(table_of(FAMILIES_TABLE, suite(FASHION, records), records)))


def family_verdicts(records: Sequence[Record]) -> str:
    """Which family has the lower Fréchet distance on photographs than its DiT, and how sure that is."""
    from harness.suites.catalogue import FASHION, suite

    rows = [_verdict_cells(pair, p) for pair, p in _compared(FAMILIES_TABLE, suite(FASHION, records), records, "fid")]
    return _grid(["model", "baseline", "difference of FD (95 % interval)", "relative", "verdict"], rows)


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
    return _grid(header, [[*row, " and ".join(kinds)] for row, kinds in alike.items()]) if alike else ""


def step_times(records: Sequence[Record]) -> str:
    """A training step of every model on photographs, timed side by side: milliseconds, and beside its DiT's."""
    from harness.diffusion.config import PRESETS
    from harness.suites.catalogue import FASHION, suite
    from harness.suites.steps import step_seconds

    runs = {run.spec: run for run in suite(FASHION, records).runs()
            if run.config.resolution == PRESETS[run.preset].resolution}  # fmt: skip
    seconds, preloaded = (step_seconds(runs.values(), of) for of in (records, _preloaded()))
    rows = []
    for size, patch in sorted({(model.width, model.patch) for model in runs}, key=lambda one: (one[0], -one[1])):
        alike = [run for model, run in runs.items() if (model.width, model.patch) == (size, patch) and run in seconds]
        for run in alike:
            base = next(one for one in alike if one.spec.family == BASELINE)
            macs, time = exact_cost(run).macs / exact_cost(base).macs, seconds[run] / seconds[base]
            depth = f" of depth {run.config.depth}" if run.config.depth else ""
            wide = f"{preloaded[run] / preloaded[base]:.2f}" if preloaded else ""
            rows.append([f"{run.model}{depth}", f"{1e3 * seconds[run]:.3g}", f"{time:.2f}", wide, f"{macs:.2f}"])
    header = ["model", "ms a step", f"time over {BASELINE}'s", "with AVX-512", f"multiply-adds over {BASELINE}'s"]
    return _grid(header, rows) if rows else ""


def measured_memory(records: Sequence[Record]) -> str:
    """How far measured peaks of memory are from the predicted ones, by device."""
    lines = []
    for device, runs in measured(records).items():
        ratios = [r.parts["peak_bytes"] / r.parts["predicted_bytes"] for r in runs if r.verdict == "ok"]
        ran_out = [r for r in runs if r.verdict == "oom"]
        ends = f"; {len(ran_out)} runs ended out of memory" if ran_out else ""
        if ratios:
            between = f"{min(ratios):.3f} to {max(ratios):.3f}"
            lines.append(f"Measured over predicted peak on {device}: {between} in {len(ratios)} runs{ends}.")
    return "\n\n".join(lines)


def sizes(records: Sequence[Record]) -> str:
    """Width, heads and depths of the sizes that both families of the paper have; of the specifications alone."""
    from models.sizes import SIZES as EVERY

    names = [(size, [f"{BASELINE}-{size}/4", f"{CHALLENGER}-{size}/4", f"{CHALLENGER}-{size}/4-matched"])
             for size in EVERY]  # fmt: skip
    header = ["size", "width", "heads", f"blocks of {BASELINE}", f"of {CHALLENGER}", f"of {CHALLENGER} `-matched`"]
    rows = [
        [size, str(EVERY[size].width), str(EVERY[size].heads), *(str(spec(name).depth) for name in row)]
        for size, row in names
        if all(name in catalogue() for name in row)
    ]
    return _grid(header, rows)


def paper_hours(records: Sequence[Record]) -> str:
    """GPU-hours of the networks' multiply-adds in each training run of the suite at the paper's scale; of no record."""
    from harness.suites.budget import training_macs
    from harness.suites.catalogue import suite
    from harness.suites.estimate import DEVICE_FLOPS
    from harness.suites.scales import MATCHED

    columns = [BASELINE, CHALLENGER, f"{CHALLENGER}-{MATCHED}"]
    hours: dict[str, dict[str, str]] = {}
    for run in suite("paper").runs():
        matched = run.model.endswith(MATCHED)
        size = run.model.removeprefix(f"{run.spec.family}-").removesuffix(f"-{MATCHED}")
        images = f", {run.config.joint_images} joint images" if run.config.joint_images else ""
        name = f"{size}{images}: {max(run.milestones):,} steps"
        column = f"{run.spec.family}-{MATCHED}" if matched else run.spec.family
        hours.setdefault(name, {})[column] = f"{2 * training_macs(run) / DEVICE_FLOPS / 3600:,.1f}"
    rows = [[name, *(row.get(column, "") for column in columns)] for name, row in hours.items()]
    return _grid(["run", *columns], rows)


PARTS: dict[str, Callable[[Sequence[Record]], str]] = {
    "published-gflops": published_gflops,
    "crossovers": crossovers,
    "published-costs": published_costs,
    "measured-crossovers": measured_crossovers,
    "measured-memory": measured_memory,
    "clip-scores": clip_scores,
    "clip-verdicts": clip_verdicts,
    "photograph-scores": photograph_scores,
    "photograph-verdicts": photograph_verdicts,
    "chosen-settings": chosen_settings,
    "seed-distances": seed_distances,
    "family-scores": family_scores,
    "family-verdicts": family_verdicts,
    "sequence-ratios": sequence_ratios,
    "step-times": step_times,
    "sizes": sizes,
    "paper-hours": paper_hours,
}
