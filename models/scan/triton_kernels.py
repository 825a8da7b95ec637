"""The scan as Triton kernels: what one program does for some channels of one sequence, in one direction.

Forward: a thread owns a channel, keeps its states in registers and goes from token to token: no shuffle, no barrier.
Where there are fewer channels than the device has room for, time is cut into segments that are scanned at once: a first
pass finds the state that each segment leaves, the second starts from what the segments before it left.
Backward: a thread owns a channel and a state, for a chunk of tokens at a time, from the last chunk to the first. The
states of the chunk are computed again from the one kept before it.

Nothing is copied to be reversed: a program that runs backwards counts its tokens from the end. Decays are powers of two
of dt A / ln 2. Sums over channels, in dB and dC, are left in parts, one for each block of channels, so that no result
depends on the order in which programs end.
"""

# mypy: ignore-errors
# Kernels are written in Triton's language, not in Python: a tuple grows, a loop's variable is a tensor.

from typing import Any, NamedTuple

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


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


class Gradients(NamedTuple):
    """Where the backward writes that of each operand; parts are to be summed over their axis."""

    u: Any  # (directions, B, L, E)
    delta: Any  # (directions, B, L, E)
    A: Any  # (directions, B as parts, E, N)
    B: Any  # (directions, blocks as parts, B, L, N)
    C: Any  # (directions, blocks as parts, B, L, N)
    D: Any  # (directions, B as parts, E)
    z: Any  # (directions as parts, B, L, E)
    bias: Any  # (directions, B as parts, E)


@triton.jit
def _timestep(raw, SOFTPLUS: tl.constexpr):
    """softplus as max(x, 0) + log1p(exp(-|x|)), since log(1 + w) alone loses the digits of a small w."""
    if SOFTPLUS:
        w = tl.exp(-tl.abs(raw))
        rounded = 1.0 + w
        log1p = tl.where(rounded == 1.0, w, tl.log(rounded) * (w / tl.where(rounded == 1.0, 1.0, rounded - 1.0)))
        return tl.where(raw > 0.0, raw, 0.0) + log1p
    else:
        return raw


