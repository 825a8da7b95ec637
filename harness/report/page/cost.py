"""What does it cost: the closed form's figures for every choice that the page offers, and what the paper prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.core.command import PAPER_SIZES
from harness.cost import CONVENTIONS, MAC_KINDS, analytic, crossover
from harness.cost.published import published_costs
from harness.report.page import kinds
from models import ModelSpec, catalogue, counterpart, sizes, spec
from models.spec import ARRANGEMENTS

LARGEST = 2048
"""Pixels a side, where the paper ends."""
SIZES = tuple(size for size in sizes.SIZES if sizes.SIZES[size].width >= sizes.SIZES[PAPER_SIZES[0]].width)
"""The paper's sizes, and larger ones that a family may have."""
COLOURS = ("#7A8B99", "#B8C4CE", "#CC79A7", "#E69F00", "#56B4E9", "#009E73")
"""Of the kinds of operation, in their order."""


def costs() -> dict[str, Any]:
    """Models with their exact costs by resolution, the conventions, and the printed cells. All amounts are whole.

    A convention that gives a multiple of an earlier one's amounts everywhere is stated as that multiple.
    """
    specs = [spec(name) for name in catalogue(SIZES)]
    clips = [spec(name) for name in catalogue(SIZES, video=True)]
    specs += [one for one in clips if one.arrangement == ARRANGEMENTS[0]]
    step = math.lcm(*(one.unit for one in specs))  # every model can be of every resolution
    resolutions = range(step, LARGEST + 1, step)
    models = [_model(one, resolutions) for one in specs]
    return {
        "resolutions": list(resolutions),
        "sizes": SIZES,
        "usual": PAPER_SIZES[-1],
        "operations": [{"kind": kind, "colour": colour} for kind, colour in zip(MAC_KINDS, COLOURS, strict=False)],
        "conventions": _conventions(models),
        "models": models,
        "printed": [
            {"model": model, "px": px, "gflops": cell["published_gflops"]}
            for (model, px), cell in published_costs().items()
        ],
    }


def _model(one: ModelSpec, resolutions: Sequence[int]) -> dict[str, Any]:
    costs = [analytic(one, px) for px in resolutions]
    batches = {convention.batch for convention in CONVENTIONS.values()} - {None}
    several = {batch: [analytic(one, px, batch) for px in resolutions] for batch in batches if batch}
    rival = counterpart(one)
    return {
        "name": one.name,
        "kind": kinds.name(one.family, one.variant),
        "size": one.size,
        "patch": one.patch,
        "frames": one.frames,
        "depth": one.depth,
        "params": costs[0].params,
        "rival": rival.name if rival else None,
        "crossover": crossover(one, rival) if rival else None,
        "by_kind": {kind: [cost.by_kind()[kind] for cost in costs] for kind in MAC_KINDS if kind in costs[0].by_kind()},
        "totals": {
            name: [convention.total(cost) for cost in several.get(convention.batch or 0, costs)]
            for name, convention in CONVENTIONS.items()
        },
    }


def _conventions(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conventions as data; the totals of one that follows from another are dropped from the models."""
    stated: list[dict[str, Any]] = []
    for name, convention in CONVENTIONS.items():
        follows: dict[str, Any] = {}
        for earlier in (one["name"] for one in stated if "of" not in one):
            times = models[0]["totals"][name][0] // models[0]["totals"][earlier][0]
            if all(m["totals"][name] == [times * n for n in m["totals"][earlier]] for m in models):
                follows = {"of": earlier, "times": times}
                break
        stated.append({"name": name, "unit": convention.unit, "batch": convention.batch or 1,
                       "counts": convention.counts, **follows})  # fmt: skip
    for one in stated:
        for model in models if "of" in one else ():
            del model["totals"][one["name"]]
    return stated
