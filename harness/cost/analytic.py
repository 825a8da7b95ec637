"""Closed-form counts from a ModelSpec alone, without torch, and the crossover that follows from them.

A family gives the closed form of its block, its skeleton that of all around it. Letters: B batch, L tokens of a frame.
Elementwise work is what models/ computes with torch's own decompositions: one per result of an operator.
"""

from __future__ import annotations

import dataclasses
import math

from harness.core.workload import Workload
from harness.cost.operations import Cost
from models import ModelSpec, counterpart
from models.families import named

NETWORK_PASSES = {"forward": 1, "sample": 2, "train": 3}
"""Forward passes that a step amounts to, a sample: guidance evaluates two, a backward pass costs two."""


def analytic(spec: ModelSpec, resolution: int, batch: int = 1) -> Cost:
    """The exact cost of one forward pass over images or clips.

    Raises ValueError when the resolution does not divide into patches.
    """
    return at_tokens(spec, spec.tokens(resolution), batch)


def at_tokens(spec: ModelSpec, L: int, batch: int = 1) -> Cost:
    """The same for any number of tokens, square grid or not."""
    family = named(spec.family)
    ops = family.skeleton.operations(spec, family.operations, batch, L)
    return Cost(tuple(ops), params=sum(op.params for op in ops), method="analytic")


def step_macs(workload: Workload) -> int:
    """Multiply-adds of one step of a workload: a forward pass, a guided denoising step, or a training step."""
    return NETWORK_PASSES[workload.action] * analytic(workload.spec, workload.resolution, workload.batch).macs


def rivals(one: ModelSpec, other: ModelSpec) -> bool:
    """Whether `other` is the counterpart of `one`, at whatever depth."""
    rival = counterpart(one)
    return rival is not None and _contest(rival) == _contest(other)


def _contest(spec: ModelSpec) -> tuple[object, ...]:
    return spec.family, spec.width, spec.patch, spec.frames, spec.arrangement


def crossover(cheap: ModelSpec, expensive: ModelSpec, limit: int = 1 << 20) -> float | None:
    """The resolution in pixels at which the exact cost of `cheap` falls to that of `expensive`; above it, it is lower.

    Both must have as many frames. Returns None when they do not cross below `limit` units a side, the least square that
    both divide into tokens. The cost is a quadratic in the area, a + b x + c x², fixed by three evaluations; the root
    is exact, not rounded to a grid.
    """
    if cheap.frames != expensive.frames:
        raise ValueError(f"{cheap.name} and {expensive.name} cut clips into different tokens: no common resolution")
    unit = math.lcm(cheap.unit, expensive.unit)

    def difference(squares: int) -> int:
        one, other = (at_tokens(s, squares * s.tokens(unit)).macs for s in (expensive, cheap))
        return one - other

    d1, d2, d3 = (difference(squares) for squares in (1, 2, 3))
    c = (d3 - 2 * d2 + d1) / 2
    b = d2 - d1 - 3 * c
    a = d1 - b - c
    if c == 0:
        return None
    discriminant = b * b - 4 * a * c
    if discriminant < 0:
        return None
    squares: float = (-b + discriminant**0.5) / (2 * c)
    if not 0 < squares < limit**2:
        return None
    side: float = squares**0.5
    return side * unit


def equal_macs_depth(spec: ModelSpec, target: ModelSpec, resolution: int) -> int:
    """The depth that brings `spec` nearest to the exact cost of `target` at a resolution."""
    goal = analytic(target, resolution).macs

    def distance(depth: int) -> int:
        return abs(analytic(dataclasses.replace(spec, depth=depth), resolution).macs - goal)

    one, three = (analytic(dataclasses.replace(spec, depth=n), resolution).macs for n in (1, 3))
    guess = max(1, round(2 * (goal - one) / (three - one)) + 1)  # blocks alternate, so that two are the step
    return min((depth for depth in (guess - 1, guess, guess + 1) if depth > 0), key=distance)