@triton.jit
def forward(
    first, second, z, out, kept, ends, batches, length, channels, segments, chunks_per_segment, pitch: Pitches,
    STATES: tl.constexpr, CHUNK: tl.constexpr, WIDTH: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr,
    READ_OUT: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """One segment of WIDTH channels. Writes out (directions, B, L, E) and, if KEEP, the state before every chunk, kept
    (directions, B, chunks, N, E). Without READ_OUT it writes only what the segment makes of a zero state and, as one
    more row, the time that passed: ends (directions, B, segments, N + 1, E), which the pass with READ_OUT reads.

    The second direction of a launch, if there is one, runs against the first, which is reversed if REVERSE.
    """
    blocks = tl.cdiv(channels, WIDTH)
    item, direction = tl.program_id(0), tl.program_id(1).to(tl.int64)
    block, segment, batch = item % blocks, item // blocks % segments, (item // blocks // segments).to(tl.int64)
    given = first
    if direction == 1:
        given = second
    backwards = (direction == 1) != REVERSE
    sequence = direction * batches + batch
    e = block * WIDTH + tl.arange(0, WIDTH)
    here = e < channels

    rates, h, passed = (), (), tl.zeros((WIDTH,), tl.float32)
    for n in tl.static_range(STATES):
        rates += (tl.load(given.A + e * STATES + n, mask=here, other=0.0).to(tl.float32) * LOG2_E,)
        h += (tl.zeros((WIDTH,), tl.float32),)
    bias, skip = 0.0, 0.0
    if given.bias is not None:
        bias = tl.load(given.bias + e, mask=here, other=0.0).to(tl.float32)
    if given.D is not None:
        skip = tl.load(given.D + e, mask=here, other=0.0).to(tl.float32)

    plane = (STATES + 1) * channels
    end = ends + sequence * segments * plane + e
    if READ_OUT:
        for _ in range(0, segment):
            time = tl.load(end + STATES * channels, mask=here, other=0.0)
            later = ()
            for n in tl.static_range(STATES):
                later += (tl.exp2(time * rates[n]) * h[n] + tl.load(end + n * channels, mask=here, other=0.0),)
            h = later
            end += plane

    chunks = tl.cdiv(length, CHUNK)
    for chunk in range(segment * chunks_per_segment, min((segment + 1) * chunks_per_segment, chunks)):
        if KEEP:
            place = kept + (sequence * chunks + chunk) * STATES * channels + e
            for n in tl.static_range(STATES):
                tl.store(place + n * channels, h[n], mask=here)
        for step in range(chunk * CHUNK, min((chunk + 1) * CHUNK, length)):
            token = batch * length + tl.where(backwards, length - 1 - step, step)
            u = tl.load(given.u + token * pitch.u + e, mask=here, other=0.0).to(tl.float32)
            raw = tl.load(given.delta + token * pitch.delta + e, mask=here, other=0.0).to(tl.float32) + bias
            dt = _timestep(raw, SOFTPLUS)
            x, y = dt * u, skip * u
            passed += dt
            later = ()
            for n in tl.static_range(STATES):
                b = tl.load(given.B + token * pitch.B + n).to(tl.float32)
                state = tl.exp2(dt * rates[n]) * h[n] + x * b
                if READ_OUT:
                    y += state * tl.load(given.C + token * pitch.C + n).to(tl.float32)
                later += (state,)
            h = later
            if READ_OUT:
                if z is not None:
                    gate = tl.load(z + token * pitch.z + e, mask=here, other=0.0).to(tl.float32)
                    y *= gate * tl.sigmoid(gate)
                row = out + (direction * batches * length + token) * channels + e
                tl.store(row, y.to(out.dtype.element_ty), mask=here)

    if not READ_OUT:
        place = ends + (sequence * segments + segment) * plane + e
        for n in tl.static_range(STATES):
            tl.store(place + n * channels, h[n], mask=here)
        tl.store(place + STATES * channels, passed, mask=here)


@triton.jit
def _then(decay, state, next_decay, next_state):
    """Two steps of the recurrence as one."""
    return decay * next_decay, next_decay * state + next_state


@triton.jit
def backward(
    first, second, z, dout, kept, gradients: Gradients, batches, length, channels, dout_direction_pitch,
    pitch: Pitches, STATES: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr, WIDTH: tl.constexpr,
    SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """All tokens of WIDTH channels, from the last that the scan met to the first; TILE is STATES, rounded up to a power
    of two. With a = exp(dt A) and g = dL/dh: g_t = dy_t C_t + a_{t+1} g_{t+1}. A tile is (CHUNK, WIDTH, TILE).
    """
    blocks = tl.cdiv(channels, WIDTH)
    item, direction = tl.program_id(0), tl.program_id(1).to(tl.int64)
    block, batch = item % blocks, (item // blocks).to(tl.int64)
    given = first
    if direction == 1:
        given = second
    backwards = (direction == 1) != REVERSE
    sequence = direction * batches + batch
    e, n, t = block * WIDTH + tl.arange(0, WIDTH), tl.arange(0, TILE), tl.arange(0, CHUNK)
    here, state_exists = e < channels, n < STATES
    in_plane = here[:, None] & state_exists[None, :]

    rates = tl.load(given.A + e[:, None] * STATES + n[None, :], mask=in_plane, other=0.0).to(tl.float32) * LOG2_E
    bias, skip = tl.zeros((WIDTH,), tl.float32), tl.zeros((WIDTH,), tl.float32)
    if given.bias is not None:
        bias = tl.load(given.bias + e, mask=here, other=0.0).to(tl.float32)
    if given.D is not None:
        skip = tl.load(given.D + e, mask=here, other=0.0).to(tl.float32)
    carry = tl.zeros((WIDTH, TILE), tl.float32)  # g after the chunk; its decay is part of the scan
    dA = tl.zeros((WIDTH, TILE), tl.float32)
    dD, dbias = (
        tl.zeros((CHUNK, WIDTH), tl.float32),
        tl.zeros((CHUNK, WIDTH), tl.float32),
    )  # summed over time at the end

    chunks = tl.cdiv(length, CHUNK)
    for back in range(0, chunks):
        chunk = chunks - 1 - back
        step = chunk * CHUNK + t
        inside, follows = step < length, step + 1 < length
        token = batch * length + tl.where(backwards, length - 1 - step, step)
        next_token = tl.where(backwards, token - 1, token + 1)
        in_tile, in_next = inside[:, None] & here[None, :], follows[:, None] & here[None, :]
        in_rows = inside[:, None] & state_exists[None, :]

        # Beyond the end dt is 0: decay 1, input 0, so that the state stays what it was, and so does its gradient.
        u = tl.load(given.u + token[:, None] * pitch.u + e[None, :], mask=in_tile, other=0.0).to(tl.float32)
        delta = given.delta + e[None, :]
        raw = tl.load(delta + token[:, None] * pitch.delta, mask=in_tile, other=0.0).to(tl.float32) + bias[None, :]
        next_raw = tl.load(delta + next_token[:, None] * pitch.delta, mask=in_next, other=0.0).to(tl.float32)
        dt = tl.where(in_tile, _timestep(raw, SOFTPLUS), 0.0)
        next_dt = tl.where(in_next, _timestep(next_raw + bias[None, :], SOFTPLUS), 0.0)
        B = tl.load(given.B + token[:, None] * pitch.B + n[None, :], mask=in_rows, other=0.0).to(tl.float32)
        C = tl.load(given.C + token[:, None] * pitch.C + n[None, :], mask=in_rows, other=0.0).to(tl.float32)
        place = dout + direction * dout_direction_pitch + token[:, None] * pitch.dout + e[None, :]
        dy = tl.load(place, mask=in_tile, other=0.0).to(tl.float32)

        place = kept + (sequence * chunks + chunk) * STATES * channels + n[None, :] * channels + e[:, None]
        before = tl.load(place, mask=in_plane, other=0.0)
        x = (dt * u)[:, :, None] * B[:, None, :]
        decay, h = tl.associative_scan((tl.exp2(dt[:, :, None] * rates[None, :, :]), x), 0, _then)
        h += decay * before[None, :, :]

        place = (direction * batches * length + token[:, None]) * channels + e[None, :]
        if z is not None:
            gate = tl.load(z + token[:, None] * pitch.z + e[None, :], mask=in_tile, other=0.0).to(tl.float32)
            y = tl.sum(h * C[:, None, :], axis=2) + skip[None, :] * u
            open_ = tl.sigmoid(gate)
            dz = dy * y * open_ * (1.0 + gate * (1.0 - open_))
            tl.store(gradients.z + place, dz.to(gradients.z.dtype.element_ty), mask=in_tile)
            dy *= gate * open_

        # What the output says of the states, and what the later tokens say, once they have decayed.
        says = dy[:, :, None] * C[:, None, :]
        decay, g = tl.associative_scan((tl.exp2(next_dt[:, :, None] * rates[None, :, :]), says), 0, _then, reverse=True)
        g += decay * carry[None, :, :]
        carry = tl.sum(tl.where((t == 0)[:, None, None], g, 0.0), axis=0)

        dexponent = g * (h - x)  # g a_t h_{t-1}, without another look at the state before
        ddt = tl.sum(dexponent * rates[None, :, :], axis=2) * LN_2
        dx = tl.sum(g * B[:, None, :], axis=2)
        ddelta = ddt + dx * u
        if SOFTPLUS:
            ddelta *= tl.sigmoid(raw)
        ddelta = tl.where(in_tile, ddelta, 0.0)
        du = dx * dt + skip[None, :] * dy
        tl.store(gradients.u + place, du.to(gradients.u.dtype.element_ty), mask=in_tile)
        tl.store(gradients.delta + place, ddelta.to(gradients.delta.dtype.element_ty), mask=in_tile)
        dA += tl.sum(dexponent * dt[:, :, None], axis=0)
        dD += dy * u
        dbias += ddelta
        part = (direction * blocks + block) * batches * length + token[:, None]
        place = part * STATES + n[None, :]
        tl.store(gradients.B + place, tl.sum(g * (dt * u)[:, :, None], axis=1), mask=in_rows)
        tl.store(gradients.C + place, tl.sum(h * dy[:, :, None], axis=1), mask=in_rows)

    row = sequence * channels + e
    tl.store(gradients.A + row[:, None] * STATES + n[None, :], dA, mask=in_plane)
    tl.store(gradients.D + row, tl.sum(dD, axis=0), mask=here)
    tl.store(gradients.bias + row, tl.sum(dbias, axis=0), mask=here)
