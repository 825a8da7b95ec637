"""Figures of measured quality: over training steps, against exact cost and parameters, guidance and patch size."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.core.paper import TABLES
from harness.core.records import Record
from harness.report.cells import cell_of_row, evaluations
from harness.report.figures import style
from harness.suites.budget import exact_cost
from harness.suites.scales import GUIDANCE
from models.families import FAMILIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from harness.suites.rows import Suite

LABELS = {"fid": "FID", "fd": "FD"}
ASIDE = {"": (1, 1), "matched": (1, -1), "equal-macs": (-1, -1)}
"""On which side of its point the size of a variant is written (right, up): neighbours do not meet."""


@dataclass(frozen=True)
class Point:
    """The Fréchet distance of a model at a step and guidance, over seeds."""

    model: str
    family: str
    variant: str
    step: int
    guidance: float
    quantity: str
    values: tuple[float, ...]
    params: int
    macs: int

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def size(self) -> str:
        """Of the size table: T of DiM-T/4-matched."""
        return _part(self.model, 1)

    @property
    def patch(self) -> int:
        return int(_part(self.model, 2))

    @property
    def kind(self) -> tuple[str, str]:
        return self.family, self.variant


def _part(model: str, group: int) -> str:
    match = re.match(r"\w+-([A-Z]+)/(\d+)", model)
    assert match, model
    return match[group]


def points(suite: Suite, records: Iterable[Record], part: str = "") -> list[Point]:
    """What is measured of a suite's images, or of one part of it, each model, step and guidance once."""
    known = evaluations(records)
    found: dict[tuple[str, int, float], Point] = {}
    for row in suite.rows:
        if part not in ("", row.part):
            continue
        cell, used = cell_of_row(row, "fid", known)
        if not used:
            continue
        score, cost = row.scores[0], exact_cost(row.scores[0].run)
        point = Point(used[0].workload["model"], row.family, row.variant, score.step, score.cfg_scale, cell.quantity,
                      cell.values, cost.params, cost.macs)  # fmt: skip
        key = (point.model, point.step, point.guidance)
        if key not in found or len(found[key].values) < len(point.values):
            found[key] = point
    return list(found.values())


def _need(chosen: Sequence[Point], suite: Suite, figure: str, distinct: Callable[[Point], Any]) -> None:
    if len(set(map(distinct, chosen))) < 2:
        raise ValueError(f"{figure} has no records: python -m harness.reproduce --suite {suite.name} makes them")


def _usual(chosen: list[Point]) -> list[Point]:
    """Those at the paper's guidance, or where there are none, at the most common one."""
    scales = [point.guidance for point in chosen]
    usual = GUIDANCE if GUIDANCE in scales else max(scales, key=scales.count, default=GUIDANCE)
    return [point for point in chosen if point.guidance == usual]


def _last(chosen: list[Point]) -> list[Point]:
    """Those of the last step."""
    return [point for point in chosen if point.step == max(p.step for p in chosen)]


def _draw(axes: Axes, chosen: Sequence[Point], x: Callable[[Point], float], label: str, band: bool = False) -> None:
    """A line through the means of points of one kind, with a standard deviation either way: as bars, or as a band."""
    several = sorted(chosen, key=x)
    look = style.look(*several[0].kind)
    where, means = [x(p) for p in several], [p.mean for p in several]
    deviations = [p.deviation for p in several]
    if band:
        axes.plot(where, means, label=label, **look)
        low, high = ([mean + sign * d for mean, d in zip(means, deviations, strict=True)] for sign in (-1, 1))
        axes.fill_between(where, low, high, color=look["color"], alpha=0.2, linewidth=0)
    else:
        axes.errorbar(where, means, yerr=deviations, label=label, capsize=2, elinewidth=0.8, **look)


def _kinds(chosen: Sequence[Point]) -> list[tuple[str, str]]:
    order = [(family.name, variant) for family in FAMILIES for variant in (*family.depths, "equal-macs")]
    return [kind for kind in order if any(point.kind == kind for point in chosen)]


def _seeds(chosen: Sequence[Point]) -> str:
    counts = sorted({len(point.values) for point in chosen})
    return f"mean, ± standard deviation over {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "") + " seeds"


