"""The scan with decays and states of every token in memory at once, as tensors of (B, L, E, N).

What mamba_ssm's own reference does, and what a model without a fused kernel pays. It is here to be compared with:
"auto" never chooses it.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from models.scan.operands import Buffer, Gradients, ScanOperands


def missing() -> str:
    """Nothing: it runs on every machine."""
    return ""


def unsupported(device: torch.device, dtype: torch.dtype) -> str:
    """Nothing: it takes every device and dtype."""
    return ""


def states_shape(scan: ScanOperands) -> tuple[int, ...]:
    """Decays and states of every token."""
    return 2, *scan.sizes


def forward(scan: ScanOperands, keep_states: bool) -> tuple[Tensor, Tensor]:
    """See `reference.forward`."""
    cast = scan.cast()
    kept = cast.u.new_empty(states_shape(scan))
    decay, h = kept
    dt = cast.step_size()
    torch.mul(dt.unsqueeze(-1), cast.A, out=decay).exp_()
    torch.mul((dt * cast.u).unsqueeze(-1), cast.B.unsqueeze(2), out=h)
    for before, t in _steps(scan):
        h[:, t].addcmul_(decay[:, t], h[:, before])
    y = torch.matmul(h, cast.C.unsqueeze(-1)).squeeze(-1)
    return cast.output(y).to(scan.u.dtype), kept if keep_states else kept.new_empty(0)


def backward(scan: ScanOperands, states: Tensor, dout: Tensor) -> Gradients:
    """See `reference.backward`."""
    cast, dout = scan.cast(), dout.to(scan.state_dtype)
    decay, h = states
    y = torch.matmul(h, cast.C.unsqueeze(-1)).squeeze(-1)
    dy = cast.read_out_gradient(dout)
    g = dy.unsqueeze(-1) * cast.C.unsqueeze(2)  # dL/dh
    for before, t in reversed(_steps(scan)):
        g[:, before].addcmul_(decay[:, t], g[:, t])
    dC = (dy.unsqueeze(2) @ h).squeeze(2)
    dB = ((cast.step_size() * cast.u).unsqueeze(2) @ g).squeeze(2)
    dx = (g @ cast.B.unsqueeze(-1)).squeeze(-1)
    dexponent = decay * g
    for before, t in _steps(scan):
        dexponent[:, t].mul_(h[:, before])
    first = 0 if not scan.reverse else -1
    dexponent[:, first] = 0  # the state before the first token is zero
    ddt = (dexponent * cast.A).sum(-1)
    dA = torch.einsum("blen,ble->en", dexponent, cast.step_size())
    return cast.gradients(dout, y, dx, ddt, dA, dB, dC)


def workspace(scans: Sequence[ScanOperands], backward: bool, keep_states: bool) -> list[Buffer]:
    """See `Backend.workspace`: tensors of (B, L, E, N), and a few of (B, L, E) beside them."""
    (scan,) = scans
    names = ("decay gradients", "state gradients", "products with A") if backward else ("decays", "states")
    states = [Buffer(name, scan.sizes, scan.state_dtype) for name in names]
    return [*states, *scan.cast_copies(backward), scan.sequences(4 if backward else 5)]


def _steps(scan: ScanOperands) -> list[tuple[int, int]]:
    """(previous, this) token, in the order of the scan."""
    order = range(scan.u.shape[1])
    return list(itertools.pairwise(reversed(order) if scan.reverse else order))
