"""The backends of the scan: which run here, and which one a call gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import torch
from torch import Tensor

from models.scan import mamba_ssm
from models.scan.cpu import backend as cpu
from models.scan.operands import Buffer, Gradients, ScanOperands
from models.scan.portable import chunked, naive, reference
from models.scan.triton import launch


class Backend(Protocol):
    """A module that runs the scan in one direction, with these functions; `portable.reference` is the model."""

    def missing(self) -> str:
        """The reason why it does not run on this machine, in one line, or ""."""

    def unsupported(self, device: torch.device, dtype: torch.dtype) -> str:
        """The reason why it does not take tensors of this kind, or ""."""

    def states_shape(self, scan: ScanOperands) -> tuple[int, ...]:
        """The shape of what `forward` keeps for `backward`."""

    def forward(self, scan: ScanOperands, keep_states: bool) -> tuple[Tensor, Tensor]:
        """Output (B, L, E) in u's dtype, and what `backward` starts from, empty unless kept."""

    def backward(self, scan: ScanOperands, states: Tensor, dout: Tensor) -> Gradients:
        """Gradients of the eight tensor operands."""

    def workspace(self, scans: Sequence[ScanOperands], backward: bool, keep_states: bool) -> list[Buffer]:
        """What a call has allocated when it has the most, its results among it if they are there by then.

        `scans` are one or, of a fused backend, two. Small things, as copies of parameters, may be left out.
        """


class FusedBackend(Backend, Protocol):
    """One that runs two opposite directions in one launch, too."""

    def forward_both(self, scans: Sequence[ScanOperands], keep_states: bool) -> tuple[Tensor, Tensor]:
        """The sum of both outputs, (B, L, E), and both `states_shape`s, stacked."""

    def backward_both(self, scans: Sequence[ScanOperands], states: Tensor, dout: Tensor) -> Gradients:
        """Gradients of the eight tensor operands, those of both directions stacked; z, which they share, has one."""


BACKENDS: dict[str, Backend] = {
    "triton": launch,
    "mamba_ssm": mamba_ssm,
    "numba": cpu,
    "chunked": chunked,
    "reference": reference,
    "naive": naive,
}
"""Fastest first: "auto" takes the first that runs."""

FUSED: dict[str, FusedBackend] = {"triton": launch}
"""Those that run both directions in one launch."""


_planned: ContextVar[str] = ContextVar("planned", default="")


@contextmanager
def planned_on(device: str) -> Iterator[None]:
    """Resolve backends as on devices of this type, whether this machine has one or not: of fake tensors, nothing runs.

    Fake tensors of a CPU stand for those of any device: torch's autograd knows CUDA only where there is some.
    """
    token = _planned.set(device)
    try:
        yield
    finally:
        _planned.reset(token)


def available() -> dict[str, str]:
    """For every backend "" if it runs on this machine, otherwise the reason in one line."""
    return {name: backend.missing() for name, backend in BACKENDS.items()}


def resolve(backend: str, device: torch.device | str, dtype: torch.dtype) -> str:
    """The backend that a call with this argument runs on tensors of this device and dtype, for records.

    "auto" is the first of the table that runs. On meta tensors nothing runs, and the answer is "meta".
    Raises ValueError for an unknown name and for one that cannot run, naming the choices.
    """
    device = torch.device(_planned.get() or device)
    choices = ", ".join(["auto", *BACKENDS])
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"unknown scan backend {backend!r}; choose from {choices}")
    if device.type == "meta":
        return "meta"
    if backend == "auto":
        return next(name for name in BACKENDS if not _reason(name, device, dtype))
    if reason := _reason(backend, device, dtype):
        raise ValueError(f"scan backend {backend!r} cannot run here: {reason}; choose from {choices}")
    return backend


def _reason(name: str, device: torch.device, dtype: torch.dtype) -> str:
    unsupported = BACKENDS[name].unsupported(device, dtype)
    return unsupported or ("" if _planned.get() else BACKENDS[name].missing())