def training_figure(suite: Suite, records: Iterable[Record]) -> Figure:
    """Figure 1: quality against training steps, a panel a size, both families, a band over seeds."""
    chosen = _usual(points(suite, records))
    lines = {(p.size, p.patch, p.kind) for p in chosen}
    several = {line: [p for p in chosen if (p.size, p.patch, p.kind) == line] for line in lines}
    chosen = [p for points_ in several.values() if len(points_) > 1 for p in points_]
    _need(chosen, suite, "figure 1", lambda point: point.step)
    panels = sorted({(p.size, p.patch) for p in chosen}, key=lambda panel: (_width(panel[0]), -panel[1]))
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    drawing, grid = style.sheet(
        max(style.COLUMN, columns * style.PAGE / 4), 2.2 * rows, rows, columns, squeeze=False, sharex=True, sharey=True
    )
    for axes, panel in zip(grid.flat, panels, strict=False):
        for kind in _kinds(chosen):
            line = several.get((*panel, kind), [])
            if len(line) > 1:
                _draw(axes, line, lambda point: point.step, style.words(*kind), band=True)
        axes.set(title=f"{panel[0]}/{panel[1]}", xlabel="training steps")
        style.plain_log(axes, "y")
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel(_quality(chosen))
    named: dict[str, Any] = {}
    for axes in grid.flat:
        named |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    drawing.legend(named.values(), named.keys(), loc="outside upper center", ncols=len(named))
    drawing.supxlabel(_seeds(chosen), fontsize=6.5, color=style.GREY)
    return drawing


def _width(size: str) -> int:
    from models.spec import SIZES

    return SIZES[size].width


def _quality(chosen: Sequence[Point]) -> str:
    return f"{LABELS.get(chosen[0].quantity, chosen[0].quantity)} (lower is better)"


@dataclass(frozen=True)
class AgainstCost:
    """Quality of the models of a part, one patch and several sizes, against an amount.

    `units` are a large and a small one, with their size.
    """

    part: str
    amount: Callable[[Point], int]
    label: str
    units: tuple[tuple[float, str], tuple[float, str]]

    def __call__(self, suite: Suite, records: Iterable[Record]) -> Figure:
        chosen = _last(_usual(points(suite, records, self.part)))
        _need(chosen, suite, f"quality against {self.label}", lambda point: point.model)
        largest = max(map(self.amount, chosen))
        size, unit = next(((size, name) for size, name in self.units if largest >= size), self.units[-1])

        def x(point: Point) -> float:
            return self.amount(point) / size

        drawing, axes = style.sheet(style.COLUMN, 2.8)
        for kind in _kinds(chosen):
            _draw(axes, [point for point in chosen if point.kind == kind], x, style.words(*kind))
        for point in chosen:
            right, up = ASIDE.get(point.variant, (-1, 1))
            where: dict[str, Any] = {"xytext": (3 * right, 3 * up), "textcoords": "offset points", "fontsize": 6}
            where |= {"ha": "left" if right > 0 else "right", "va": "bottom" if up > 0 else "top"}
            where["color"] = style.look(*point.kind)["color"]
            axes.annotate(point.size, (x(point), point.mean), **where)
        style.plain_log(axes, "x", (1, 2, 5))
        style.plain_log(axes, "y")
        axes.set(xlabel=f"{self.label} ({unit})", ylabel=_quality(chosen))
        axes.set_title(f"patch {chosen[0].patch}, {chosen[0].step:,} steps; {_seeds(chosen)}", fontsize=6.5)
        axes.legend()
        return drawing


@dataclass(frozen=True)
class Swept:
    """Quality of the models of a part over what its rows vary. Points of one kind and one `line` are joined."""

    part: str
    name: str
    x: Callable[[Point], float]
    label: str
    line: Callable[[Point], str]
    line_label: Callable[[Point], str]

    def __call__(self, suite: Suite, records: Iterable[Record]) -> Figure:
        chosen = points(suite, records, self.part)
        _need(chosen, suite, self.name, self.x)
        drawing, axes = style.sheet(style.COLUMN, 2.6)
        for kind in _kinds(chosen):
            alike = [point for point in chosen if point.kind == kind]
            for name in sorted(set(map(self.line, alike))):
                line = [point for point in alike if self.line(point) == name]
                _draw(axes, line, self.x, self.line_label(line[0]))
        axes.set_xticks(sorted(set(map(self.x, chosen))))
        style.plain_log(axes, "y")
        axes.set(xlabel=self.label, ylabel=_quality(chosen))
        axes.set_title(_seeds(chosen), fontsize=6.5)
        axes.legend()
        return drawing


gmacs_figure = AgainstCost(
    TABLES[6].part,
    lambda point: point.macs,
    "exact cost of a forward pass",
    ((1e9, "GMAC"), (1e6, "MMAC")),
)
params_figure = AgainstCost(
    TABLES[6].part, lambda point: point.params, "parameters", ((1e6, "million"), (1e3, "thousand"))
)
guidance_figure = Swept(
    TABLES[7].part,
    "the guidance figure",
    lambda point: point.guidance,
    "guidance scale (1: none)",
    lambda point: point.model,
    lambda point: point.model,
)
patch_figure = Swept(
    TABLES[5].part,
    "the patch-size figure",
    lambda point: point.patch,
    "patch size (latent positions a side)",
    lambda point: point.size,
    lambda point: style.words(*point.kind),
)
