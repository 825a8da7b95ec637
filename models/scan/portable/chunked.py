"""The scan in plain torch operators, a chunk of tokens at a time, in place.

Within a chunk everything but the recurrence is one operator over all its tokens: the exponentials, the inputs x B, the
read-out as a matrix product with C. What remains for each token is one fused multiply-add on (B, N, E). Only the
inter-chunk states are kept, and the others recomputed in the backward: memory is O(B L E). No powers of decays are
divided by each other, as in a scan by cumulative sums: strong decay underflows to zero here, not to NaN.
"""

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
    """The state before every chunk, in the order of the tokens."""
    batch, length, channels, states = scan.sizes
    return -(-length // _chunk_length(length, True)), batch, states, channels


def forward(scan: ScanOperands, keep_states: bool) -> tuple[Tensor, Tensor]:
    """See `reference.forward`."""
    chunk = _Chunk(scan, keep_states)
    out = torch.empty(scan.u.shape, dtype=scan.u.dtype, device=scan.u.device)
    kept = chunk.h.new_empty(states_shape(scan) if keep_states else 0)
    for index, span in chunk.spans:
        if keep_states:
            kept[index] = chunk.h
        part = scan.tokens(span).cast()
        chunk.run(part)
        out[:, span] = part.output(chunk.read_out(part))
    return out, kept


def backward(scan: ScanOperands, states: Tensor, dout: Tensor) -> Gradients:
    """See `reference.backward`."""
    chunk = _Chunk(scan, True)
    total = [None if operand is None else _empty_gradient(operand, scan) for operand in scan.tensors]
    g, carry = torch.empty_like(chunk.decay), torch.zeros_like(chunk.h)
    for index, span in reversed(chunk.spans):
        part = scan.tokens(span).cast()
        chunk.h.copy_(states[index])
        chunk.run(part)
        gradients = chunk.adjoint(part, dout[:, span].to(scan.state_dtype), g, carry)
        for whole, gradient in zip(total, gradients, strict=True):
            if whole is None or gradient is None:
                continue
            if whole.dim() == 3:
                whole[:, span] = gradient
            else:
                whole += gradient
    return tuple(total)


def workspace(scans: Sequence[ScanOperands], backward: bool, keep_states: bool) -> list[Buffer]:
    """See `Backend.workspace`: the buffers of one chunk, what is computed of its sequences, and the results."""
    (scan,) = scans
    batch, length, channels, states = scan.sizes
    chunk = min(_chunk_length(length, keep_states), length)
    part = scan.tokens(slice(0, chunk))
    steps = {"decay": chunk, "states": chunk + 1, "carried states": 1} | ({"adjoint": chunk + 1} if backward else {})
    buffers = [Buffer(name, (n, batch, states, channels), scan.state_dtype) for name, n in steps.items()]
    buffers += [*part.cast_copies(backward), part.sequences(19 if backward else 4)]
    if backward:
        return [*buffers, *scan.gradient_sequences()]
    kept = [Buffer("kept states", states_shape(scan), scan.state_dtype)] if keep_states else []
    return [*buffers, *kept, Buffer("out", tuple(scan.u.shape), scan.u.dtype)]


def _empty_gradient(operand: Tensor, scan: ScanOperands) -> Tensor:
    """Of a sequence, filled chunk by chunk; of a parameter, summed over the chunks in the dtype of the state."""
    if operand.dim() == 3:
        return torch.empty(operand.shape, dtype=operand.dtype, device=operand.device)
    return torch.zeros(operand.shape, dtype=scan.state_dtype, device=operand.device)


def _chunk_length(length: int, keep_states: bool) -> int:
    """Tokens in a chunk: as many as pay; but for a backward so few that from 256 tokens on, for 16 states, its three
    buffers and the kept states together are no more than four tensors of u's size."""
    return 16 if keep_states and length < 1024 else 32


class _Chunk:
    """The buffers of one chunk of tokens, time first: (T, B, N, E)."""

    def __init__(self, scan: ScanOperands, keep_states: bool) -> None:
        batch, length, channels, states = scan.sizes
        steps, dtype = _chunk_length(length, keep_states), scan.state_dtype
        self.reverse = scan.reverse
        self.A = scan.A.to(dtype).t().contiguous()  # (N, E)
        self.h = self.A.new_zeros(batch, states, channels)  # the inter-chunk state: before the chunk, then after it
        self.decay = self.A.new_empty(steps, batch, states, channels)
        # One place more than tokens: the inter-chunk state stands before the first, on the side that time comes from.
        self.states = self.A.new_empty(steps + 1, batch, states, channels)
        self.decay_of, self.state_at = self.decay.unbind(), self.states.unbind()
        self.spans = list(enumerate(slice(first, min(first + steps, length)) for first in range(0, length, steps)))
        if self.reverse:
            self.spans.reverse()

    def run(self, part: ScanOperands) -> None:
        """Compute the decay and the state of every token, and h after the last."""
        dt = part.step_size()
        decay, before, after = self._views(part)
        torch.mul(_time_first(dt).unsqueeze(2), self.A, out=decay).exp_()
        before[self._order(part)[0]].copy_(self.h)
        torch.mul(_time_first(dt * part.u).unsqueeze(2), _time_first(part.B).unsqueeze(3), out=after)
        before_at, after_at = (1, 0) if self.reverse else (0, 1)
        for t in self._order(part):
            self.state_at[t + after_at].addcmul_(self.decay_of[t], self.state_at[t + before_at])
        self.h.copy_(self.state_at[t + after_at])

    def read_out(self, part: ScanOperands) -> Tensor:
        """y_t = <C_t, h_t>, (B, T, E)."""
        _, _, after = self._views(part)
        return _time_first(torch.matmul(_time_first(part.C).unsqueeze(2), after).squeeze(2))

    def adjoint(self, part: ScanOperands, dout: Tensor, g: Tensor, carry: Tensor) -> Gradients:
        """Gradients of the chunk's operands, after `run`.

        `carry`, exp(dt A) g of the token after the chunk, is replaced by that of the chunk's first token; `g` is a
        buffer for the adjoint dL/dh of every token.
        """
        y, dt, dy = self.read_out(part), part.step_size(), part.read_out_gradient(dout)
        decay, before, after = self._views(part)
        order, g = self._order(part), g[: len(decay)]
        torch.mul(_time_first(dy).unsqueeze(2), _time_first(part.C).unsqueeze(3), out=g)
        g[order[-1]].add_(carry)
        g_at = g.unbind()
        for t, later in zip(order[-2::-1], order[:0:-1], strict=True):
            g_at[t].addcmul_(self.decay_of[later], g_at[later])
        dC = torch.matmul(after, _time_first(dy).unsqueeze(3)).squeeze(3)  # (T, B, N)
        dB = torch.matmul(g, _time_first(dt * part.u).unsqueeze(3)).squeeze(3)  # (T, B, N)
        dx = torch.matmul(_time_first(part.B).unsqueeze(2), g).squeeze(2)  # (T, B, E)
        dexponent = decay.mul_(g)
        carry.copy_(dexponent[order[0]])
        dexponent.mul_(before)
        ddt = torch.mul(dexponent, self.A, out=g).sum(2)  # (T, B, E)
        dA = torch.mul(dexponent, _time_first(dt).unsqueeze(2), out=g).sum((0, 1)).t()
        return part.gradients(dout, y, _time_first(dx), _time_first(ddt), dA, _time_first(dB), _time_first(dC))

    def _order(self, part: ScanOperands) -> range:
        """The chunk's tokens in the order of the scan."""
        length = part.u.shape[1]
        return range(length - 1, -1, -1) if self.reverse else range(length)

    def _views(self, part: ScanOperands) -> tuple[Tensor, Tensor, Tensor]:
        """Decay, state before and state after each of the chunk's tokens."""
        length = part.u.shape[1]
        early, late = self.states[:length], self.states[1 : length + 1]
        return self.decay[:length], *((late, early) if self.reverse else (early, late))


def _time_first(tensor: Tensor) -> Tensor:
    """(B, T, ...) -> (T, B, ...), and back."""
    return tensor.transpose(0, 1)
