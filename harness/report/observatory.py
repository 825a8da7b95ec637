"""The published costs of the field as they are read: each figure, what a rule gives for it, and the exact cost."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from harness.core import formats
from harness.core.records import Record
from harness.cost.observatory import Observation, Reading, observe
from harness.cost.observatory.printed import FORWARD, SAVING
from harness.cost.observatory.verdicts import DECODED, UNSOLVED
from harness.report.layout import Table, as_block

Fields = dict[str, Any]

WITH_SIZE = re.compile(r"(?P<family>.+)-[A-Z]+(/\d+)?")
"""The name of a model without a word behind its size."""

TITLE = "Published costs, decoded or unsolved"
NOTES = [
    "printed: as the source prints it, in its unit. counted: what the rule of that line gives, in the same unit.",
    "verdict: decoded, where the rule gives every printed digit; within X %; consistent, where they are equal to the "
    "rounding of what the figure is computed from; unsolved; not read, where the rule is stated and the figure was not "
    "at hand. The word in brackets says what supports a rule: [stated] in the source; [code] of "
    "the source's repository; [counted] only that its count fits the printed figures. [supposed] decides no verdict.",
    "exact: all multiply-adds of a forward pass of one image, in 10^9; of a model that is no family here, by a closed "
    "form of what its source says; of DiffuSSM, which has no public code, as it is built here.",
    "ratio: the printed figure over the exact cost of one image; a figure that is decoded as that of a batch is first "
    "divided by the batch.",
]


def rows(observations: Iterable[Observation]) -> list[Fields]:
    """One row a figure, with every digit: for other programs and for the table."""
    return [
        {
            "paper": one.printed.paper,
            "arxiv": one.printed.arxiv,
            "table": one.printed.table,
            "model": one.printed.model,
            "resolution": one.printed.resolution,
            "quantity": one.printed.quantity,
            "printed": one.printed.printed,
            "unit": one.printed.unit,
            "counted": one.best.value if one.best else None,
            "verdict": one.verdict,
            "rule": one.best.reading.reading if one.best else None,
            "basis": one.best.reading.basis if one.best else None,
            "exact_gmacs": one.exact_gmacs,
            "printed_an_image_over_exact": ratio(one),
            "missing": ", ".join(f"{name} {share:.1%}" for name, share in one.missing.items()),
            "read_in": one.printed.read_in,
            "url": one.printed.url,
        }
        for one in observations
    ]


def ratio(one: Observation) -> float | None:
    """The printed figure of a forward pass, an image, over the exact multiply-adds; None for other figures.

    A figure that is decoded as that of a batch is divided by it.
    """
    if not one.printed.read or one.printed.quantity != FORWARD or not one.exact_gmacs:
        return None
    batch = one.best.reading.batch if one.best and one.verdict == DECODED else 1
    return float(one.printed.printed) / batch / one.exact_gmacs


def sections(names: Sequence[str], style: str) -> Iterator[str]:
    """The text of these papers or models, or of all: in a terminal a section a paper, else rows in that style.

    Raises ValueError for a name that no figure has.
    """
    found = observe(names)
    if style == "latex":
        yield _table(found).latex().rstrip("\n")
    elif style != "table":
        yield formats.render(rows(found), style)
    else:
        for _, group in itertools.groupby(found, key=lambda one: one.printed.paper):
            yield _paper(list(group))
        yield "\n".join([*NOTES, *tally(found)])
        yield from _checked(found)


def _checked(found: Sequence[Observation]) -> Iterator[str]:
    from harness.cost.observatory.checks import check

    if lines := check(found):
        yield "\n".join(["Checked, to the last unit, where the model is one of the catalogue:", *lines])


def _paper(group: Sequence[Observation]) -> str:
    """The figures of one paper: a grid, then the rule of each, what it leaves out, what else was tried, the sources."""
    first = group[0].printed
    grid = formats.render([_cells(one) for one in group], "table")
    lines = [f"{first.paper} (arXiv {first.arxiv})", "", grid, ""]
    for reading, of_it in _by_reading(group):
        word = "counted" if any(one.verdict != UNSOLVED for one in of_it) else "nearest"
        lines.append(f"{word} [{reading.basis}]: {reading.reading}")
        lines += _left_out(of_it)
    for reading, values in _others(group):
        lines.append(f"tried [{reading.basis}]: {reading.reading}: {values}")
    for printed in (one.printed for one in group):
        read = f"read in {printed.read_in}" if printed.read else printed.read_in
        line = f"source: {printed.table}; {read}; {printed.url}"
        lines += [] if line in lines else [line]
    return "\n".join(lines)


def _cells(one: Observation) -> Fields:
    share = ratio(one)
    return {
        "model": one.printed.model,
        "px": one.printed.resolution,
        "printed": one.printed.printed + _sign(one) or "-",
        "counted": beside(one, one.best.value) + _sign(one) if one.best else "-",
        "verdict": one.verdict,
        "exact": f"{one.exact_gmacs:.2f}" if one.exact_gmacs else "-",
        "ratio": f"{share:.3f}" if share else "",
    }


def _sign(one: Observation) -> str:
    return " %" if one.printed.quantity == SAVING else ""


def beside(one: Observation, value: float) -> str:
    """A value with one digit more than the printed figure has; with three decimals where none was read."""
    mantissa, exponent, _ = one.printed.printed.partition("e")
    decimals = len(mantissa.partition(".")[2]) + 1 if mantissa else 3
    return f"{value:.{decimals}e}".replace("e+", "e") if exponent else f"{value:.{decimals}f}"


def largest(found: Iterable[Observation], pixels: int) -> list[Observation]:
    """Of each family the costliest model with a printed forward pass at a resolution, as the first paper prints it.

    Variants of a model, which have a word behind its size, are left out.
    """
    families: dict[str, list[Observation]] = {}
    for one in found:
        named = WITH_SIZE.fullmatch(one.printed.model)
        if named and one.printed.resolution == pixels and ratio(one):
            families.setdefault(named["family"], []).append(one)
    return [max(family, key=lambda one: one.exact_gmacs or 0) for family in families.values()]


def _by_reading(group: Sequence[Observation]) -> list[tuple[Reading, list[Observation]]]:
    found: dict[Reading, list[Observation]] = {}
    for one in group:
        if one.best:
            found.setdefault(one.best.reading, []).append(one)
    return list(found.items())


def _left_out(of_it: Sequence[Observation]) -> list[str]:
    """What a reading does not see, with the range of its shares over these figures."""
    shares: dict[str, list[float]] = {}
    for one in of_it:
        for name, share in one.missing.items():
            shares.setdefault(name, []).append(share)
    return [f"  leaves out {name} ({_span(values)} of the exact cost)" for name, values in shares.items()]


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.1%}", f"{max(values):.1%}"
    return low if low == high else f"{low} to {high}"


def _others(group: Sequence[Observation]) -> list[tuple[Reading, str]]:
    """The readings that no verdict of the group rests on, and what each gives, in the order of the figures."""
    chosen = {reading for reading, _ in _by_reading(group)}
    values: dict[Reading, list[str]] = {}
    for one in group:
        for tried in one.tried:
            if tried.reading not in chosen:
                values.setdefault(tried.reading, []).append(beside(one, tried.value))
    return [(reading, ", ".join(texts)) for reading, texts in values.items()]


def published_table(records: Sequence[Record] = ()) -> Table:
    """Every published cost that is known here. It is made of data and closed forms; `records` are not needed."""
    return _table(observe())


def _table(found: Sequence[Observation]) -> Table:
    """A block a paper; rules have numbers and are spelled out below."""
    import pandas as pd

    rules: dict[str, list[Observation]] = {}
    for one in found:
        if one.best:
            rules.setdefault(f"[{one.best.reading.basis}] {one.best.reading.reading}", []).append(one)
    numbers = {one: str(place) for place, group in enumerate(rules.values(), 1) for one in group}
    blocks = []
    for paper, of_paper in itertools.groupby(found, key=lambda one: one.printed.paper):
        shown = list(of_paper)
        cells = [_cells(one) | {"rule": numbers.get(one, "-")} for one in shown]
        blocks.append(as_block(cells, f"{paper}, arXiv {shown[0].printed.arxiv}"))
    spelled = [". ".join([f"Rule {place} {rule}", *(line.strip().capitalize() for line in _left_out(group))]) + "."
               for place, (rule, group) in enumerate(rules.items(), 1)]  # fmt: skip
    return Table("published", TITLE, pd.DataFrame(rows(found)), blocks, [*NOTES, *tally(found), *spelled])


def tally(found: Sequence[Observation]) -> list[str]:
    """How many figures have each verdict, in a sentence."""
    verdicts = [one.verdict.partition(" ")[0] if one.verdict.startswith("within") else one.verdict for one in found]
    counts = [f"{verdicts.count(name)} {name}" for name in dict.fromkeys(verdicts)]
    return [f"Of {len(found)} figures: {', '.join(counts)}."]
