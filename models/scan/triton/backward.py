"""The scan's backward as Triton kernels: as in the forward, a thread owns a channel, and its states are in registers.

Time runs against the scan. With a = exp(dt A) and the adjoint g = dL/dh: g_t = dy_t C_t + a_{t+1} g_{t+1}. The carry
from token to token is a g; where time is cut into segments, a first pass finds the carry of each segment.

dB and dC are sums over channels: by shuffles within a warp, and left in parts, one for each block of channels, so that
no result depends on the order in which programs end.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, assignment"
# See tiles.

from typing import Any, NamedTuple

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

LN_2 = tl.constexpr(0.6931471805599453)


class GradientBuffers(NamedTuple):
    """Where the backward writes the gradient of each operand; parts are to be summed over their axis."""

    u: Any  # (directions, B, L, E)
    delta: Any  # (directions, B, L, E)
    A: Any  # (directions, B and segments as parts, E, N)
    B: Any  # (directions, blocks as parts, B, L, N)
    C: Any  # (directions, blocks as parts, B, L, N)
    D: Any  # (directions, B and segments as parts, E)
    z: Any  # (directions as parts, B, L, E)
    bias: Any  # (directions, B and segments as parts, E)


@triton.jit
def adjoint_carry(
    first, second, z, dout, carries, batches, length, channels, segments, chunks_per_segment, pitch: Pitches,
    STATES: tl.constexpr, CHUNK: tl.constexpr, WIDTH: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """The first pass: the carry that a segment alone passes to the one before it, carries (directions, B, segments,
    N + 1, E)."""
    block, segment, batch, direction, sequence = place(batches, channels, segments, WIDTH)
    operands = first
    if direction == 1:
        operands = second
    backwards = (direction == 1) != REVERSE
    e = block * WIDTH + tl.arange(0, WIDTH)
    here = e < channels
    rates, bias = load_rates(operands.A, e, here, STATES), load_parameter(operands.bias, e, here)

    carry, time = zero_states(STATES, WIDTH), tl.zeros((WIDTH,), tl.float32)
    start = segment * chunks_per_segment * CHUNK
    stop = min(start + chunks_per_segment * CHUNK, length)
    for back in range(0, stop - start):
        step = stop - 1 - back
        token = batch * length + tl.where(backwards, length - 1 - step, step)
        dt = step_size(load_float(operands.delta + token * pitch.delta + e, here) + bias, SOFTPLUS)
        time += dt
        dy = load_float(dout + token * pitch.dout + e, here)
        if z is not None:
            gate = load_float(z + token * pitch.z + e, here)
            dy *= gate * tl.sigmoid(gate)
        decayed = ()
        for n in tl.static_range(STATES):
            c = tl.load(operands.C + token * pitch.C + n).to(tl.float32)
            decayed += (tl.exp2(dt * rates[n]) * (carry[n] + dy * c),)
        carry = decayed
    store_carry(carries + (sequence * segments + segment) * (STATES + 1) * channels + e, carry, time, channels, here)


@triton.jit
def backward(
    first, second, z, dout, chunk_states, token_states, carries, gradients: GradientBuffers, batches, length, channels,
    segments, chunks_per_segment, pitch: Pitches, STATES: tl.constexpr, CHUNK: tl.constexpr, WIDTH: tl.constexpr,
    SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """One segment of WIDTH channels. The states of a chunk are recomputed from the one kept before it and stored in
    token_states, (directions, B, segments, CHUNK, N, E), for the adjoint: a thread reads only what it wrote."""
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

    carry, dA = zero_states(STATES, WIDTH), zero_states(STATES, WIDTH)
    dD, dbias = tl.zeros((WIDTH,), tl.float32), tl.zeros((WIDTH,), tl.float32)
    for later in range(0, segments - 1 - segment):
        later_carry = carries + (sequence * segments + segments - 1 - later) * (STATES + 1) * channels + e
        carry = combine_carry(carry, rates, later_carry, channels, here)

    chunks = tl.cdiv(length, CHUNK)
    first_chunk = segment * chunks_per_segment
    last_chunk = min(first_chunk + chunks_per_segment, chunks) - 1
    token_states += (sequence * segments + segment) * CHUNK * STATES * channels + e
    for back in range(0, last_chunk + 1 - first_chunk):
        chunk = last_chunk - back
        start, tokens = chunk * CHUNK, min(CHUNK, length - chunk * CHUNK)
        h = ()
        for n in tl.static_range(STATES):
            kept = chunk_states + ((sequence * chunks + chunk) * STATES + n) * channels + e
            h += (tl.load(kept, mask=here, other=0.0),)
        for i in range(0, tokens):
            for n in tl.static_range(STATES):
                tl.store(token_states + (i * STATES + n) * channels, h[n], mask=here)
            token = batch * length + tl.where(backwards, length - 1 - start - i, start + i)
            u = load_float(operands.u + token * pitch.u + e, here)
            dt = step_size(load_float(operands.delta + token * pitch.delta + e, here) + bias, SOFTPLUS)
            h = advance(h, rates, dt, dt * u, operands.B + token * pitch.B)

        for back_in_chunk in range(0, tokens):
            i = tokens - 1 - back_in_chunk
            token = batch * length + tl.where(backwards, length - 1 - start - i, start + i)
            row = (direction * batches * length + token) * channels + e
            u = load_float(operands.u + token * pitch.u + e, here)
            raw = load_float(operands.delta + token * pitch.delta + e, here) + bias
            dt = step_size(raw, SOFTPLUS)
            dy = load_float(dout + token * pitch.dout + e, here)
            if z is not None:
                y = skip * u
                for n in tl.static_range(STATES):
                    y += h[n] * tl.load(operands.C + token * pitch.C + n).to(tl.float32)
                gate = load_float(z + token * pitch.z + e, here)
                open_ = tl.sigmoid(gate)
                dz = dy * y * open_ * (1.0 + gate * (1.0 - open_))
                tl.store(gradients.z + row, dz.to(gradients.z.dtype.element_ty), mask=here)
                dy *= gate * open_

            x, dx, ddt = dt * u, tl.zeros((WIDTH,), tl.float32), tl.zeros((WIDTH,), tl.float32)
            part = ((direction * tl.cdiv(channels, WIDTH) + block) * batches * length + token) * STATES
            before, decayed, dA_so_far = (), (), ()
            for n in tl.static_range(STATES):
                previous = tl.load(token_states + (i * STATES + n) * channels, mask=here, other=0.0)
                g = carry[n] + dy * tl.load(operands.C + token * pitch.C + n).to(tl.float32)
                tl.store(gradients.C + part + n, tl.sum(dy * h[n]))
                tl.store(gradients.B + part + n, tl.sum(g * x))
                dx += g * tl.load(operands.B + token * pitch.B + n).to(tl.float32)
                g *= tl.exp2(dt * rates[n])
                dexponent = g * previous
                ddt += dexponent * rates[n]
                before += (previous,)
                decayed += (g,)
                dA_so_far += (dA[n] + dexponent * dt,)
            h, carry, dA = before, decayed, dA_so_far

            ddelta = ddt * LN_2 + dx * u
            if SOFTPLUS:
                ddelta *= tl.sigmoid(raw)
            du = dx * dt + skip * dy
            tl.store(gradients.u + row, du.to(gradients.u.dtype.element_ty), mask=here)
            tl.store(gradients.delta + row, ddelta.to(gradients.delta.dtype.element_ty), mask=here)
            dD += dy * u
            dbias += ddelta

    row = (sequence * segments + segment) * channels + e
    for n in tl.static_range(STATES):
        tl.store(gradients.A + row * STATES + n, dA[n], mask=here)
    tl.store(gradients.D + row, dD, mask=here)
    tl.store(gradients.bias + row, dbias, mask=here)
