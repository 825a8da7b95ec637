"""The sequential scan: one token after another, plain tensor arithmetic. Slow, and the truth for every other backend."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .inputs import ScanInputs

STEPS = 16  # tokens between two kept states: one (B, L, E) tensor of memory for N = 16


def missing() -> str:
    return ""


def unsupported(device: torch.device, dtype: torch.dtype) -> str:
    return ""


def states_shape(scan: ScanInputs) -> tuple[int, ...]:
    """The state before every STEPS-th token, in the order in which the scan meets them."""
    batch, length, channels, states = scan.sizes
    return -(-length // STEPS), batch, channels, states


def _times(scan: ScanInputs) -> list[int]:
    """The tokens in the order in which the scan meets them."""
    length = scan.u.shape[1]
    return list(range(length - 1, -1, -1) if scan.reverse else range(length))


def _advance(h: Tensor, scan: ScanInputs, dt: Tensor, t: int) -> Tensor:
    """h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t."""
    decay = torch.exp(dt[:, t, :, None] * scan.A)  # (B, E, N)
    return decay * h + (dt[:, t] * scan.u[:, t])[:, :, None] * scan.B[:, t, None, :]  # (B, E, N)


def forward(inputs: ScanInputs, keep_states: bool) -> tuple[Tensor, Tensor]:
    """Output (B, L, E) in u's dtype, and the states `backward` starts from (empty unless kept)."""
    scan = inputs.cast()
    batch, length, channels, n = scan.sizes
    dt = scan.timestep()
    h = scan.u.new_zeros(batch, channels, n)
    kept = []
    y = torch.empty_like(scan.u, memory_format=torch.contiguous_format)
    for step, t in enumerate(_times(scan)):
        if keep_states and step % STEPS == 0:
            kept.append(h)
        h = _advance(h, scan, dt, t)
        y[:, t] = (h * scan.C[:, t, None, :]).sum(-1)
    if scan.D is not None:
        y = y + scan.D * scan.u
    if scan.z is not None:
        y = y * F.silu(scan.z)
    return y.to(inputs.u.dtype), torch.stack(kept) if kept else y.new_empty(0)


def backward(inputs: ScanInputs, states: Tensor, dout: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of the eight operands. The adjoint g_t = dL/dh_t runs against the scan:
    g_t = dy_t C_t + exp(dt_{t+1} A) g_{t+1}; states are computed again, STEPS tokens at a time."""
    scan = inputs.cast()
    dout = dout.to(scan.state_dtype)
    batch, length, channels, n = scan.sizes
    dt, times = scan.timestep(), _times(scan)
    dy = dout if scan.z is None else dout * F.silu(scan.z)
    y = torch.empty_like(dout) if scan.z is not None else None
    du, ddt = torch.empty_like(dout), torch.empty_like(dout)
    dA = torch.zeros_like(scan.A)
    dB, dC = torch.empty_like(scan.B), torch.empty_like(scan.C)
    g = dout.new_zeros(batch, channels, n)  # exp(dt_{t+1} A) g_{t+1}
    for first in reversed(range(0, length, STEPS)):
        chunk = times[first : first + STEPS]
        h = [states[first // STEPS]]
        for t in chunk:
            h.append(_advance(h[-1], scan, dt, t))
        for i in reversed(range(len(chunk))):
            t, before, now = chunk[i], h[i], h[i + 1]
            if y is not None:
                y[:, t] = (now * scan.C[:, t, None, :]).sum(-1)
            g = g + dy[:, t, :, None] * scan.C[:, t, None, :]
            dC[:, t] = (dy[:, t, :, None] * now).sum(1)
            dB[:, t] = (g * (dt[:, t] * scan.u[:, t])[:, :, None]).sum(1)
            dx = (g * scan.B[:, t, None, :]).sum(-1)
            g = torch.exp(dt[:, t, :, None] * scan.A) * g
            dA += (g * before * dt[:, t, :, None]).sum(0)
            ddt[:, t] = (g * before * scan.A).sum(-1) + dx * scan.u[:, t]
            du[:, t] = dx * dt[:, t]
    return finish(inputs, scan, dout, dy, y, du, ddt, dA, dB, dC)


def finish(
    inputs: ScanInputs,
    scan: ScanInputs,
    dout: Tensor,
    dy: Tensor,
    y: Tensor | None,
    du: Tensor,
    ddt: Tensor,
    dA: Tensor,
    dB: Tensor,
    dC: Tensor,
) -> tuple[Tensor | None, ...]:
    """What surrounds the recurrence: skip D, gate z (y is the ungated scan without skip), softplus and bias of delta."""
    dD = dz = dbias = None
    if scan.z is not None and y is not None:
        if scan.D is not None:
            y = y + scan.D * scan.u
        gate = torch.sigmoid(scan.z)
        dz = dout * y * gate * (1 + scan.z * (1 - gate))
    if scan.D is not None:
        dD = (dy * scan.u).sum((0, 1))
        du = du + dy * scan.D
    ddelta = ddt * torch.sigmoid(scan.raw_timestep()) if scan.delta_softplus else ddt
    if scan.delta_bias is not None:
        dbias = ddelta.sum((0, 1))
    gradients = (du, ddelta, dA, dB, dC, dD, dz, dbias)
    return tuple(
        None if grad is None or operand is None else grad.to(operand.dtype)
        for grad, operand in zip(gradients, inputs.tensors, strict=True)
    )
