"""Random streams by name: every draw is a function of (seed, purpose, index), never of what was drawn before.

So nothing random has to be saved: a run resumes exactly from its step count, a sample is the same in any batch, and
any number of processes draws the same numbers. Streams come from numpy, hence equal on every device.
"""

from __future__ import annotations

import numpy as np

PURPOSES = {"order": 0, "train": 1, "sample": 2, "clip": 3}  # the number is part of the stream: never reuse one


def stream(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """The generator of one draw: `order` (epoch), `train` (step, block of the global batch), `sample` (index),
    `clip` (part, index)."""
    return np.random.default_rng([seed, PURPOSES[purpose], *index])
