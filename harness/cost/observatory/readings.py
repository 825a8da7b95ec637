"""How a printed figure may have been counted: results/published/readings.csv, and what each reading gives.

A reading is a counting rule, applied to a model's operations without those that are hidden from it, plus terms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache

from harness.cost.conventions import CONVENTIONS, FVCORE_NORM_OPS, SCAN_FLOPS
from harness.cost.observatory.outlines import Outline, outline
from harness.cost.observatory.outlines.pieces import PRODUCT
from harness.cost.observatory.printed import SAVED_OF, SAVING, TRAINING, Printed, printed_figures, read_csv
from harness.cost.operations import Cost
from models.operations import Op

QUOTIENT = "quotient"
"""The rule by which a figure is that of a whole training over its images, both as another paper prints them."""


def _torchprofile(op: Op) -> int:
    counted = op.where.endswith(f".{PRODUCT}") or (op.kind == "norm" and op.params > 0 and op.via == "module")
    return op.macs + (op.elementwise if counted else 0)


def _fvcore_scan9(op: Op) -> int:
    """fvcore where attention is two products of tensors, with VMamba's rule for its scan: 9 FLOPs, and the skip."""
    if op.kind == "norm":
        return (FVCORE_NORM_OPS + (op.params > 0)) * op.elementwise
    if op.kind == "scan":
        return SCAN_FLOPS * op.elementwise
    return op.macs + (op.elementwise if op.where.endswith(f".{PRODUCT}") else 0)


def _calflops(op: Op) -> int:
    """Half of calflops' FLOPs: two a multiply-add, four a normalised value, one an activation; no kernel, no SDPA."""
    if op.via != "module":
        return 0
    return {"norm": 2 * op.elementwise, "activation": op.elementwise // 2}.get(op.kind, op.macs)


RULES: dict[str, Callable[[Op], int]] = {
    **{name: CONVENTIONS[name].amount for name in ("exact", "thop", "fvcore")},
    "normalised": lambda op: op.macs + (op.elementwise if op.kind == "norm" else 0),
    "torchprofile": _torchprofile,
    "fvcore-scan9": _fvcore_scan9,
    "calflops": _calflops,
    "none": lambda op: 0,
}
"""By the names in readings.csv: conventions; all multiply-adds, and one a normalised value; other tools'; nothing."""

SUPPOSED = "supposed"
"""The basis of a reading that no verdict rests on."""

TERM = re.compile(r"(\d+(?:\.\d+)?) ([NLDS]*)(logL)?")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One way to count, and of which figures: of a paper, of models by a pattern, of a resolution or of all.

    `basis` is what speaks for it: it is "stated" in a source, it is what a repository's "code" does, it is "counted" of
    the model as published, or it is "supposed", of which no source says anything.
    `hidden` are patterns of operations that the rule does not see, as "linear in blocks.*.mlp". `terms` are added to
    what it counts, as "4 NLD" or "2 NLDlogL" (N blocks, L tokens, D width, S state). The sum is multiplied by `times`.
    """

    paper: str
    model: str
    resolution: int | None
    reading: str
    basis: str
    rule: str
    batch: int
    times: float
    hidden: tuple[str, ...]
    terms: tuple[str, ...]

    def is_of(self, printed: Printed) -> bool:
        """Whether this is a reading of that figure."""
        return (
            self.paper == printed.paper
            and fnmatchcase(printed.model, self.model)
            and self.resolution in (None, printed.resolution)
        )

    def sees(self, op: Op) -> bool:
        """Whether the rule counts anything of an operation that has multiply-adds."""
        return not self._hides(op) and RULES[self.rule](op) > 0

    def figure(self, printed: Printed) -> float | None:
        """What this reading gives, in the printed unit.

        None for a model that has no closed form here, and for a training of which no number of images is known.
        """
        if self.rule == QUOTIENT:
            return _quotient(self.terms[0], printed)
        found = outline(printed.model, printed.resolution, self.batch)
        if found is None or (printed.quantity == TRAINING and not printed.images):
            return None
        counted = self.counted(found.cost)
        added = self.batch * sum(value_of(term, found.letters) for term in self.terms)
        images = float(printed.images) if printed.quantity == TRAINING else 1
        figure = self.times * (counted + added) * images / 1e9
        return 100 * (1 - figure / _saved_of(printed)) if printed.quantity == SAVING else figure

    def counted(self, cost: Cost) -> int:
        """What the rule makes of operations, without those that are hidden."""
        return sum(RULES[self.rule](op) for op in cost.ops if not self._hides(op))

    def _hides(self, op: Op) -> bool:
        return any(fnmatchcase(f"{op.kind} in {op.where}", pattern) for pattern in self.hidden)


def _quotient(paper: str, printed: Printed) -> float | None:
    for row in printed_figures():
        if (row.paper, row.model, row.resolution) == (paper, printed.model, printed.resolution) and row.images:
            return float(row.printed) / float(row.images)
    return None


def _saved_of(printed: Printed) -> float:
    """What DiT's paper prints of the model that a saving is of, at that resolution, in Gflops."""
    (theirs,) = (row for row in printed_figures()
                 if (row.paper, row.model, row.resolution) == ("DiT", SAVED_OF, printed.resolution))  # fmt: skip
    return float(theirs.printed)


def value_of(term: str, letters: Mapping[str, int]) -> float:
    """The value of a term. Raises ValueError for what is none."""
    import math

    match = TERM.fullmatch(term)
    if match is None:
        raise ValueError(f"{term!r} is no term, as '4 NLD' or '2 NLDlogL'")
    value = float(match[1]) * math.prod(letters[letter] for letter in match[2])
    return value * math.log2(letters["L"]) if match[3] else value


@cache
def readings() -> tuple[Reading, ...]:
    """All readings, in the order in which they are tried."""
    return tuple(
        Reading(
            paper=row["paper"],
            model=row["model"],
            resolution=int(row["resolution"]) if row["resolution"] else None,
            reading=row["reading"],
            basis=row["basis"],
            rule=row["rule"],
            batch=int(row["batch"]),
            times=float(row["times"]),
            hidden=_parts(row["hidden"]),
            terms=_parts(row["terms"]),
        )
        for row in read_csv("readings.csv")
    )


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(";") if part.strip())


def known(printed: Printed) -> Outline | None:
    """The closed form of one image of a figure's model."""
    return outline(printed.model, printed.resolution)
