"""From two shallow models to a deep one, exactly: every further period of blocks adds the same to every total.

A network of N blocks that are all alike costs a + b·N, so that the models of one and of two blocks fix it:
total(N) = total(1) + (N - 1)·(total(2) - total(1)). Where blocks take turns (alternating video: space, time) or come in
pairs (skips), a period has two blocks, and the models have 2 and 4, or 3 and 5 for an odd N. All arithmetic is of
integers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TypeVar

from torch import nn

from harness.cost import tools
from harness.cost.conventions import EXECUTING
from harness.cost.inputs import inputs_of
from harness.cost.operations import Cost
from harness.cost.trace import count
from models import ModelSpec, create_model
from models.families import named
from models.operations import Op

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Extension:
    """The depth in question, and the depths that are built for it: two, or that depth alone where two save nothing."""

    depth: int
    built: tuple[int, ...]

    def total(self, totals: Sequence[int]) -> int:
        """The total at `depth` from those at the built depths, in their order."""
        if len(self.built) == 1:
            return totals[0]
        (first, second), (at_first, at_second) = self.built, totals
        periods, rest = divmod(self.depth - first, second - first)
        assert not rest
        return at_first + periods * (at_second - at_first)

    def totals(self, totals: Sequence[Mapping[Key, int]]) -> dict[Key, int]:
        """`total` of every key that any of them has; a key that one lacks is 0 there."""
        keys = dict.fromkeys(key for one in totals for key in one)
        return {key: self.total([one.get(key, 0) for one in totals]) for key in keys}

    def __str__(self) -> str:
        """How it was done, to stand behind the name of a method: empty where the whole model was built."""
        return "" if len(self.built) == 1 else f" on {' and '.join(map(str, self.built))} blocks, extended"


def extension_of(spec: ModelSpec, full: bool = False) -> Extension:
    """The two smallest depths that show every kind of block or, with `full`, the whole model."""
    depth = spec.depth
    turns = next(n for n in range(1, depth + 1) if all(spec.axes(i) == spec.axes(i + n) for i in range(depth - n)))
    period = math.lcm(turns, named(spec.family).skeleton.period)
    first = period + depth % period
    whole = full or depth <= first + period
    return Extension(depth, (depth,) if whole else (first, first + period))


@dataclass(frozen=True)
class Traced:
    """A traced count, with the number of values in buffers and how the depth was reached."""

    cost: Cost
    buffers: int
    extension: Extension


class Counts:
    """Traces the catalogue's models and runs tools on them, each shallow model once.

    Models that differ in depth alone share their shallow ones. With `full` every model is built whole.
    """

    def __init__(self, full: bool = False) -> None:
        self.full = full
        self._built = lru_cache(maxsize=2)(_built)
        self._trace = cache(self._trace_one)
        self._read = cache(self._read_one)

    def trace(self, spec: ModelSpec, resolution: int, batch: int) -> Traced:
        """The cost of a forward pass, one Op for each module and kind."""
        extension = extension_of(spec, self.full)
        found = [self._trace(model, resolution, batch) for model in _models(spec, extension)]
        costs = [cost for cost, _ in found]
        macs = extension.totals([_sums(cost, lambda op: op.macs) for cost in costs])
        elementwise = extension.totals([_sums(cost, lambda op: op.elementwise) for cost in costs])
        cost = Cost(
            ops=tuple(Op(kind, macs[where, kind], elementwise[where, kind], where) for where, kind in macs),
            params=extension.total([cost.params for cost in costs]),
            method="traced",
            uncounted=extension.totals([cost.uncounted for cost in costs]),
        )
        return Traced(cost, extension.total([buffers for _, buffers in found]), extension)

    def read(
        self, tool: str, spec: ModelSpec, resolution: int, batch: int, hidden: tuple[str, ...] = ()
    ) -> tools.Reading:
        """What a tool says of a forward pass, with those modules' own products hidden. fvcore executes it."""
        extension = extension_of(spec, self.full)
        found = [self._read(tool, model, resolution, batch, hidden) for model in _models(spec, extension)]
        params = [reading.params for reading in found if reading.params is not None]
        return tools.Reading(
            count=extension.total([reading.count for reading in found]),
            params=extension.total(params) if params else None,
            tool=f"{found[0].tool}{extension}",
        )

    def _trace_one(self, spec: ModelSpec, resolution: int, batch: int) -> tuple[Cost, int]:
        model = self._built(spec, resolution, "meta")
        cost = count(model, *inputs_of(spec, resolution, batch, "meta"))
        return cost, sum(buffer.numel() for buffer in model.buffers())

    def _read_one(
        self, tool: str, spec: ModelSpec, resolution: int, batch: int, hidden: tuple[str, ...]
    ) -> tools.Reading:
        device = "cpu" if tool in EXECUTING else "meta"
        model = self._built(spec, resolution, device)
        return tools.run(tool, model, *inputs_of(spec, resolution, batch, device), hidden=hidden)


def _sums(cost: Cost, amount: Callable[[Op], int]) -> dict[tuple[str, str], int]:
    """An amount of each (module, kind)."""
    sums: dict[tuple[str, str], int] = {}
    for op in cost.ops:
        sums[op.where, op.kind] = sums.get((op.where, op.kind), 0) + amount(op)
    return sums


def _built(spec: ModelSpec, resolution: int, device: str) -> nn.Module:
    return create_model(spec, resolution, device=device).eval()


def _models(spec: ModelSpec, extension: Extension) -> list[ModelSpec]:
    """The models to build; those that differ in depth alone have the same."""
    return [dataclasses.replace(spec, depth=depth, variant="") for depth in extension.built]
