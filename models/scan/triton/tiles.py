"""What the Triton kernels share: a program's place in the launch, and one token's arithmetic on a block of channels.

A tuple is unrolled: its elements are registers, one for each of the N states of a thread's channel.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, assignment"
# Kernels are written in Triton's language, not in Python: a tuple grows, and its compiler would read an annotation.

from typing import Any, NamedTuple

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


class Operands(NamedTuple):
    """Of one direction; pointers inside a kernel. None for an absent one."""

    u: Any  # (B, L, E)
    delta: Any  # (B, L, E)
    A: Any  # (E, N)
    B: Any  # (B, L, N)
    C: Any  # (B, L, N)
    D: Any  # (E,)
    bias: Any  # (E,)


class Pitches(NamedTuple):
    """Elements from token to token, and from the last of a sequence to the first of the next."""

    u: int
    delta: int
    B: int
    C: int
    z: int
    dout: int


@triton.jit
def place(batches, channels, segments, WIDTH: tl.constexpr):
    """This program's block of channels, segment of time, sequence of the batch, direction, and sequence over both
    directions."""
    blocks = tl.cdiv(channels, WIDTH)
    item, direction = tl.program_id(0), tl.program_id(1).to(tl.int64)
    block, segment, batch = item % blocks, item // blocks % segments, (item // blocks // segments).to(tl.int64)
    return block, segment, batch, direction, direction * batches + batch


@triton.jit
def load_float(pointer, here):
    """In float32, and 0 beyond the last channel."""
    return tl.load(pointer, mask=here, other=0.0).to(tl.float32)


@triton.jit
def load_parameter(pointer, e, here):
    """A (E,) operand, or 0 where it is absent."""
    if pointer is None:
        return tl.zeros(e.shape, tl.float32)
    else:
        return load_float(pointer + e, here)


@triton.jit
def load_rates(A, e, here, STATES: tl.constexpr):
    """A / ln 2, state by state: exp(dt A) = 2^(dt A / ln 2)."""
    rates = ()
    for n in tl.static_range(STATES):
        rates += (load_float(A + e * STATES + n, here) * LOG2_E,)
    return rates


@triton.jit
def zero_states(STATES: tl.constexpr, WIDTH: tl.constexpr):
    """A zero for each state."""
    states = ()
    for _ in tl.static_range(STATES):
        states += (tl.zeros((WIDTH,), tl.float32),)
    return states


@triton.jit
def step_size(raw, SOFTPLUS: tl.constexpr):
    """softplus as max(x, 0) + log1p(exp(-|x|)), since log(1 + w) alone loses the digits of a small w."""
    if SOFTPLUS:
        w = tl.exp(-tl.abs(raw))
        rounded = 1.0 + w
        log1p = tl.where(rounded == 1.0, w, tl.log(rounded) * (w / tl.where(rounded == 1.0, 1.0, rounded - 1.0)))
        return tl.where(raw > 0.0, raw, 0.0) + log1p
    else:
        return raw


@triton.jit
def advance(h, rates, dt, x, B):
    """The states after one more token."""
    later = ()
    for n in tl.static_range(len(rates)):
        later += (tl.exp2(dt * rates[n]) * h[n] + x * tl.load(B + n).to(tl.float32),)
    return later


@triton.jit
def store_carry(pointer, carry, time, channels, here):
    """What a segment passes on if it starts from zero, a row for each state; and its sum of step sizes, one more."""
    for n in tl.static_range(len(carry)):
        tl.store(pointer + n * channels, carry[n], mask=here)
    tl.store(pointer + len(carry) * channels, time, mask=here)


@triton.jit
def combine_carry(carry, rates, pointer, channels, here):
    """The carry after a segment, from the one before it and what `store_carry` wrote: decayed over the segment's time,
    plus what the segment adds."""
    time = tl.load(pointer + len(rates) * channels, mask=here, other=0.0)
    after = ()
    for n in tl.static_range(len(rates)):
        after += (tl.exp2(time * rates[n]) * carry[n] + tl.load(pointer + n * channels, mask=here, other=0.0),)
    return after
