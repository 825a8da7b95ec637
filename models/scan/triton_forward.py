"""The scan's forward as a Triton kernel, and what the kernels of both passes share.

A thread owns a channel, keeps its states in registers and goes from token to token: no shuffle, no barrier. Where there
are fewer channels than the device has room for, time is cut into segments that are scanned at once: a first pass finds
what each segment leaves, the second starts from what the segments before it left.

Nothing is copied to be reversed: a program that runs backwards counts its tokens from the end. Decays are powers of two
of dt A / ln 2. A tuple is unrolled: its elements are registers.
"""

# mypy: ignore-errors
# Kernels are written in Triton's language, not in Python: a tuple grows, a loop's variable is a tensor.

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
    """This program's block of channels, segment of time, sequence in the batch, direction, and sequence in all."""
    blocks = tl.cdiv(channels, WIDTH)
    item, direction = tl.program_id(0), tl.program_id(1).to(tl.int64)
    block, segment, batch = item % blocks, item // blocks % segments, (item // blocks // segments).to(tl.int64)
    return block, segment, batch, direction, direction * batches + batch


@triton.jit
def read(pointer, here):
    """In float32, and 0 beyond the last channel."""
    return tl.load(pointer, mask=here, other=0.0).to(tl.float32)


@triton.jit
def of_channels(pointer, e, here):
    """A (E,) operand, or 0 where it is absent."""
    if pointer is None:
        return tl.zeros(e.shape, tl.float32)
    else:
        return read(pointer + e, here)


@triton.jit
def read_rates(A, e, here, STATES: tl.constexpr):
    """A / ln 2, state by state."""
    rates = ()
    for n in tl.static_range(STATES):
        rates += (read(A + e * STATES + n, here) * LOG2_E,)
    return rates


@triton.jit
def zeros(STATES: tl.constexpr, WIDTH: tl.constexpr):
    states = ()
    for _ in tl.static_range(STATES):
        states += (tl.zeros((WIDTH,), tl.float32),)
    return states


@triton.jit
def timestep(raw, SOFTPLUS: tl.constexpr):
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
def fold(carried, rates, end, channels, here):
    """What has been carried over a whole segment, from what the segment makes of nothing and the time it takes."""
    time = tl.load(end + len(rates) * channels, mask=here, other=0.0)
    over = ()
    for n in tl.static_range(len(rates)):
        over += (tl.exp2(time * rates[n]) * carried[n] + tl.load(end + n * channels, mask=here, other=0.0),)
    return over


@triton.jit
def leave(end, carried, time, channels, here):
    """What `fold` reads: a row for each state, one for the time."""
    for n in tl.static_range(len(carried)):
        tl.store(end + n * channels, carried[n], mask=here)
    tl.store(end + len(carried) * channels, time, mask=here)


@triton.jit
def forward(
    first, second, z, out, kept, ends, batches, length, channels, segments, chunks_per_segment, pitch: Pitches,
    STATES: tl.constexpr, CHUNK: tl.constexpr, WIDTH: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr,
    READ_OUT: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """One segment of WIDTH channels. Writes out (directions, B, L, E) and, if KEEP, the state before every chunk, kept
    (directions, B, chunks, N, E). Without READ_OUT it is the first pass, and writes only what the segment leaves of a
    zero state, ends (directions, B, segments, N + 1, E).

    The second direction of a launch, if there is one, runs against the first, which is reversed if REVERSE.
    """
    block, segment, batch, direction, sequence = place(batches, channels, segments, WIDTH)
    given = first
    if direction == 1:
        given = second
    backwards = (direction == 1) != REVERSE
    e = block * WIDTH + tl.arange(0, WIDTH)
    here = e < channels
    rates, bias, skip = (
        read_rates(given.A, e, here, STATES),
        of_channels(given.bias, e, here),
        of_channels(given.D, e, here),
    )

    h, time = zeros(STATES, WIDTH), tl.zeros((WIDTH,), tl.float32)
    end = ends + sequence * segments * (STATES + 1) * channels + e
    if READ_OUT:
        for earlier in range(0, segment):
            h = fold(h, rates, end + earlier * (STATES + 1) * channels, channels, here)

    chunks = tl.cdiv(length, CHUNK)
    for chunk in range(segment * chunks_per_segment, min((segment + 1) * chunks_per_segment, chunks)):
        if KEEP:
            for n in tl.static_range(STATES):
                tl.store(kept + ((sequence * chunks + chunk) * STATES + n) * channels + e, h[n], mask=here)
        for step in range(chunk * CHUNK, min((chunk + 1) * CHUNK, length)):
            token = batch * length + tl.where(backwards, length - 1 - step, step)
            u = read(given.u + token * pitch.u + e, here)
            dt = timestep(read(given.delta + token * pitch.delta + e, here) + bias, SOFTPLUS)
            time += dt
            h = advance(h, rates, dt, dt * u, given.B + token * pitch.B)
            if READ_OUT:
                y = skip * u
                for n in tl.static_range(STATES):
                    y += h[n] * tl.load(given.C + token * pitch.C + n).to(tl.float32)
                if z is not None:
                    gate = read(z + token * pitch.z + e, here)
                    y *= gate * tl.sigmoid(gate)
                row = (direction * batches * length + token) * channels + e
                tl.store(out + row, y.to(out.dtype.element_ty), mask=here)

    if not READ_OUT:
        leave(end + segment * (STATES + 1) * channels, h, time, channels, here)
