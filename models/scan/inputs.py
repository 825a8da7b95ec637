"""What a selective scan is given: the operands of one call, checked once and handed to every backend alike.

Letters: B batch, L tokens (time), E channels, N states per channel.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class ScanInputs(NamedTuple):
    """The operands of `selective_scan`, in its argument order."""

    u: Tensor  # (B, L, E)
    delta: Tensor  # (B, L, E)
    A: Tensor  # (E, N)
    B: Tensor  # (B, L, N)
    C: Tensor  # (B, L, N)
    D: Tensor | None  # (E,)
    z: Tensor | None  # (B, L, E)
    delta_bias: Tensor | None  # (E,)
    delta_softplus: bool
    reverse: bool

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """(B, L, E, N)."""
        batch, length, channels = self.u.shape
        return batch, length, channels, self.A.shape[1]

    @property
    def state_dtype(self) -> torch.dtype:
        """float32 whatever the inputs are, so that 16-bit inputs lose nothing in the recurrence; float64 for float64."""
        return torch.float64 if self.u.dtype == torch.float64 else torch.float32

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self[:8]

    def check(self) -> None:
        """Raise ValueError, naming the operand, where shapes, dtypes or devices do not fit together."""
        if self.u.dim() != 3:
            raise ValueError(f"u must be (batch, tokens, channels), got shape {tuple(self.u.shape)}")
        batch, length, channels = self.u.shape
        if self.A.dim() != 2 or self.A.shape[0] != channels:
            raise ValueError(f"A must be (channels, states) = ({channels}, N), got shape {tuple(self.A.shape)}")
        states = self.A.shape[1]
        wanted = {
            "delta": (batch, length, channels),
            "B": (batch, length, states),
            "C": (batch, length, states),
            "D": (channels,),
            "z": (batch, length, channels),
            "delta_bias": (channels,),
        }
        for name, shape in wanted.items():
            tensor = getattr(self, name)
            if tensor is not None and tuple(tensor.shape) != shape:
                raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
        for name, tensor in zip(self._fields[:8], self.tensors, strict=True):
            if tensor is None:
                continue
            if not tensor.is_floating_point():
                raise ValueError(f"{name} must be real floating point, got {tensor.dtype}")
            if tensor.device != self.u.device:
                raise ValueError(f"{name} is on {tensor.device}, u on {self.u.device}: one device is needed")

    def cast(self) -> "ScanInputs":
        """The same operands in the dtype of the state."""
        dtype = self.state_dtype
        return ScanInputs(
            *(None if t is None else t.to(dtype) for t in self.tensors), self.delta_softplus, self.reverse
        )

    def raw_timestep(self) -> Tensor:
        """delta + delta_bias, before softplus."""
        return self.delta if self.delta_bias is None else self.delta + self.delta_bias

    def timestep(self) -> Tensor:
        """The dt of the recurrence, (B, L, E)."""
        raw = self.raw_timestep()
        return F.softplus(raw) if self.delta_softplus else raw
