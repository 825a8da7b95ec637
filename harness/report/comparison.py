"""Each model against its rival at equal steps, and at equal training time: how much, how sure, and the verdict."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.core.records import ScoreRecord
from harness.report.cells import COLUMNS, two_digits
from harness.report.claims import LEVEL, RULE, Sides, Welch, decide, holm, welch
from harness.report.lines import Line, measured_name, rival
from harness.report.variance import components
from harness.report.verdict import words_of

Curves = Mapping[int, Sequence[tuple[float, float]]]
"""By training seed: seconds of the training and a Fréchet distance, at each milestone."""


@dataclass(frozen=True)
class Pair:
    """A model and its rival in one column, with the test between them. `at` says where they are compared."""

    name: str
    rival: str
    kind: str
    column: str
    test: Welch
    rival_mean: float
    at: str = ""

    def words(self, p: float) -> str:
        """A line: the difference over the rival's mean, itself with its interval, and the verdict."""
        said = ", ".join(filter(None, (self.relative, self.absolute, f"**{self.verdict(p)}**")))
        return f"{self.name} against {self.rival}{self.at}: {said}"

    @property
    def relative(self) -> str:
        """The difference over the rival's mean; empty where that is 0."""
        return f"{self.test.difference / self.rival_mean:+.1%}" if self.rival_mean else ""

    @property
    def absolute(self) -> str:
        """The difference and its 95 % interval, of this test alone, to the second digit of the standard error."""
        error = self.test.standard_error
        decimals = max(0, 1 - math.floor(math.log10(float(f"{error:.1e}"))))
        reach = error * self._quantile()
        low, middle, high = (f"{self.test.difference + sign * reach:+.{decimals}f}" for sign in (-1, 0, 1))
        return f"{middle} ({low} to {high})"

    def verdict(self, p: float) -> str:
        """By the one rule, of the adjusted p."""
        return decide(self.test.difference, self.rival_mean, p, COLUMNS[self.column][1])

    def _quantile(self) -> float:
        from scipy import stats

        return float(stats.t.ppf(1 - LEVEL / 2, self.test.df))


def pairs(lines: Sequence[Line], column: str) -> list[Pair]:
    """Each line that has a rival, at equal steps; runs that are compared in several contests of a table once."""
    found: dict[Sides, Pair] = {}
    for line in lines:
        other = rival(line, lines)
        if other is None:
            continue
        cells = line.cells[column], other.cells[column]
        test = welch(cells[0].values, cells[1].values)
        if test and cells[1].mean is not None:
            pair = Pair(line.label, other.label, line.variant, column, test, cells[1].mean)
            found.setdefault((cells[0].values, cells[1].values), pair)
    return list(found.values())


def curves(lines: Sequence[Line], column: str) -> dict[tuple[str, str], Curves]:
    """By family and variant: how each training went on, from the records of lines that differ in their step.

    Its seconds are its steps times those of one where the lines are timed side by side, else its own CPU seconds.
    A training of which the last step is not scored yet is left out: where it ends would be mistaken.
    """
    found: dict[tuple[str, str], dict[int, dict[tuple[int, float], list[float]]]] = {}
    for line in lines:
        for record in _of(line, column):
            step, training = int(record.workload["step"]), record.get("training") or {}
            seconds = step * line.step_seconds if line.step_seconds else record.get("training_cpu_seconds")
            if seconds and record.value is not None and "seed" in training:
                point = (step, float(seconds))
                seeds = found.setdefault((line.family, line.variant), {})
                seeds.setdefault(training["seed"], {}).setdefault(point, []).append(float(record.value))
    last = max((step for seeds in found.values() for points in seeds.values() for step, _ in points), default=0)
    return {
        kind: {
            seed: [(seconds, statistics.fmean(values)) for (_, seconds), values in sorted(points.items())]
            for seed, points in seeds.items()
            if any(step == last for step, _ in points)
        }
        for kind, seeds in found.items()
    }


def _of(line: Line, column: str) -> list[ScoreRecord]:
    quantity = line.cells[column].quantity if column in line.cells else ""
    return [record for record in line.records if record.quantity == quantity]


