"""Quality against what training cost: multiply-adds, and seconds of a processor as measured, all models together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.core.paper import BASELINE, CHALLENGER
from harness.core.records import Record
from harness.report.cells import NAMES, cell_of_row, evaluations
from harness.report.figures import style
from harness.report.figures.quality import draw_own
from harness.suites.budget import BACKWARD, training_macs
from harness.suites.rows import SEQUENCE
from harness.suites.scales import GUIDANCE
from harness.suites.steps import step_seconds

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from harness.report.lines import Line
    from harness.suites.rows import Suite

    Array = NDArray[np.float64]

LEVEL = 0.95
FEWEST = 4
"""Models of each of the two families of the paper that lines are drawn from on."""


@dataclass(frozen=True)
class Trained:
    """A model after some steps: its family and variant, the mean over seeds of the Fréchet distance, and its cost.

    `ended` says whether these are all of its steps.
    """

    model: str
    family: str
    variant: str
    distance: float
    flops: float
    seconds: float | None
    quantity: str
    ended: bool


def trained(suite: Suite, records: Iterable[Record]) -> list[Trained]:
    """Every model and step of a suite's images that is measured at the paper's guidance, once."""
    records = list(records)
    known = evaluations(records)
    rows = [row for row in suite.rows if row.part != SEQUENCE]  # those are of images of another size
    step = step_seconds((row.scores[0].run for row in rows), records)
    found: dict[tuple[str, int, int], Trained] = {}
    for row in rows:
        score = row.scores[0]
        cell, used = cell_of_row(row, "fid", known)
        if cell.mean is None or score.cfg_scale != GUIDANCE:
            continue
        stated = (record.get("training_cpu_seconds") for record in used)
        seconds = [score.step * step[score.run] if step else second for second in stated if step or second]
        one = Trained(
            score.run.model, row.family, row.variant, cell.mean,
            2 * training_macs(score.run) * score.step / score.run.config.steps,
            statistics.fmean(seconds) if len(seconds) == len(used) else None, cell.quantity,
            score.step == score.run.config.steps,
        )  # fmt: skip
        found.setdefault((score.run.model, score.run.config.depth, score.step), one)  # a run may be of two variants
    return list(found.values())


def power_law(x: Sequence[float], y: Sequence[float], at: Array) -> tuple[Array, Array, Array]:
    """y = a x^b by least squares on logarithms, at some x, with the 95 % band of the line (Student's, n - 2 degrees).

    Raises ValueError for fewer than three points.
    """
    import numpy as np
    from scipy import stats

    if len(x) < 3:
        raise ValueError(f"a line with a band needs three points, not {len(x)}")
    u, v, w = np.log(np.asarray(x)), np.log(np.asarray(y)), np.log(at)
    slope, intercept = np.polyfit(u, v, 1)
    variance = float(((v - intercept - slope * u) ** 2).sum()) / (len(u) - 2)
    spread = float(((u - u.mean()) ** 2).sum())
    error = np.sqrt(variance * (1 / len(u) + (w - u.mean()) ** 2 / spread))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, len(u) - 2)) * error
    middle = intercept + slope * w
    return np.exp(middle), np.exp(middle - reach), np.exp(middle + reach)


def own_training_flops(line: Line) -> float | None:
    """What the training of a user's row cost up to its step; None where its records do not state its task and batch."""
    training, step = line.records[0].get("training") or {}, line.records[0].get("step")
    if not line.gmacs or not training.get("batch") or not step:
        return None
    return 2 * BACKWARD * 1e9 * line.gmacs * float(training["batch"]) * float(step)


def frontier_figure(suite: Suite, records: Iterable[Record], yours: Sequence[Line] = ()) -> Figure:
    """A panel a cost; a point a model and step, and a family's power law with its band over the models that ended.

    Milestones of one training depend on each other, so they are drawn, but not fitted. A user's rows stand over their
    FLOPs alone: their time is of another machine.

    Raises ValueError where no training time is recorded.
    """
    found = trained(suite, records)
    timed = [one for one in found if one.seconds]
    if len({one.model for one in timed}) < 2:
        raise ValueError(f"the frontier needs records with the seconds of training, and suite {suite.name} has none")
    drawing, (left, right) = style.sheet(style.PAGE, 3.0, 1, 2, sharey=True)
    power = 3 * int(math.log10(max(one.flops for one in found)) // 3)
    _panel(left, [(one, one.flops / 10**power) for one in found], f"training, $10^{{{power}}}$ FLOP")
    draw_own(left, [(line, flops / 10**power) for line in yours if (flops := own_training_flops(line))])
    _panel(right, [(one, float(one.seconds or math.nan)) for one in timed], "training, seconds")
    left.set_ylabel(f"{NAMES.get(found[0].quantity, found[0].quantity)} (lower is better)")
    drawing.legend(loc="outside upper center", ncols=3 if yours else 5, handles=left.get_legend_handles_labels()[0])
    drawing.supxlabel(
        "mean over training seeds; small: before the end of training\n"
        f"line and 95 % band (from {FEWEST} models of {BASELINE} and of {CHALLENGER} on): power law of a family at the "
        "end of training",
        fontsize=6.5, color=style.GREY,
    )  # fmt: skip
    return drawing


def _panel(axes: Axes, several: Sequence[tuple[Trained, float]], label: str) -> None:
    ends: dict[str, list[tuple[float, float]]] = {}
    for family in dict.fromkeys(one.family for one, _ in several):
        own = [(one, cost) for one, cost in several if one.family == family]
        ends[family] = [(cost, one.distance) for one, cost in own if one.ended]
        for variant in dict.fromkeys(one.variant for one, _ in own):
            look: dict[str, Any] = {**style.look(family, variant), "linestyle": "none"}
            for ended, further in ((True, {"label": style.words(family, variant)}), (False, {"markersize": 2.5})):
                alike = [(cost, one.distance) for one, cost in own if (one.variant, one.ended) == (variant, ended)]
                if alike:
                    axes.plot(*zip(*alike, strict=True), **look | further)
    fitted = {family: ends[family] for family in (BASELINE, CHALLENGER) if family in ends}
    if all(len({cost for cost, _ in points}) >= FEWEST for points in fitted.values()):
        for family, points in fitted.items():
            _line(axes, points, style.look(family)["color"])
    axes.set(xlabel=label)
    for axis in "xy":
        style.plain_log(axes, axis)


def _line(axes: Axes, points: Sequence[tuple[float, float]], colour: str) -> None:
    """The power law of one family, with its band."""
    import numpy as np

    costs, distances = zip(*points, strict=True)
    at = np.geomspace(min(costs), max(costs), 50)
    middle, low, high = power_law(costs, distances, at)
    axes.plot(at, middle, color=colour, linewidth=1)
    axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
