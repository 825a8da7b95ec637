"""The scan in plain torch operators, for any device and dtype: a chunk of tokens at a time, in place.

Within a chunk everything but the recurrence is one operator over all its tokens: the exponentials, the inputs x B, the
read-out as a matrix product with C. What remains for each token is one fused multiply-add on (B, N, E). States are kept
between chunks only and computed again in the backward: memory is O(B L E). No powers of decays are divided out of each
other, as a scan by cumulative sums would: strong decay underflows to zero here, not to NaN.
"""

import torch
from torch import Tensor

from .inputs import Gradients, ScanInputs


def missing() -> str:
    return ""


def unsupported(device: torch.device, dtype: torch.dtype) -> str:
    return ""


def states_shape(scan: ScanInputs) -> tuple[int, ...]:
    """The state before every chunk, in the order of the tokens."""
    batch, length, channels, states = scan.sizes
    return -(-length // _steps(length, True)), batch, states, channels


def forward(inputs: ScanInputs, keep_states: bool) -> tuple[Tensor, Tensor]:
    """See `reference.forward`."""
    chunk = _Chunk(inputs, keep_states)
    out = torch.empty(inputs.u.shape, dtype=inputs.u.dtype, device=inputs.u.device)
    kept = chunk.h.new_empty(states_shape(inputs) if keep_states else 0)
    for index, span in chunk.spans:
        if keep_states:
            kept[index] = chunk.h
        scan = inputs.tokens(span).cast()
        chunk.run(scan)
        out[:, span] = scan.output(chunk.read_out(scan))
    return out, kept


def backward(inputs: ScanInputs, states: Tensor, dout: Tensor) -> Gradients:
    """See `reference.backward`."""
    chunk = _Chunk(inputs, True)
    total = [None if operand is None else _room_for_gradient(operand, inputs) for operand in inputs.tensors]
    g, carry = torch.empty_like(chunk.decay), torch.zeros_like(chunk.h)
    for index, span in reversed(chunk.spans):
        scan = inputs.tokens(span).cast()
        chunk.h.copy_(states[index])
        chunk.run(scan)
        part = chunk.adjoint(scan, dout[:, span].to(inputs.state_dtype), g, carry)
        for whole, gradient in zip(total, part, strict=True):
            if whole is None or gradient is None:
                continue
            if whole.dim() == 3:
                whole[:, span] = gradient
            else:
                whole += gradient
    return tuple(total)


def _room_for_gradient(operand: Tensor, inputs: ScanInputs) -> Tensor:
    """Of a sequence, filled in chunk by chunk; of a parameter, summed over the chunks in the dtype of the state."""
    if operand.dim() == 3:
        return torch.empty(operand.shape, dtype=operand.dtype, device=operand.device)
    return torch.zeros(operand.shape, dtype=inputs.state_dtype, device=operand.device)


def _steps(length: int, keep_states: bool) -> int:
    """Tokens in a chunk: as many as pay; but for a backward so few that from 256 tokens on, for 16 states, its three
    buffers and the kept states together are no more than four tensors of u's size."""
    return 16 if keep_states and length < 1024 else 32


class _Chunk:
    """The buffers of one chunk of tokens, time first: (T, B, N, E)."""

    def __init__(self, inputs: ScanInputs, keep_states: bool):
        batch, length, channels, states = inputs.sizes
        steps, dtype = _steps(length, keep_states), inputs.state_dtype
        self.reverse = inputs.reverse
        self.rates = inputs.A.to(dtype).t().contiguous()  # (N, E)
        self.h = self.rates.new_zeros(batch, states, channels)  # the state that the chunk before hands on
        self.decay = self.rates.new_empty(steps, batch, states, channels)
        # One place more than tokens: the state handed on stands before the first, on the side that time comes from.
        self.states = self.rates.new_empty(steps + 1, batch, states, channels)
        self.decay_of, self.state_at = self.decay.unbind(), self.states.unbind()
        spans = [slice(first, min(first + steps, length)) for first in range(0, length, steps)]
        self.spans = list(enumerate(spans))
        if self.reverse:
            self.spans.reverse()

    def run(self, scan: ScanInputs) -> None:
        """Compute the decay and the state of every token, and h after the last."""
        dt = scan.timestep()
        decay, before, after = self._views(scan)
        torch.mul(_time_first(dt).unsqueeze(2), self.rates, out=decay).exp_()
        before[self._order(scan)[0]].copy_(self.h)
        torch.mul(_time_first(dt * scan.u).unsqueeze(2), _time_first(scan.B).unsqueeze(3), out=after)
        before_at, after_at = (1, 0) if self.reverse else (0, 1)
        for t in self._order(scan):
            self.state_at[t + after_at].addcmul_(self.decay_of[t], self.state_at[t + before_at])
        self.h.copy_(self.state_at[t + after_at])

    def read_out(self, scan: ScanInputs) -> Tensor:
        """y_t = <C_t, h_t>, (B, T, E)."""
        _, _, after = self._views(scan)
        return _time_first(torch.matmul(_time_first(scan.C).unsqueeze(2), after).squeeze(2))

    def adjoint(self, scan: ScanInputs, dout: Tensor, g: Tensor, carry: Tensor) -> Gradients:
        """Gradients of the chunk's operands, after `run`. carry is what the later tokens say of the last state, and is
        replaced by what these say of the one before the first; g is room for dL/dh of every token."""
        y, dt, dy = self.read_out(scan), scan.timestep(), scan.read_out_gradient(dout)
        decay, before, after = self._views(scan)
        order, g = self._order(scan), g[: len(decay)]
        torch.mul(_time_first(dy).unsqueeze(2), _time_first(scan.C).unsqueeze(3), out=g)
        g[order[-1]].add_(carry)
        g_at = g.unbind()
        for t, later in zip(order[-2::-1], order[:0:-1], strict=True):
            g_at[t].addcmul_(self.decay_of[later], g_at[later])
        dC = torch.matmul(after, _time_first(dy).unsqueeze(3)).squeeze(3)  # (T, B, N)
        dB = torch.matmul(g, _time_first(dt * scan.u).unsqueeze(3)).squeeze(3)  # (T, B, N)
        dx = torch.matmul(_time_first(scan.B).unsqueeze(2), g).squeeze(2)  # (T, B, E)
        dexponent = decay.mul_(g)
        carry.copy_(dexponent[order[0]])
        dexponent.mul_(before)
        ddt = torch.mul(dexponent, self.rates, out=g).sum(2)  # (T, B, E)
        dA = torch.mul(dexponent, _time_first(dt).unsqueeze(2), out=g).sum((0, 1)).t()
        return scan.gradients(dout, y, _time_first(dx), _time_first(ddt), dA, _time_first(dB), _time_first(dC))

    def _order(self, scan: ScanInputs) -> range:
        """The chunk's tokens as the scan meets them."""
        length = scan.u.shape[1]
        return range(length - 1, -1, -1) if self.reverse else range(length)

    def _views(self, scan: ScanInputs) -> tuple[Tensor, Tensor, Tensor]:
        """Decay, state before and state after each of the chunk's tokens."""
        length = scan.u.shape[1]
        early, late = self.states[:length], self.states[1 : length + 1]
        return self.decay[:length], *((late, early) if self.reverse else (early, late))


def _time_first(tensor: Tensor) -> Tensor:
    """(B, T, ...) -> (T, B, ...), and back."""
    return tensor.transpose(0, 1)
