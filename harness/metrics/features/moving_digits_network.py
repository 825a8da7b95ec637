"""The network of `moving-digits`, and its training: of nine velocities a step has one.

Expected: on scans that it has not seen, it recognises 95 % of the digits and of the velocities.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.moving_digits import STEP, MovingDigits
from harness.metrics.features.digits_in_motion_network import FEWEST_FRAMES, DigitsInMotionNetwork, MotionNetwork, fit

NAME = "moving-digits network, version 2"
"""A change of the network or of its training is a new feature space, hence another version."""
VELOCITIES, EPOCHS = 9, 8


def network() -> DigitsInMotionNetwork:
    """Without its weights."""
    return DigitsInMotionNetwork(MotionNetwork((1, VELOCITIES)))


def velocity_classes(corners: NDArray[np.int64]) -> Tensor:
    """Which of the 9 velocities, -1, 0 or 1 steps on each axis, each step of paths (B, T, 2) has: (B, T-1, 1)."""
    steps = np.diff(corners, axis=1) // STEP + 1
    return torch.from_numpy(steps[..., :1] * 3 + steps[..., 1:])


def train() -> DigitsInMotionNetwork:
    """The trained network, in some twenty seconds."""
    return fit(network, MovingDigits(frames=FEWEST_FRAMES), EPOCHS, velocity_classes)
