"""Bouncing digits: each axis has a speed of its own, four or eight pixels a frame.

One frame says where a digit is, and not where it goes: in 16 pixels, or another multiple of 8, the next one has two
places along an axis or more. From two frames all others follow. A mirror's reflection would not do: a step that is
folded at a wall is shorter than the speed, and what comes next could not be seen from it. Hence an axis turns round
before a step that would leave the square, and a step is as long as every other.

Steps are whole patches of a /4 model, as those of `moving-digits`: small models learn others much more slowly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from harness.data.digits import SIDE
from harness.data.digits_in_motion import HELD_OUT, DigitsInMotion

SPEEDS = (4, 8)
"""Pixels a frame, of an axis."""


class BouncingDigits(DigitsInMotion):
    """Digits that bounce in 16 pixels or more: less would not hold a step of the fastest.

    Its parts are `train`, `reference`, `held-out`, and `tuning`: real clips that settings are chosen by.
    """

    name = "bouncing-digits"
    parts: ClassVar[Mapping[str, int]] = {"train": 3, "reference": 4, "tuning": 5, HELD_OUT: 6}
    least = SIDE + max(SPEEDS)

    def drawn(self, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        speed = random.choice(SPEEDS, size=2)
        start = speed * random.integers(self.span // speed + 1)
        return start, speed * random.choice((-1, 1), size=2)
