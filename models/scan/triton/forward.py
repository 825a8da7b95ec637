"""The scan's forward as a Triton kernel.

A thread owns a channel, keeps its states in registers and goes from token to token: no shuffle, no barrier. Where there
are fewer channels than the device can hold, time is cut into segments that are scanned at once: a first pass finds
the carry of each segment, the second starts from the carries of the segments before it.

Nothing is copied to be reversed: a program that runs backwards counts its tokens from the end. Decays are powers of two
of dt A / ln 2.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, assignment"
# See tiles.

import triton
import triton.language as tl

from models.scan.triton.tiles import (
    Pitches,
    advance,
    combine_carry,
    load_float,
    load_parameter,
    load_rates,
    place,
    step_size,
    store_carry,
    zero_states,
)


@triton.jit
def forward(
    first, second, z, out, chunk_states, carries, batches, length, channels, segments, chunks_per_segment,
    pitch: Pitches, STATES: tl.constexpr, CHUNK: tl.constexpr, WIDTH: tl.constexpr, SOFTPLUS: tl.constexpr,
    REVERSE: tl.constexpr, READ_OUT: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """One segment of WIDTH channels. Writes out (directions, B, L, E) and, if KEEP, the state before every chunk,
    chunk_states (directions, B, chunks, N, E). Without READ_OUT it is the first pass, and writes only the carry of the
    segment, carries (directions, B, segments, N + 1, E).

    The second direction of a launch, if there is one, runs against the first, which is reversed if REVERSE.
    """
    block, segment, batch, direction, sequence = place(batches, channels, segments, WIDTH)
    operands = first
    if direction == 1:
        operands = second
    backwards = (direction == 1) != REVERSE
    e = block * WIDTH + tl.arange(0, WIDTH)
    here = e < channels
    rates, bias, skip = (
        load_rates(operands.A, e, here, STATES),
        load_parameter(operands.bias, e, here),
        load_parameter(operands.D, e, here),
    )

    h, time = zero_states(STATES, WIDTH), tl.zeros((WIDTH,), tl.float32)
    carry = carries + sequence * segments * (STATES + 1) * channels + e
    if READ_OUT:
        for earlier in range(0, segment):
            h = combine_carry(h, rates, carry + earlier * (STATES + 1) * channels, channels, here)

    chunks = tl.cdiv(length, CHUNK)
    for chunk in range(segment * chunks_per_segment, min((segment + 1) * chunks_per_segment, chunks)):
        if KEEP:
            for n in tl.static_range(STATES):
                tl.store(chunk_states + ((sequence * chunks + chunk) * STATES + n) * channels + e, h[n], mask=here)
        for step in range(chunk * CHUNK, min((chunk + 1) * CHUNK, length)):
            token = batch * length + tl.where(backwards, length - 1 - step, step)
            u = load_float(operands.u + token * pitch.u + e, here)
            dt = step_size(load_float(operands.delta + token * pitch.delta + e, here) + bias, SOFTPLUS)
            time += dt
            h = advance(h, rates, dt, dt * u, operands.B + token * pitch.B)
            if READ_OUT:
                y = skip * u
                for n in tl.static_range(STATES):
                    y += h[n] * tl.load(operands.C + token * pitch.C + n).to(tl.float32)
                if z is not None:
                    gate = load_float(z + token * pitch.z + e, here)
                    y *= gate * tl.sigmoid(gate)
                row = (direction * batches * length + token) * channels + e
                tl.store(out + row, y.to(out.dtype.element_ty), mask=here)

    if not READ_OUT:
        store_carry(carry + segment * (STATES + 1) * channels, h, time, channels, here)