def at_time(curve: Sequence[tuple[float, float]], seconds: float) -> float | None:
    """A curve's value after so many seconds, interpolated between its points on logarithmic axes.

    A value of 0 has no logarithm: beside one, only the seconds are logarithmic. After its end it is the last value;
    before its first point None.
    """
    if seconds >= curve[-1][0]:
        return curve[-1][1]
    for (before, first), (after, second) in itertools.pairwise(curve):
        if before <= seconds <= after:
            share = math.log(seconds / before) / math.log(after / before)
            if min(first, second) <= 0:
                return first + share * (second - first)
            return float(first * (second / first) ** share)
    return None


def pairs_at_equal_time(lines: Sequence[Line], column: str) -> list[Pair]:
    """Each kind of challenger against its rival, when both have trained for as many seconds.

    That is the whole training of the faster one, the mean over its seeds; the slower is read off between its
    milestones, and left out where a seed has none before that time.
    """
    known = curves(lines, column)
    found: dict[tuple[str, str], Pair] = {}  # one run may be of two variants
    for family, variant in dict.fromkeys((line.family, line.variant) for line in lines if rival(line, lines)):
        own = next(line for line in lines if (line.family, line.variant) == (family, variant))
        other = rival(own, lines)
        assert other is not None, "it has one"
        ours, theirs = known.get((family, variant)), known.get((other.family, other.variant))
        if not ours or not theirs:
            continue
        seconds = min(statistics.fmean(curve[-1][0] for curve in one.values()) for one in (ours, theirs))
        first, second = ([at_time(curve, seconds) for curve in one.values()] for one in (ours, theirs))
        sides = [[value for value in side if value is not None] for side in (first, second)]
        test = welch(*sides)
        if test and None not in (*first, *second):
            name, against = (line.label.partition(" at ")[0] for line in (own, other))
            at = f" after {seconds:,.0f}{'' if own.step_seconds else ' CPU'} seconds each"
            pair = Pair(name, against, variant, column, test, statistics.fmean(sides[1]), at)
            found.setdefault((name, against), pair)
    return list(found.values())


def decided(lines: Sequence[Line], column: str, over_steps: bool) -> list[tuple[Pair, float]]:
    """All that a table compares in a column, each with its p, adjusted for the number of that kind.

    With `over_steps` the lines are milestones of the same trainings: then equal times are compared, too.
    """
    found = []
    for several in (pairs(lines, column), pairs_at_equal_time(lines, column) if over_steps else []):
        found += list(zip(several, holm([pair.test.p for pair in several]), strict=True))
    return found


def sentences(lines: Sequence[Line], columns: Sequence[str], over_steps: bool) -> list[str]:
    """What a table compares, metric by metric, with the verdicts, and the rule."""
    found = []
    families = {line.family for line in lines if rival(line, lines)}
    for column in columns:
        words: dict[str, list[str]] = {}
        for pair, p in decided(lines, column, over_steps):
            where = " at equal training time" if pair.at else f", {words_of(pair.kind, families)}"
            words.setdefault(where, []).append(pair.words(p))
        name = measured_name(column, lines)
        found += [f"{name}{where}: {'; '.join(several)}." for where, several in words.items()]
    return [*found, RULE] if found else []


def spread(lines: Sequence[Line], column: str) -> str:
    """A note: the share of trainings and of draws in the spread of each line's column, where it has several of both."""
    parts = []
    for line in lines:
        split = components(line.cells[column].draws) if column in line.cells else None
        if split:
            parts.append(
                f"{line.label} {split.mean:.4g} ({split.mean_interval[0]:.4g} to {split.mean_interval[1]:.4g}), "
                f"training {_deviation(split.training_sd, split.training_interval)}, "
                f"sampling {_deviation(split.sampling_sd, split.sampling_interval)}"
            )
    if not parts:
        return ""
    return (
        f"{measured_name(column, lines)}, mean and standard deviations of trainings and of sample sets, each with its "
        f"95 % interval: {'; '.join(dict.fromkeys(parts))}."
    )


def _deviation(value: float, interval: tuple[float, float]) -> str:
    return f"{two_digits(value)} ({' to '.join(map(two_digits, interval))})"
