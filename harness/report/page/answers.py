"""The first lines of the page: what the records answer, in a few numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from harness.core.command import PAPER_SIZES
from harness.core.paper import BASELINE, CHALLENGER, COST_TABLES, TABLES
from harness.core.records import Record, ScoreRecord, of_kind
from harness.cost import CONVENTIONS, analytic, crossover
from harness.cost.conventions import thop_params
from harness.cost.published import agrees, published_costs
from harness.report.comparison import decided
from harness.report.lines import lines_of
from harness.suites.catalogue import FASHION, suite
from harness.suites.scales import MATCHED
from models import spec
from models.spec import PATCHES

ENDS = (256, 2048)
"""The resolutions of the first answer, in pixels: those that the paper's Table 4 begins and ends with."""


def answers(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Each a number or two, what they say, and the section that says more."""
    records = list(records)
    return [_cost(), _printed(), *_verdicts(records), *_scores(of_kind(records, ScoreRecord))]


def _cost() -> dict[str, Any]:
    dit, dim = (spec(f"{family}-{PAPER_SIZES[-1]}/{PATCHES[0]}") for family in (BASELINE, CHALLENGER))
    low, high = (analytic(dim, px).macs / analytic(dit, px).macs for px in ENDS)
    where = crossover(dim, dit)
    less = f" It costs less above {where:.0f} px." if where else ""
    return {
        "number": f"{low:.2f} → {high:.2f}",
        "text": f"times the multiply-adds of {dit.name} is what {dim.name} takes, at {ENDS[0]} and {ENDS[1]} px.{less}",
        "section": "cost",
    }


def _printed() -> dict[str, Any]:
    """How many printed cells come out under the convention that the paper counts by."""
    convention = CONVENTIONS["paper"]
    found: dict[str, list[bool]] = {"gflops": [], "params_m": []}
    cells = [cell for table in COST_TABLES for cell in published_costs(table).items()]
    for (model, px), cell in cells:
        cost = analytic(spec(model), px, convention.batch or 1)
        for column, value in (("gflops", convention.total(cost) / 1e9), ("params_m", thop_params(cost) / 1e6)):
            match = agrees(value, cell.get(f"published_{column}", ""))
            found[column] += [] if match is None else [match]
    gflops, params = (f"{sum(several)} of {len(several)}" for several in found.values())
    return {
        "number": gflops,
        "text": f"printed Gflops, and {params} printed parameters, are what {convention.tool} counts of "
        f"{convention.batch} images, without attention and without the scan.",
        "section": "tables",
    }


def _verdicts(records: Sequence[Record]) -> list[dict[str, Any]]:
    """How many of the comparisons at equal parameters on photographs are decided, by size and by patch."""
    found = suite(FASHION, records)
    verdicts: dict[tuple[str, str], list[str]] = {}
    for number in (5, 6):  # p is adjusted within a table
        for pair, p in decided(lines_of(TABLES[number], found, records), "fid", over_steps=False):
            if pair.kind == MATCHED:
                verdicts.setdefault((pair.name, pair.rival), []).append(pair.verdict(p))
    if not verdicts:
        return []
    sure = sum("inconclusive" not in several for several in verdicts.values())
    return [{"number": f"{sure} of {len(verdicts)}", "section": "tables",
             "text": f"comparisons of {CHALLENGER} and {BASELINE} at equal parameters, on photographs, are decided by "
             "the Fréchet distance at the end of training. The others are inconclusive."}]  # fmt: skip


def _scores(scores: list[ScoreRecord]) -> list[dict[str, Any]]:
    runs = {str(record.get("source")).partition("/checkpoints/")[0] for record in scores if record.get("training")}
    if not runs:
        return []
    return [{"number": f"{len(scores):,}", "section": "quality",
             "text": f"scores of {len(runs)} training runs, each with its seed, protocol and command."}]  # fmt: skip
