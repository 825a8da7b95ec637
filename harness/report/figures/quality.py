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
from harness.suites.rows import SEQUENCE
from harness.suites.scales import GUIDANCE
from models.families import FAMILIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from harness.report.lines import Line
    from harness.suites.rows import Suite

LABELS = {"fid": "FID", "fd": "FD"}
LETTERED: dict[str, Any] = {"markersize": 9, "markeredgecolor": "white", "markeredgewidth": 0.5}
"""Markers large enough for a letter inside."""


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
        if part not in ("", row.part) or (row.part == SEQUENCE and not part):  # images of another size
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


def _draw(
    axes: Axes, chosen: Sequence[Point], x: Callable[[Point], float], label: str, band: bool = False, **further: Any
) -> None:
    """A line through the means of points of one kind, with a standard deviation either way: as bars, or as a band.

    `further` are arguments of `plot`.
    """
    if not chosen:
        return
    several = sorted(chosen, key=x)
    look = style.look(*several[0].kind) | further
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
        axes.set(title=f"size {panel[0]}, patch {panel[1]}", xlabel="training steps")
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
    """Quality of the models of a part, one patch and several sizes, against an amount, with a user's own beside them.

    `units` are a large and a small one, with their size; `of_line` is the amount of a row of a table.
    """

    part: str
    amount: Callable[[Point], int]
    label: str
    units: tuple[tuple[float, str], tuple[float, str]]
    of_line: Callable[[Line], float | None]

    def __call__(self, suite: Suite, records: Iterable[Record], yours: Sequence[Line] = ()) -> Figure:
        chosen = _last(_usual(points(suite, records, self.part)))
        _need(chosen, suite, f"quality against {self.label}", lambda point: point.model)
        largest = max(map(self.amount, chosen))
        size, unit = next(((size, name) for size, name in self.units if largest >= size), self.units[-1])

        def x(point: Point) -> float:
            return self.amount(point) / size

        drawing, axes = style.sheet(style.COLUMN, 3.2)
        for kind in _kinds(chosen):
            _draw(axes, [point for point in chosen if point.kind == kind], x, style.words(*kind), **LETTERED)
        for point in chosen:
            where: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": 5, "color": "white"}
            below = -1 if style.look(*point.kind)["marker"] == "^" else 0  # the middle of a triangle is lower
            where |= {"xytext": (0, below), "textcoords": "offset points"}
            axes.annotate(point.size, (x(point), point.mean), weight="bold", zorder=5, **where)
        draw_own(axes, [(line, amount / size) for line in yours if (amount := self.of_line(line))])
        style.plain_log(axes, "x", (1, 2, 5))
        style.plain_log(axes, "y")
        axes.set(xlabel=f"{self.label} ({unit})", ylabel=_quality(chosen))
        drawing.legend(
            loc="outside upper center",
            ncols=1 if yours else 2,
            title=f"patch {chosen[0].patch}, {chosen[0].step:,} steps; letters: size",
        )
        drawing.supxlabel(_seeds(chosen), fontsize=6.5, color=style.GREY)
        return drawing


def draw_own(axes: Axes, several: Sequence[tuple[Line, float]]) -> None:
    """A mark for each of a user's rows that has a Fréchet distance, at what is given with it."""
    for (line, x), look in zip(several, style.own_looks(len(several)), strict=True):
        mean = line.cells["fid"].mean
        if mean is not None:
            axes.plot([x], [mean], label=line.label, **look)


def guidance_figure(suite: Suite, records: Iterable[Record]) -> Figure:
    """Quality against the guidance scale, a line a model."""
    chosen = points(suite, records, TABLES[7].part)
    _need(chosen, suite, "the guidance figure", lambda point: point.guidance)
    drawing, axes = style.sheet(style.COLUMN, 2.4)
    ends = []
    for model in dict.fromkeys(point.model for kind in _kinds(chosen) for point in chosen if point.kind == kind):
        line = [point for point in chosen if point.model == model]
        _draw(axes, line, lambda point: point.guidance, model)
        last = max(line, key=lambda point: point.guidance)
        ends.append((last.guidance, last.mean, model, style.look(*last.kind)["color"]))
    axes.set_xticks(sorted({point.guidance for point in chosen}))
    style.plain_log(axes, "y")
    axes.set(xlabel="guidance scale (1: none)", ylabel=_quality(chosen))
    style.label_ends(axes, ends)
    drawing.supxlabel(_seeds(chosen), fontsize=6.5, color=style.GREY)
    return drawing


def patch_figure(suite: Suite, records: Iterable[Record]) -> Figure:
    """Quality by patch size, a panel a patch on a scale of its own: one token says nothing about sixteen."""
    chosen = points(suite, records, TABLES[5].part)
    _need(chosen, suite, "the patch-size figure", lambda point: point.patch)
    patches, kinds = sorted({point.patch for point in chosen}), _kinds(chosen)
    drawing, grid = style.sheet(style.COLUMN, 2.4, 1, len(patches), squeeze=False)
    for axes, patch in zip(grid[0], patches, strict=True):
        here = [point for point in chosen if point.patch == patch]
        for kind in kinds:
            alike = [point for point in here if point.kind == kind]
            _draw(axes, alike, lambda point: kinds.index(point.kind), style.words(*kind))
        axes.set(title=f"patch {patch}", ylim=(0, None), xlim=(-0.6, len(kinds) - 0.4))
        axes.set_xticks([])
    grid[0][0].set_ylabel(_quality(chosen))
    named = dict(zip(*reversed(grid[0][0].get_legend_handles_labels()), strict=True))
    drawing.legend(named.values(), named.keys(), loc="outside upper center", ncols=2)
    drawing.supxlabel(_seeds(chosen), fontsize=6.5, color=style.GREY)
    return drawing


gmacs_figure = AgainstCost(
    TABLES[6].part,
    lambda point: point.macs,
    "exact cost of a forward pass",
    ((1e9, "GMAC"), (1e6, "MMAC")),
    lambda line: line.gmacs and 1e9 * line.gmacs,
)
params_figure = AgainstCost(
    TABLES[6].part,
    lambda point: point.params,
    "parameters",
    ((1e6, "million"), (1e3, "thousand")),
    lambda line: line.params_m and 1e6 * line.params_m,
)
