"""Closed-form counts from a ModelSpec alone, without torch, and the crossover that follows from them.

The skeleton is counted here, each block by its family. Letters: B batch, F frames (1 of an image), L tokens of a frame,
T = B·F·L, D width, p patch.
Elementwise work is what models/ computes with torch's own decompositions: one per result of an operator.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

from harness.core.workload import Workload
from harness.cost.operations import Cost
from models import ModelSpec
from models.families import named
from models.operations import Op, elementwise, linear, repeat
from models.spec import TIMESTEP_FREQUENCIES

NETWORK_PASSES = {"forward": 1, "sample": 2, "train": 3}
"""Forward passes that a step amounts to, a sample: guidance evaluates two, a backward pass costs two."""


def analytic(spec: ModelSpec, resolution: int, batch: int = 1) -> Cost:
    """The exact cost of one forward pass over images or clips.

    Raises ValueError when the resolution does not divide into patches.
    """
    return at_tokens(spec, spec.tokens(resolution), batch)


def at_tokens(spec: ModelSpec, L: int, batch: int = 1) -> Cost:
    """The same for any number of tokens, square grid or not."""
    B, D, p = batch, spec.width, spec.patch
    T, half = B * max(1, spec.frames) * L, TIMESTEP_FREQUENCIES // 2
    kinds = Counter(spec.axes(i) for i in range(spec.depth))
    over_time = set(kinds) != {("space",)}
    block = named(spec.family).operations
    ops = [
        Op("conv", T * D * spec.channels * p**2, 0, "x_embedder.proj", params=(spec.channels * p**2 + 1) * D),
        elementwise("gate", T * D, ""),  # + position table
        elementwise("gate", 2 * half + B * half, "t_embedder"),  # frequencies, and their products with t
        elementwise("activation", half + 2 * B * half, "t_embedder"),  # exp; cos, sin
        linear("t_embedder.mlp.*", B, TIMESTEP_FREQUENCIES, D),
        elementwise("activation", B * D, "t_embedder.mlp.*"),
        linear("t_embedder.mlp.*", B, D, D),
        Op("gate", 0, 0, "y_embedder.embedding_table", params=(spec.num_classes + 1) * D),
        elementwise("gate", B * D, ""),  # timestep + label
        *([elementwise("gate", T * D, "")] if over_time else []),  # + table of frame positions
        *(repeat(op, blocks) for axes, blocks in kinds.items() for op in block(spec, axes, B, L)),
        elementwise("norm", T * D, "final_layer.norm_final", via="module"),
        elementwise("activation", B * D, "final_layer.adaLN_modulation.*"),
        linear("final_layer.adaLN_modulation.*", B, D, 2 * D),
        elementwise("gate", B * D + 2 * T * D, "final_layer"),
        linear("final_layer.linear", T, D, p**2 * spec.out_channels),
    ]
    return Cost(tuple(ops), params=sum(op.params for op in ops), method="analytic")


def step_macs(workload: Workload) -> int:
    """Multiply-adds of one step of a workload: a forward pass, a guided denoising step, or a training step."""
    return NETWORK_PASSES[workload.action] * analytic(workload.spec, workload.resolution, workload.batch).macs


def rivals(one: ModelSpec, other: ModelSpec) -> bool:
    """Whether `other` is of the counterpart of `one`'s family, and of its width, patch, frames and arrangement."""
    task, its_task = ((s.width, s.patch, s.frames, s.arrangement) for s in (one, other))
    return named(one.family).counterpart == other.family and task == its_task


def crossover(cheap: ModelSpec, expensive: ModelSpec, limit: int = 1 << 20) -> float | None:
    """The resolution in pixels at which the exact cost of `cheap` falls to that of `expensive`; above it, it is lower.

    Both must share patch, downsample and frames. Returns None when they do not cross below `limit` tokens a side.
    The cost is a quadratic in L, a + b L + c L², fixed by three evaluations; the root is exact, not rounded to a grid.
    """
    if (cheap.patch, cheap.downsample, cheap.frames) != (expensive.patch, expensive.downsample, expensive.frames):
        raise ValueError(f"{cheap.name} and {expensive.name} cut images into different tokens: no common resolution")
    d1, d2, d3 = (at_tokens(expensive, L).macs - at_tokens(cheap, L).macs for L in (1, 2, 3))
    c = (d3 - 2 * d2 + d1) / 2
    b = d2 - d1 - 3 * c
    a = d1 - b - c
    if c == 0:
        return None
    discriminant = b * b - 4 * a * c
    if discriminant < 0:
        return None
    tokens: float = (-b + discriminant**0.5) / (2 * c)
    if not 0 < tokens < limit**2:
        return None
    side: float = tokens**0.5
    return side * cheap.patch * cheap.downsample


def equal_macs_depth(spec: ModelSpec, target: ModelSpec, resolution: int) -> int:
    """The depth that brings `spec` nearest to the exact cost of `target` at a resolution."""
    goal = analytic(target, resolution).macs

    def distance(depth: int) -> int:
        return abs(analytic(dataclasses.replace(spec, depth=depth), resolution).macs - goal)

    one, three = (analytic(dataclasses.replace(spec, depth=n), resolution).macs for n in (1, 3))
    guess = max(1, round(2 * (goal - one) / (three - one)) + 1)  # blocks alternate, so that two are the step
    return min((depth for depth in (guess - 1, guess, guess + 1) if depth > 0), key=distance)
