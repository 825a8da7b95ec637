"""Multiply-adds of training: a forward pass, and a backward one of twice as many.

The factor is the usual convention (PaLM, arXiv 2204.02311, appendix B); recomputed activations, the operands of
DiM's scans among them, are no part of it.
"""

from __future__ import annotations

import dataclasses

from harness.cost.analytic import analytic
from models import ModelSpec

PASSES = 3
"""A forward pass, and a backward one of twice its multiply-adds."""


def training_macs(spec: ModelSpec, resolution: int, joint_images: int = 0) -> int:
    """Of one image, or of one clip and the single frames that are learnt beside it, in one step.

    Single frames pass through the blocks that mix over space first.
    """
    macs = analytic(spec, resolution).macs
    if joint_images:
        spatial = sum("time" not in spec.axes(block)[:1] for block in range(spec.depth))
        still = dataclasses.replace(spec, frames=0, depth=spatial)
        macs += joint_images * analytic(still, resolution).macs
    return PASSES * macs
