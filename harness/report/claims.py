"""Whether a difference is more than chance, and what may be stated of the paper's claims.

One rule decides wherever two models are compared: RULE, by `decide`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LEVEL = 0.05
SMALLEST = 0.013
"""A difference, over the baseline's mean, up to which nothing is concluded however many seeds agree: of FID's order in
"The FID Lottery" (arXiv 2606.20536)."""
METHOD = (
    f"Welch's t-test over training seeds gives p < {LEVEL:g}, and the means differ by more than {SMALLEST:.1%} of the "
    "baseline's. The value of a seed is the mean over its sample sets. p is adjusted by Holm's method for all "
    "comparisons in the table that are of the same metric and the same kind. The kinds are: two families at equal "
    "steps; two families at equal training time; joint training against clips alone; one family, step by step."
)
RULE = (
    f"Rule: a model is better or worse than its baseline if {METHOD} In all other cases the comparison is "
    "inconclusive. The intervals are not adjusted: one that excludes 0 can belong to an inconclusive comparison."
)


@dataclass(frozen=True)
class Welch:
    """A difference of means, first minus second, its standard error, t, degrees of freedom and two-sided p."""

    difference: float
    standard_error: float
    t: float
    df: float
    p: float

    @property
    def exceeds_spread(self) -> bool:
        """Whether the difference is larger than the standard error times the 97.5 % quantile of t."""
        from scipy import stats

        return abs(self.difference) > self.standard_error * float(stats.t.ppf(1 - LEVEL / 2, self.df))


def welch(a: Sequence[float], b: Sequence[float]) -> Welch | None:
    """Welch's test of a against b (Biometrika 34, 1947); None with fewer than two values a side, or without spread."""
    if min(len(a), len(b)) < 2:
        return None
    import numpy as np
    from scipy import stats

    error = math.sqrt(np.var(a, ddof=1) / len(a) + np.var(b, ddof=1) / len(b))
    if error == 0:
        return None
    found = stats.ttest_ind(a, b, equal_var=False)
    return Welch(
        float(np.mean(a) - np.mean(b)), error, float(found.statistic), float(found.df), float(found.pvalue)
    )  # fmt: skip


def holm(ps: Sequence[float]) -> list[float]:
    """p values adjusted for their number (Holm, Scand. J. Statist. 6, 1979), in the order given."""
    adjusted = [0.0] * len(ps)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted


def decide(difference: float, rival: float, p: float, direction: int) -> str:
    """`better`, `worse` or `inconclusive`, by RULE.

    `difference` is of the means, a model's minus its `rival`'s; `p` is adjusted; `direction` is 1 where more is better.
    """
    if p >= LEVEL or abs(difference) <= SMALLEST * abs(rival):
        return "inconclusive"
    return "better" if difference * direction > 0 else "worse"


@dataclass(frozen=True)
class Claim:
    """One difference that the paper prints, and what was measured of it. Values are a side's, one a seed.

    `kind` says which comparison it is of ("" at the paper's depth, "matched", "equal-macs", "trend" …); claims of one
    `question` are corrected together. `printed` is the sign of first minus second in the paper, 0 where both are equal
    and None where it does not print both. What the measured features have no counterpart of is not `supported`.
    """

    metric: str
    kind: str
    printed: int | None
    first: Sequence[float]
    second: Sequence[float]
    supported: bool = True
    question: str = ""

    @property
    def measured(self) -> int | None:
        """The sign of first minus second, of the means; None without values on both sides."""
        if not self.first or not self.second:
            return None
        difference = self._difference()
        return (difference > 0) - (difference < 0)

    def significant(self, p: float) -> bool:
        """Whether the rule decides, of the adjusted p."""
        return decide(self._difference(), sum(self.second) / len(self.second), p, 1) != "inconclusive"

    def _difference(self) -> float:
        return sum(self.first) / len(self.first) - sum(self.second) / len(self.second)


Sides = tuple[tuple[float, ...], tuple[float, ...]]
"""The values of both models of a test, which identify it."""


@dataclass
class Tally:
    """How many of some claims hold, and how many of each significantly."""

    holds: int = 0
    holds_significantly: int = 0
    reversed: int = 0
    reversed_significantly: int = 0
    equal: int = 0
    untested: int = 0  # measured, but with too few seeds to test
    without_spread: int = 0  # of several seeds that all agree, which no test is made for
    missing: int = 0

    @property
    def measured(self) -> int:
        return self.holds + self.reversed + self.equal

    def words(self) -> str:
        if not self.measured:
            return "not measured yet"
        parts = [f"holds in {self.holds} of {self.measured}{_significantly(self.holds, self.holds_significantly)}"]
        if self.reversed:
            parts.append(f"reversed in {self.reversed}{_significantly(self.reversed, self.reversed_significantly)}")
        if self.equal:
            parts.append(f"no difference in {self.equal}")
        if self.untested:
            parts.append(f"too few seeds to test {self.untested}")
        if self.without_spread:
            parts.append(f"no spread between seeds in {self.without_spread}")
        if self.missing:
            parts.append(f"{self.missing} not measured yet")
        return "; ".join(parts)


def _significantly(count: int, significant: int) -> str:
    return f" (significantly in {significant or 'none'})" if count else ""


def tally(claims: Iterable[Claim]) -> dict[tuple[str, str], Tally]:
    """Counts by (kind, metric), of claims that print a sign.

    Holm's correction is over all tests of a metric and question, printed or not. Runs that serve two kinds, as a DiM
    that is equal to its DiT in parameters and in cost, are one test.
    """
    claims = [claim for claim in claims if claim.supported]
    families: dict[tuple[str, str], dict[Sides, Welch]] = {}
    for claim in claims:
        if test := welch(claim.first, claim.second):
            families.setdefault((claim.metric, claim.question), {})[_sides(claim)] = test
    adjusted = {
        (metric, question, sides): p
        for (metric, question), tests in families.items()
        for sides, p in zip(tests, holm([test.p for test in tests.values()]), strict=True)
    }
    counts: dict[tuple[str, str], Tally] = {}
    for claim in claims:
        if not claim.printed:
            continue
        count = counts.setdefault((claim.kind, claim.metric), Tally())
        sign, p = claim.measured, adjusted.get((claim.metric, claim.question, _sides(claim)))
        if sign is None:
            count.missing += 1
            continue
        significant = p is not None and claim.significant(p)
        few = min(len(claim.first), len(claim.second)) < 2
        count.untested += few
        count.without_spread += p is None and not few
        if sign == claim.printed:
            count.holds += 1
            count.holds_significantly += significant
        elif sign == 0:
            count.equal += 1
        else:
            count.reversed += 1
            count.reversed_significantly += significant
    return counts


def _sides(claim: Claim) -> Sides:
    return tuple(claim.first), tuple(claim.second)


def total(counts: Iterable[Tally]) -> Tally:
    """Their sum."""
    summed = Tally()
    for count in counts:
        for name, value in vars(count).items():
            setattr(summed, name, getattr(summed, name) + value)
    return summed


def sentence(what: str, counts: dict[str, Tally]) -> str:
    """`what`: the verdict over all metrics, then metric by metric."""
    whole = total(counts.values())
    if len(counts) < 2 or not whole.measured:
        return f"{what}: {whole.words()}."
    return f"{what}: {whole.words()}. By metric: {'. '.join(f'{m}: {c.words()}' for m, c in counts.items())}."
