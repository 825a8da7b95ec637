"""The operands of one direction of a selective scan: checked once, and given to every backend alike.

Letters: B batch, L tokens, E channels, N states of a channel. README.md derives the equations that are named here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import sigmoid, silu, softplus

Gradients = tuple[Tensor | None, ...]
"""Gradients of the eight tensor operands, in their order; None for an operand that is absent."""


class Buffer(NamedTuple):
    """A tensor that a call allocates."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


class ScanOperands(NamedTuple):
    """The operands of `selective_scan`, in its argument order."""

    u: Tensor  # (B, L, E)
    delta: Tensor  # (B, L, E), before its bias and softplus
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
        """float32, so that 16-bit operands lose nothing in the recurrence; float64 where u is float64."""
        return torch.float64 if self.u.dtype == torch.float64 else torch.float32

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """The eight tensor operands; None for an absent one."""
        return self[:8]

    def check(self) -> None:
        """Raise ValueError, naming the operand, where shapes, dtypes or devices do not fit together."""
        if self.u.dim() != 3:
            raise ValueError(f"u must be (batch, tokens, channels), got shape {tuple(self.u.shape)}")
        batch, length, channels = self.u.shape
        if self.A.dim() != 2 or self.A.shape[0] != channels:
            raise ValueError(f"A must be (channels, states) with {channels} channels, got shape {tuple(self.A.shape)}")
        states = self.A.shape[1]
        shapes = {
            "delta": (batch, length, channels),
            "B": (batch, length, states),
            "C": (batch, length, states),
            "D": (channels,),
            "z": (batch, length, channels),
            "delta_bias": (channels,),
        }
        for name, tensor in zip(self._fields, self.tensors, strict=False):
            if tensor is None:
                continue
            if name in shapes and tuple(tensor.shape) != shapes[name]:
                raise ValueError(f"{name} must have shape {shapes[name]}, got {tuple(tensor.shape)}")
            if not tensor.is_floating_point():
                raise ValueError(f"{name} must be real floating point, got {tensor.dtype}")
            if tensor.device != self.u.device:
                raise ValueError(f"{name} is on {tensor.device}, u on {self.u.device}; all must be on one device")

    def cast(self) -> ScanOperands:
        """The same operands in the dtype of the state."""
        present = {name: tensor for name, tensor in zip(self._fields, self.tensors, strict=False) if tensor is not None}
        changed: dict[str, Any] = {name: tensor.to(self.state_dtype) for name, tensor in present.items()}
        return self._replace(**changed)

    def cast_copies(self, backward: bool) -> list[Buffer]:
        """What `cast` allocates of tensors, and a cast of dout for the backward."""
        present = {name: tensor for name, tensor in zip(self._fields, self.tensors, strict=False) if tensor is not None}
        present |= {"dout": self.u} if backward else {}
        dtype = self.state_dtype
        return [Buffer(f"cast of {name}", tuple(t.shape), dtype) for name, t in present.items() if t.dtype != dtype]

    def sequences(self, count: int) -> Buffer:
        """So many tensors of (B, L, E), in the dtype of the state."""
        return Buffer("sequences", (count, *self.u.shape), self.state_dtype)

    def gradient_sequences(self, dtype: torch.dtype | None = None) -> list[Buffer]:
        """Gradients of the operands that are sequences, in their own dtypes unless one is given."""
        found = {"u": self.u, "delta": self.delta, "B": self.B, "C": self.C, "z": self.z}
        return [Buffer(f"d{name}", tuple(t.shape), dtype or t.dtype) for name, t in found.items() if t is not None]

    def tokens(self, span: slice) -> ScanOperands:
        """The same scan over some of the tokens."""
        u, delta, B, C = (tensor[:, span] for tensor in (self.u, self.delta, self.B, self.C))
        return self._replace(u=u, delta=delta, B=B, C=C, z=None if self.z is None else self.z[:, span])

    def step_size(self) -> Tensor:
        """dt = delta + delta_bias, through softplus if `delta_softplus`: the Δ of the recurrence, (B, L, E)."""
        raw = self._raw_step_size()
        return softplus(raw) if self.delta_softplus else raw

    def output(self, y: Tensor) -> Tensor:
        """(y + D u) silu(z), from y_t = <C_t, h_t>; (B, L, E)."""
        skipped = y if self.D is None else y + self.D * self.u
        return skipped if self.z is None else skipped * silu(self.z)

    def read_out_gradient(self, dout: Tensor) -> Tensor:
        """dL/dy from dL/dout, (B, L, E)."""
        return dout if self.z is None else dout * silu(self.z)

    def gradients(
        self, dout: Tensor, y: Tensor, dx: Tensor, ddt: Tensor, dA: Tensor, dB: Tensor, dC: Tensor
    ) -> Gradients:
        """Gradients of all operands, from those of the recurrence h_t = exp(dt_t A) h_{t-1} + x_t B_t, where x = dt u
        and ddt is the gradient that reaches dt through the decay exp(dt A) alone."""
        dt, dy = self.step_size(), self.read_out_gradient(dout)
        du, ddelta = dx * dt, ddt + dx * self.u
        if self.delta_softplus:
            ddelta = ddelta * sigmoid(self._raw_step_size())
        dD = dz = None
        if self.D is not None:
            du, dD = du + dy * self.D, (dy * self.u).sum((0, 1))
            y = y + self.D * self.u
        if self.z is not None:
            gate = sigmoid(self.z)
            dz = dout * y * gate * (1 + self.z * (1 - gate))
        ddelta_bias = None if self.delta_bias is None else ddelta.sum((0, 1))
        return du, ddelta, dA, dB, dC, dD, dz, ddelta_bias

    def _raw_step_size(self) -> Tensor:
        return self.delta if self.delta_bias is None else self.delta + self.delta_bias
