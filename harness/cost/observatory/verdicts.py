"""What became of a printed figure: the reading that comes nearest, how near, the exact cost, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from harness.cost.observatory.outlines import Outline
from harness.cost.observatory.printed import Printed, chosen_figures
from harness.cost.observatory.readings import SUPPOSED, Reading, known, readings

DECODED, CONSISTENT, UNSOLVED, UNREAD = "decoded", "consistent", "unsolved", "not read"
NEAR = 0.01
"""A reading that deviates by less is said to be within that much; by more, the figure is unsolved."""


@dataclass(frozen=True)
class Tried:
    """A reading, and what it gives in the printed unit."""

    reading: Reading
    value: float

    def deviation(self, printed: Printed) -> float:
        """By how much this departs from the printed figure, as a share of it."""
        return self.value / float(printed.printed) - 1


@dataclass(frozen=True, eq=False)
class Observation:
    """A printed figure with its verdict.

    `best` is the reading that the verdict is of, never a supposition; `tried` are all, in order. `exact_gmacs` are the
    multiply-adds of a forward pass of one image. `missing` is what the reading leaves out, by kind and module, as a
    share of those. `built` is whether tools can be run on the model.

    Verdicts: "decoded" (every printed digit), "within X %", "consistent" (equal within the rounding of what the figure
    is computed from), "unsolved", "not read" (what the stated rule gives stands there alone).
    """

    printed: Printed
    verdict: str
    best: Tried | None
    tried: tuple[Tried, ...]
    exact_gmacs: float | None
    missing: dict[str, float]
    built: bool

    @property
    def solved(self) -> bool:
        return self.verdict not in (UNSOLVED, UNREAD)


def observe(names: Iterable[str] = ()) -> list[Observation]:
    """A verdict for each printed figure of these papers or models, or of all. Raises ValueError for an unknown name."""
    return [_observed(printed) for printed in chosen_figures(names)]


def _observed(printed: Printed) -> Observation:
    tried = [Tried(one, value) for one in readings() if one.is_of(printed) and (value := one.figure(printed))]
    best = _best(printed, tried)
    found = known(printed)
    return Observation(
        printed=printed,
        verdict=_verdict(printed, best),
        best=best,
        tried=tuple(tried),
        exact_gmacs=found.cost.gmacs if found else None,
        missing=_missing(best.reading, found) if best and found else {},
        built=bool(found and found.built),
    )


def _best(printed: Printed, tried: list[Tried]) -> Tried | None:
    """The first that gives every digit, else the nearest; the first of all where no figure has been read."""
    founded = [one for one in tried if one.reading.basis != SUPPOSED]
    if not founded or not printed.read:
        return founded[0] if founded else None
    exact = [one for one in founded if printed.agrees(one.value)]
    return exact[0] if exact else min(founded, key=lambda one: abs(one.deviation(printed)))


def _verdict(printed: Printed, best: Tried | None) -> str:
    if not printed.read:
        return UNREAD
    if best is None:
        return UNSOLVED
    if printed.agrees(best.value):
        return DECODED
    deviation = abs(best.deviation(printed))
    if printed.images and deviation <= _rounding(printed.images) + _rounding(printed.printed):
        return CONSISTENT
    return f"within {percent(deviation)}" if deviation <= NEAR else UNSOLVED


def percent(share: float) -> str:
    """A share in per cent, rounded up to two significant digits."""
    digits = 1 - math.floor(math.log10(100 * share))
    return f"{math.ceil(100 * share * 10**digits) / 10**digits:.{max(0, digits)}f} %"


def _rounding(text: str) -> float:
    """Half a unit of a number's last digit, as a share of it."""
    mantissa = text.partition("e")[0]
    return 0.5 / float(mantissa.replace(".", ""))


def _missing(reading: Reading, found: Outline) -> dict[str, float]:
    if reading.rule in ("none", "quotient"):
        return {}
    shares: dict[str, float] = {}
    for op in found.cost.ops:
        if op.macs and not reading.sees(op):
            name = f"{op.kind} in {op.where}"
            shares[name] = shares.get(name, 0) + op.macs / found.cost.macs
    return shares
