"""Bouncing digits: each axis has a speed of its own, one to four pixels a frame, and begins anywhere.

One frame says where a digit is, and not where it goes: the next one may be any of sixteen or more. From two frames all
others follow. A mirror's reflection would not do: a step that is folded at a wall is shorter than the speed, and what
comes next could not be seen from it. Hence an axis turns round before a step that would leave the square, and a step is
as long as every other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from harness.data.digits import SIDE
from harness.data.digits_in_motion import HELD_OUT, DigitsInMotion

SPEEDS = (1, 2, 3, 4)
"""Pixels a frame, of an axis: but for the last no multiple of a patch of 4."""


class BouncingDigits(DigitsInMotion):
    """Digits that bounce in 16 pixels or more: less would not hold a step of the fastest on either side of a wall.

    Its parts are `train`, `reference`, `held-out`, and `tuning`: real clips that settings are chosen by.
    """

    name = "bouncing-digits"
    parts: ClassVar[Mapping[str, int]] = {"train": 3, "reference": 4, "tuning": 5, HELD_OUT: 6}
    least = SIDE + 2 * max(SPEEDS)

    def drawn(self, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        start = random.integers(self.span + 1, size=2)
        velocity = random.choice(SPEEDS, size=2) * random.choice((-1, 1), size=2)
        return start, velocity
