"""Moving digits: they go four pixels a frame along the rows, the columns, or both.

Every step of a clip has one length (4 or sqrt 32 pixels), and nothing ever stands still. A step is the side of a /4
model's patch, so that a moving digit is patches that change places, which small models can learn. In 12 pixels a digit
has two places along an axis and goes back and forth, the least motion there is; in 16 it has three.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from harness.data.digits import SIDE
from harness.data.digits_in_motion import HELD_OUT, DigitsInMotion

STEP = 4  # pixels a frame, on an axis that moves
DIRECTIONS = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column]


class MovingDigits(DigitsInMotion):
    """Digits that go back and forth in 12 pixels or more.

    Its parts are `train`, `reference`, `held-out`, and `tuning`: real clips that settings are chosen by.
    """

    name = "moving-digits"
    parts: ClassVar[Mapping[str, int]] = {"train": 0, "reference": 1, HELD_OUT: 2, "tuning": 7}
    least = SIDE + STEP

    def drawn(self, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        start = STEP * random.integers(self.span // STEP + 1, size=2)
        velocity = STEP * np.array(DIRECTIONS[random.integers(len(DIRECTIONS))])
        return start, velocity
