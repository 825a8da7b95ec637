"""The sequential scan: one token after another, in plain tensor arithmetic. Slow, and the truth for all backends."""

import torch
from torch import Tensor

from .inputs import Gradients, ScanInputs

STEPS = 16  # tokens between kept states, so that they take as much memory as u for N = 16, not sixteen times as much


def missing() -> str:
    return ""


def unsupported(device: torch.device, dtype: torch.dtype) -> str:
    return ""


def states_shape(scan: ScanInputs) -> tuple[int, ...]:
    """The state before every STEPS-th token, in the order in which the scan meets them."""
    batch, length, channels, states = scan.sizes
    return -(-length // STEPS), batch, channels, states


def forward(inputs: ScanInputs, keep_states: bool) -> tuple[Tensor, Tensor]:
    """Output (B, L, E) in u's dtype, and the states that `backward` starts from, empty unless kept."""
    scan = inputs.cast()
    batch, _, channels, states = scan.sizes
    dt, h = scan.timestep(), scan.u.new_zeros(batch, channels, states)
    kept = scan.u.new_empty(states_shape(scan) if keep_states else 0)
    y = torch.empty(scan.u.shape, dtype=scan.u.dtype, device=scan.u.device)
    for step, t in enumerate(_times(scan)):
        if keep_states and step % STEPS == 0:
            kept[step // STEPS] = h
        h = _advance(h, scan, dt, t)
        y[:, t] = (h * scan.C[:, t, None, :]).sum(-1)
    return scan.output(y).to(inputs.u.dtype), kept


def backward(inputs: ScanInputs, states: Tensor, dout: Tensor) -> Gradients:
    """Gradients of the eight tensor operands in the dtype of the state. g_t = dL/dh_t runs against the scan,
    g_t = dy_t C_t + exp(dt_{t+1} A) g_{t+1}; the states are computed again, STEPS tokens at a time."""
    scan = inputs.cast()
    dout = dout.to(scan.state_dtype)
    dt, dy, times = scan.timestep(), scan.read_out_gradient(dout), _times(scan)
    y, dx, ddt = (torch.empty_like(dout) for _ in range(3))
    dA, dB, dC = torch.zeros_like(scan.A), torch.empty_like(scan.B), torch.empty_like(scan.C)
    carry = torch.zeros_like(states[0])  # exp(dt_{t+1} A) g_{t+1}
    for chunk in reversed(range(len(states))):
        tokens = times[chunk * STEPS : (chunk + 1) * STEPS]
        h = [states[chunk]]
        for t in tokens:
            h.append(_advance(h[-1], scan, dt, t))
        for t, before, after in reversed(list(zip(tokens, h[:-1], h[1:], strict=True))):
            y[:, t] = (after * scan.C[:, t, None, :]).sum(-1)
            dC[:, t] = (dy[:, t, :, None] * after).sum(1)
            g = carry + dy[:, t, :, None] * scan.C[:, t, None, :]  # (B, E, N)
            dB[:, t] = (g * (dt[:, t] * scan.u[:, t])[:, :, None]).sum(1)
            dx[:, t] = (g * scan.B[:, t, None, :]).sum(-1)
            carry = _decay(scan, dt, t) * g
            dA += (carry * before * dt[:, t, :, None]).sum(0)
            ddt[:, t] = (carry * before * scan.A).sum(-1)
    return scan.gradients(dout, y, dx, ddt, dA, dB, dC)


def _times(scan: ScanInputs) -> list[int]:
    """The tokens in the order in which the scan meets them."""
    forwards = range(scan.u.shape[1])
    return list(reversed(forwards) if scan.reverse else forwards)


def _decay(scan: ScanInputs, dt: Tensor, t: int) -> Tensor:
    return torch.exp(dt[:, t, :, None] * scan.A)  # (B, E, N)


def _advance(h: Tensor, scan: ScanInputs, dt: Tensor, t: int) -> Tensor:
    """h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t."""
    return _decay(scan, dt, t) * h + (dt[:, t] * scan.u[:, t])[:, :, None] * scan.B[:, t, None, :]  # (B, E, N)
