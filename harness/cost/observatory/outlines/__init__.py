"""Closed forms of published models that are no family here: lists of operations by which their costs are checked.

An outline says what a model computes, by the names of its source's modules; nothing of it can be run. A model of the
catalogue needs none: its own closed form, which is checked against the traced count, takes its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from harness.cost.analytic import analytic
from harness.cost.observatory.outlines import (
    dico,
    diffusion_rwkv,
    dig,
    dimsum,
    dis,
    dit_blocks,
    lamamba,
    lightning_dit,
    teng_dim,
    u_vit,
)
from harness.cost.operations import Cost
from models import ModelSpec, catalogue, spec
from models.operations import Op


@dataclass(frozen=True)
class Outline:
    """A counted forward pass of `batch` images, with the letters that expressions are written in.

    N blocks, L tokens (or the positions that rows of tokens are made of), D width, S state. `built` is whether it is a
    model of the catalogue, which tools can be run on.
    """

    cost: Cost
    letters: dict[str, int]
    built: bool = False


Form = Callable[[int, int], tuple[list[Op], dict[str, int]]]
"""From pixels a side and a batch to the operations and letters."""

FORMS: dict[str, Form] = {
    **{f"DiT-XL/2 {block}": partial(dit_blocks.operations, block) for block in dit_blocks.BLOCKS},
    **{f"DiG-{size}/2 causal": partial(dig.operations, size) for size in dig.SIZES},
    **{f"DiS-{size}/{patch} on pixels": partial(dis.operations, size, patch) for size in dis.SIZES for patch in (2, 4)},
    **{f"DiCo-{size}": partial(dico.operations, size) for size in dico.SIZES},
    **{f"DiMSUM-{size}/2": partial(dimsum.operations, size, 2) for size in dimsum.SIZES},
    **{f"DRWKV-{size}/2": partial(diffusion_rwkv.operations, size, 2) for size in diffusion_rwkv.SIZES},
    "LaMamba-Diff-XL": partial(lamamba.operations, lamamba.WIDTH, lamamba.STATE),
    "LightningDiT-XL/1": lightning_dit.operations,
    **{f"Teng's DiM-{size}": partial(teng_dim.operations, size) for size in teng_dim.SIZES},
    **{f"U-ViT-{size}/{patch}": partial(u_vit.operations, size, patch) for size in u_vit.SIZES for patch in (2, 4)},
}
SAME_BACKBONE = {"SiT": "DiT"}
"""Models that another paper's network is, under another name: SiT trains a DiT by flow matching."""

WITHOUT_PATCHES = "/1"
"""What the catalogue's names have where a paper's say nothing of patches."""


def built(model: str) -> ModelSpec | None:
    """The model of the catalogue that a paper's name stands for; None where there is none."""
    family, dash, rest = model.partition("-")
    name = SAME_BACKBONE.get(family, family) + dash + rest
    return next((spec(one) for one in (name, name + WITHOUT_PATCHES) if one in catalogue()), None)


def outline(model: str, pixels: int, batch: int = 1) -> Outline | None:
    """The closed form of a model at a resolution; None for a model that is not known here.

    Raises ValueError for a resolution that it cannot have.
    """
    if known := built(model):
        positions = known.tokens(pixels) * known.group
        letters = {"N": known.depth, "L": positions, "D": known.width, "S": known.state}
        return Outline(analytic(known, pixels, batch), letters, built=True)
    if model not in FORMS:
        return None
    ops, letters = FORMS[model](pixels, batch)
    return Outline(Cost(tuple(ops), sum(op.params for op in ops), "outline"), letters)
