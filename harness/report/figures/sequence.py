"""Quality of one family over that of another, against the length of the sequence that their mixers see."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.core.paper import BASELINE, CHALLENGER
from harness.core.records import Record
from harness.report.cells import NAMES, cell_of_row, evaluations
from harness.report.claims import LEVEL, welch
from harness.report.figures import style
from harness.report.lines import counterpart_of
from harness.suites.rows import SEQUENCE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from harness.suites.rows import Suite


@dataclass(frozen=True)
class Ratio:
    """A model's Fréchet distance over its rival's at one length: below 1 the model is better.

    It is a ratio of geometric means over training seeds; `low` and `high` end its 95 % interval, None where a side has
    one seed. `contest` says what the tokens are of, and `distances` are the model's and its rival's, with their spread.
    """

    family: str
    variant: str
    tokens: int
    contest: str
    distances: tuple[str, str]
    quantity: str
    value: float
    low: float | None
    high: float | None
    seeds: tuple[int, int]


def ratio(values: Sequence[float], rivals: Sequence[float]) -> tuple[float, float | None, float | None]:
    """The ratio of two geometric means, and its 95 % interval by Welch's t on the logarithms."""
    own, other = ([math.log(value) for value in side] for side in (values, rivals))
    middle = sum(own) / len(own) - sum(other) / len(other)
    test = welch(own, other)
    if test is None:
        return math.exp(middle), None, None
    from scipy import stats

    reach = test.standard_error * float(stats.t.ppf(1 - LEVEL / 2, test.df))
    return math.exp(middle), math.exp(middle - reach), math.exp(middle + reach)


def ratios(suite: Suite, records: Iterable[Record]) -> list[Ratio]:
    """The ratios of a suite's models of one size at several lengths, where both sides are measured."""
    known = evaluations(records)
    rows = [row for row in suite.rows if row.part == SEQUENCE]
    found = []
    for row in rows:
        others = [one for one in rows if one.contest == row.contest and one.family == counterpart_of(row.family)]
        if not others:
            continue
        (cell, _), (rival, _) = (cell_of_row(one, "fid", known) for one in (row, others[0]))
        if cell.values and rival.values and min(*cell.values, *rival.values) > 0:
            run = row.scores[0].run
            found.append(
                Ratio(
                    row.family, row.variant, run.spec.tokens(run.config.resolution), row.contest,
                    (cell.text(counted=False), rival.text(counted=False)), cell.quantity,
                    *ratio(cell.values, rival.values), (len(cell.values), len(rival.values)),
                )
            )  # fmt: skip
    return sorted(found, key=lambda one: one.tokens)


def sequence_figure(suite: Suite, records: Iterable[Record]) -> Figure:
    """The ratio of the Fréchet distances against tokens, a line a way of making the models comparable.

    Raises ValueError for a suite that gives both families the same settings, and where fewer than two lengths are
    measured.
    """
    if not suite.choices:
        raise ValueError(
            f"quality against sequence length compares families at their own settings, and suite {suite.name} has one "
            "learning rate for both: choose --suite fashion"
        )
    found = ratios(suite, records)
    if len({one.tokens for one in found}) < 2:
        raise ValueError(
            f"quality against sequence length has no records: python -m harness.reproduce --suite {suite.name} makes "
            "them"
        )
    drawing, axes = style.sheet(style.COLUMN, 2.6)
    kinds = list(dict.fromkeys((one.family, one.variant) for one in found))
    for index, kind in enumerate(kinds):
        line = [one for one in found if (one.family, one.variant) == kind]
        apart = 1 + 0.06 * (index - (len(kinds) - 1) / 2)  # intervals of one length stand beside each other
        where, middle = [one.tokens * apart for one in line], [one.value for one in line]
        ends = [(one.low or one.value, one.high or one.value) for one in line]
        reach = [
            [value - low for value, (low, _) in zip(middle, ends, strict=True)],
            [high - value for value, (_, high) in zip(middle, ends, strict=True)],
        ]
        look: dict[str, Any] = style.look(*kind)
        axes.errorbar(where, middle, yerr=reach, label=style.words(*kind), capsize=2, elinewidth=0.8, **look)
    axes.axhline(1, color=style.GREY, linewidth=0.8, zorder=0)
    lengths = sorted({one.tokens for one in found})
    axes.set(xscale="log", yscale="log", xlabel="tokens")
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.set_xticks([], minor=True)
    style.plain_log(axes, "y")
    name = NAMES.get(found[0].quantity, found[0].quantity)
    axes.set_ylabel(f"{name}, {CHALLENGER} / {BASELINE}")
    drawing.legend(loc="outside upper center", ncols=1)
    counts = sorted({count for one in found for count in one.seeds})
    seeds = f"{counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "")
    drawing.supxlabel(
        f"below 1 {CHALLENGER} is better; {seeds} seeds a side, 95 % interval",
        fontsize=6.5, color=style.GREY,
    )  # fmt: skip
    return drawing
