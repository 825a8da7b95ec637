"""The sequential scan: one token after another, in plain tensor arithmetic. Slow, and the truth for all backends."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.scan.operands import Buffer, Gradients, ScanOperands

CHUNK = 16  # tokens between kept states: for 16 states, these take as much memory as u, not sixteen times as much


def missing() -> str:
    """Nothing: it runs on every machine."""
    return ""


def unsupported(device: torch.device, dtype: torch.dtype) -> str:
    """Nothing: it takes every device and dtype."""
    return ""


def states_shape(scan: ScanOperands) -> tuple[int, ...]:
    """The inter-chunk states: that before every chunk, in the order of the scan."""
    batch, length, channels, states = scan.sizes
    return -(-length // CHUNK), batch, channels, states


def forward(scan: ScanOperands, keep_states: bool) -> tuple[Tensor, Tensor]:
    """Output (B, L, E) in u's dtype, and the inter-chunk states that `backward` starts from, empty unless kept."""
    cast = scan.cast()
    batch, _, channels, states = scan.sizes
    dt, h = cast.step_size(), cast.u.new_zeros(batch, channels, states)
    kept = cast.u.new_empty(states_shape(scan) if keep_states else 0)
    y = torch.empty(cast.u.shape, dtype=cast.u.dtype, device=cast.u.device)
    for step, t in enumerate(_times(scan)):
        if keep_states and step % CHUNK == 0:
            kept[step // CHUNK] = h
        h = _advance(h, cast, dt, t)
        y[:, t] = (h * cast.C[:, t, None, :]).sum(-1)
    return cast.output(y).to(scan.u.dtype), kept


def backward(scan: ScanOperands, states: Tensor, dout: Tensor) -> Gradients:
    """Gradients of the eight tensor operands, in the dtype of the state or of the operand.

    The adjoint g_t = dL/dh_t = dy_t C_t + exp(dt_{t+1} A) g_{t+1} runs against the scan. The states are recomputed,
    a chunk at a time, from the one that was kept before the chunk.
    """
    cast = scan.cast()
    dout = dout.to(scan.state_dtype)
    dt, dy, times = cast.step_size(), cast.read_out_gradient(dout), _times(scan)
    y, dx, ddt = (torch.empty_like(dout) for _ in range(3))
    dA, dB, dC = torch.zeros_like(cast.A), torch.empty_like(cast.B), torch.empty_like(cast.C)
    carry = torch.zeros_like(states[0])  # exp(dt_{t+1} A) g_{t+1}
    for chunk in reversed(range(len(states))):
        tokens = times[chunk * CHUNK : (chunk + 1) * CHUNK]
        h = [states[chunk]]
        for t in tokens:
            h.append(_advance(h[-1], cast, dt, t))
        for t, before, after in reversed(list(zip(tokens, h[:-1], h[1:], strict=True))):
            y[:, t] = (after * cast.C[:, t, None, :]).sum(-1)
            dC[:, t] = (dy[:, t, :, None] * after).sum(1)
            g = carry + dy[:, t, :, None] * cast.C[:, t, None, :]  # (B, E, N)
            dB[:, t] = (g * (dt[:, t] * cast.u[:, t])[:, :, None]).sum(1)
            dx[:, t] = (g * cast.B[:, t, None, :]).sum(-1)
            carry = _decay(cast, dt, t) * g
            dA += (carry * before * dt[:, t, :, None]).sum(0)
            ddt[:, t] = (carry * before * cast.A).sum(-1)
    return cast.gradients(dout, y, dx, ddt, dA, dB, dC)


def workspace(scans: Sequence[ScanOperands], backward: bool, keep_states: bool) -> list[Buffer]:
    """See `Backend.workspace`: some tensors of (B, L, E), and the states that are kept or recomputed."""
    (scan,) = scans
    batch, _, channels, states = scan.sizes
    recomputed, kept = (CHUNK + 1, batch, channels, states), states_shape(scan) if keep_states else (0,)
    held = Buffer("states", recomputed if backward else kept, scan.state_dtype)
    return [held, *scan.cast_copies(backward), scan.sequences(14 if backward else 5)]


def _times(scan: ScanOperands) -> list[int]:
    """The tokens in the order of the scan."""
    order = range(scan.u.shape[1])
    return list(reversed(order) if scan.reverse else order)


def _decay(scan: ScanOperands, dt: Tensor, t: int) -> Tensor:
    return torch.exp(dt[:, t, :, None] * scan.A)  # (B, E, N)


def _advance(h: Tensor, scan: ScanOperands, dt: Tensor, t: int) -> Tensor:
    """h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t."""
    return _decay(scan, dt, t) * h + (dt[:, t] * scan.u[:, t])[:, :, None] * scan.B[:, t, None, :]  # (B, E, N)
