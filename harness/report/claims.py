"""Whether a difference is more than chance, and what may be stated of the paper's claims.

Differences between two sets of seeds are tested by Welch's t-test, a table's tests together corrected by Holm's method.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LEVEL = 0.05
METHOD = "Welch's t-test over seeds, Holm's correction over the table, 5 %"


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


@dataclass(frozen=True)
class Claim:
    """One difference that the paper prints, and what was measured of it. Values are a side's, one a seed.

    `kind` says which comparison it is of ("" at the paper's depth, "matched", "equal-macs", "trend" …).
    `printed` is the sign of first minus second in the paper, 0 where it prints none. What the measured features have no
    counterpart of is not `supported`.
    """

    metric: str
    kind: str
    printed: int
    first: Sequence[float]
    second: Sequence[float]
    supported: bool = True

    @property
    def measured(self) -> int | None:
        """The sign of first minus second, of the means; None without values on both sides."""
        if not self.first or not self.second:
            return None
        difference = sum(self.first) / len(self.first) - sum(self.second) / len(self.second)
        return (difference > 0) - (difference < 0)


@dataclass
class Tally:
    """How many of some claims hold, and how many of each significantly."""

    holds: int = 0
    holds_significantly: int = 0
    reversed: int = 0
    reversed_significantly: int = 0
    equal: int = 0
    untested: int = 0  # measured, but with too few seeds to test
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
        if self.missing:
            parts.append(f"{self.missing} not measured yet")
        return "; ".join(parts)


def _significantly(count: int, significant: int) -> str:
    return f" (significantly in {significant or 'none'})" if count else ""


def tally(claims: Iterable[Claim]) -> dict[tuple[str, str], Tally]:
    """Counts by (kind, metric), of claims that print a sign; Holm's correction is over all of them.

    Runs that serve two kinds, as a DiM that is equal to its DiT in parameters and in cost, are one test.
    """
    claims = [claim for claim in claims if claim.printed and claim.supported]
    tests = {_sides(claim): test for claim in claims if (test := welch(claim.first, claim.second))}
    adjusted = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    counts: dict[tuple[str, str], Tally] = {}
    for claim in claims:
        count = counts.setdefault((claim.kind, claim.metric), Tally())
        sign, significant = claim.measured, adjusted.get(_sides(claim), 1.0) < LEVEL
        if sign is None:
            count.missing += 1
            continue
        count.untested += _sides(claim) not in adjusted
        if sign == claim.printed:
            count.holds += 1
            count.holds_significantly += significant
        elif sign == 0:
            count.equal += 1
        else:
            count.reversed += 1
            count.reversed_significantly += significant
    return counts


def _sides(claim: Claim) -> tuple[str, tuple[float, ...], tuple[float, ...]]:
    return claim.metric, tuple(claim.first), tuple(claim.second)


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
