"""The scan's loops over channels and time, compiled by numba; `backend` packs the operands and runs them on threads.

A job is cut into work items: a sequence of the batch times a block of channels. No two items write to the same place,
so the result depends neither on which thread takes which item nor on how many threads there are. An item goes through
time in chunks of CHUNK tokens; within a chunk, strip by strip of LANES channels, which is a tile; within a tile, GROUP
states at a time.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import cfunc, njit, types
from numba.np.numpy_support import carray

from models.scan.cpu.lanes import CHUNK, ROW_BYTES, routine
from models.scan.cpu.tiles import (
    GROUP,
    adjoint_sweep,
    copy,
    discretise,
    discretise_softplus,
    gate,
    gate_gradient,
    input_gradients,
    input_gradients_softplus,
    sum_lanes,
    sweep,
    sweep_and_keep,
)

# What the threads of a job share. SEQUENCES are (B, L, E) operands with their row and batch pitch in bytes; PACKED are
# contiguous, with S strips and N states:
#   A (S, N, LANES) times log2(e); B, C (B, L, N); D, delta_bias (E); kept_states (B, chunks, S, N, LANES);
#   dA (B, S, N, LANES); dB, dC (blocks, B, L, N); dD, ddelta_bias (B, E); scratch (threads, scratch_bytes).
COUNTERS = ("next_item", "next_thread")  # these stand first: `_start` counts on it
SIZES = ("items", "batch", "blocks", "strips", "total_strips", "length", "states", "scratch_bytes")
FLAGS = ("reverse", "softplus", "gated", "keep_states")
PACKED = ("A", "B", "C", "D", "delta_bias", "kept_states", "dA", "dB", "dC", "dD", "ddelta_bias", "scratch")
SEQUENCES = ("u", "delta", "z", "out", "dout", "du", "ddelta", "dz")
JOB = np.dtype(
    [(name, np.int64) for name in (*COUNTERS, *SIZES, *FLAGS, *PACKED, *SEQUENCES)]
    + [(f"{name}_{pitch}_pitch", np.int64) for name in SEQUENCES for pitch in ("row", "batch")]
)

TILE_BYTES = CHUNK * ROW_BYTES
GROUP_BYTES = GROUP * TILE_BYTES
AHEAD, BEHIND = 1, -1  # where the next chunk lies, for the prefetch


def scratch_bytes(strips: int, states: int, backward: bool) -> int:
    """The scratch memory of one thread: a row of zeros, a row of state for every strip and state, and tiles."""
    carried = ROW_BYTES * (1 + strips * states)
    if backward:  # six tiles a strip; decay, dB, dC and, with a token more, h
        return carried + 6 * strips * TILE_BYTES + 4 * GROUP_BYTES + GROUP * ROW_BYTES
    return carried + 3 * TILE_BYTES


@njit(error_model="numpy")
def _rows(
    job: Any, address: int, row_pitch: int, batch_pitch: int, batch: int, row: int, strip: int
) -> tuple[int, int]:
    """(address, pitch) of a strip of a (B, L, E) operand, from a token on, in the direction of the scan."""
    return address + batch * batch_pitch + row * row_pitch + strip * ROW_BYTES, -row_pitch if job.reverse else row_pitch


@njit(error_model="numpy")
def _chunk_at(job: Any, chunk: int) -> tuple[int, int]:
    """The chunk's first token in the order of the scan, and how many tokens it has."""
    first = chunk * CHUNK
    return job.length - 1 - first if job.reverse else first, min(CHUNK, job.length - first)


@njit(error_model="numpy")
def _discretise(job: Any, batch: int, row: int, strip: int, steps: int, ahead: int, dt: int, x: int, y: int) -> None:
    """Fill the tiles dt, x and y of a strip."""
    sources = (
        _rows(job, job.delta, job.delta_row_pitch, job.delta_batch_pitch, batch, row, strip),
        _rows(job, job.u, job.u_row_pitch, job.u_batch_pitch, batch, row, strip),
        (job.delta_bias + strip * ROW_BYTES, 0),
        (job.D + strip * ROW_BYTES, 0),
    )
    targets = ((dt, ROW_BYTES), (x, ROW_BYTES), (y, ROW_BYTES))
    if job.softplus:
        discretise_softplus((steps, ahead, sources, targets))
    else:
        discretise((steps, ahead, sources, targets))


@njit(error_model="numpy")
def _forward_item(job: Any, item: int, scratch: int) -> None:
    """Scan a block of channels of one sequence."""
    batch, block = item // job.blocks, item % job.blocks
    first_strip = block * job.strips
    strips = min(job.strips, job.total_strips - first_strip)
    states, chunks = job.states, (job.length + CHUNK - 1) // CHUNK
    zeros, h = scratch, scratch + ROW_BYTES
    dt = h + strips * states * ROW_BYTES
    x, y = dt + TILE_BYTES, dt + 2 * TILE_BYTES
    BC_pitch = -4 * states if job.reverse else 4 * states

    copy((strips * states, 0, ((zeros, 0),), ((h, ROW_BYTES),)))
    for chunk in range(chunks):
        row, steps = _chunk_at(job, chunk)
        if job.keep_states:
            kept = job.kept_states + ((batch * chunks + chunk) * job.total_strips + first_strip) * states * ROW_BYTES
            copy((strips * states, 0, ((h, ROW_BYTES),), ((kept, ROW_BYTES),)))
        for s in range(strips):
            strip = first_strip + s
            _discretise(job, batch, row, strip, steps, AHEAD, dt, x, y)
            for n in range(0, states, GROUP):
                A_n, h_n = job.A + (strip * states + n) * ROW_BYTES, h + (s * states + n) * ROW_BYTES
                BC_n = 4 * ((batch * job.length + row) * states + n)
                sweep((dt, x, y, A_n, h_n, job.B + BC_n, job.C + BC_n, BC_pitch, steps))
            out = _rows(job, job.out, job.out_row_pitch, job.out_batch_pitch, batch, row, strip)
            if job.gated:
                z = _rows(job, job.z, job.z_row_pitch, job.z_batch_pitch, batch, row, strip)
                gate((steps, AHEAD, (z, (y, ROW_BYTES)), (out,)))
            else:
                copy((steps, AHEAD, ((y, ROW_BYTES),), (out,)))


@njit(error_model="numpy")
def _backward_item(job: Any, item: int, scratch: int) -> None:
    """The gradients of a block of channels of one sequence, chunk by chunk from the scan's last to its first."""
    batch, block = item // job.blocks, item % job.blocks
    first_strip = block * job.strips
    strips = min(job.strips, job.total_strips - first_strip)
    states, chunks = job.states, (job.length + CHUNK - 1) // CHUNK
    zeros, carry = scratch, scratch + ROW_BYTES
    dt = carry + strips * states * ROW_BYTES
    x, y = dt + strips * TILE_BYTES, dt + 2 * strips * TILE_BYTES
    dy, dx, ddt = y + strips * TILE_BYTES, y + 2 * strips * TILE_BYTES, y + 3 * strips * TILE_BYTES
    decay = dt + 6 * strips * TILE_BYTES
    dB, dC, h = decay + GROUP_BYTES, decay + 2 * GROUP_BYTES, decay + 3 * GROUP_BYTES
    BC_pitch = -4 * states if job.reverse else 4 * states

    copy((strips * states, 0, ((zeros, 0),), ((carry, ROW_BYTES),)))
    for chunk in range(chunks - 1, -1, -1):
        row, steps = _chunk_at(job, chunk)
        for s in range(strips):
            at = s * TILE_BYTES
            _discretise(job, batch, row, first_strip + s, steps, BEHIND, dt + at, x + at, y + at)
            _read_out_gradient(job, batch, row, first_strip + s, steps, zeros, dy + at, dx + at, ddt + at)
        for n in range(0, states, GROUP):
            BC_n = 4 * ((batch * job.length + row) * states + n)
            copy((steps * GROUP, 0, ((zeros, 0),), ((dB, ROW_BYTES),)))
            copy((steps * GROUP, 0, ((zeros, 0),), ((dC, ROW_BYTES),)))
            for s in range(strips):
                at, strip = s * TILE_BYTES, first_strip + s
                A_n = job.A + (strip * states + n) * ROW_BYTES
                dA_n = job.dA + ((batch * job.total_strips + strip) * states + n) * ROW_BYTES
                carry_n = carry + (s * states + n) * ROW_BYTES
                kept_row = ((batch * chunks + chunk) * job.total_strips + strip) * states + n
                copy((GROUP, 0, ((job.kept_states + kept_row * ROW_BYTES, ROW_BYTES),), ((h, ROW_BYTES),)))
                BC = (job.B + BC_n, job.C + BC_n, BC_pitch, steps)
                sweep_and_keep((decay, dt + at, x + at, y + at, A_n, h, *BC))
                tile_rows = (dt + at, x + at, dy + at, dx + at, ddt + at)
                adjoint_sweep((*tile_rows, A_n, dA_n, carry_n, h, decay, dB, dC, *BC))
            dBC_n = 4 * (((block * job.batch + batch) * job.length + row) * states + n)
            sum_lanes((dB, job.dB + dBC_n, BC_pitch, steps))
            sum_lanes((dC, job.dC + dBC_n, BC_pitch, steps))
        for s in range(strips):
            at = s * TILE_BYTES
            _input_gradients(job, batch, row, first_strip + s, steps, dt + at, y + at, dy + at, dx + at, ddt + at)


@njit(error_model="numpy")
def _read_out_gradient(
    job: Any, batch: int, row: int, strip: int, steps: int, zeros: int, dy: int, dx: int, ddt: int
) -> None:
    """Fill the tile dy of a strip, and clear those that its adjoint sums into, dx and ddt."""
    dout = _rows(job, job.dout, job.dout_row_pitch, job.dout_batch_pitch, batch, row, strip)
    if job.gated:
        z = _rows(job, job.z, job.z_row_pitch, job.z_batch_pitch, batch, row, strip)
        gate((steps, BEHIND, (z, dout), ((dy, ROW_BYTES),)))
    else:
        copy((steps, BEHIND, (dout,), ((dy, ROW_BYTES),)))
    copy((steps, 0, ((zeros, 0),), ((dx, ROW_BYTES),)))
    copy((steps, 0, ((zeros, 0),), ((ddt, ROW_BYTES),)))


@njit(error_model="numpy")
def _input_gradients(
    job: Any, batch: int, row: int, strip: int, steps: int, dt: int, y: int, dy: int, dx: int, ddt: int
) -> None:
    """Write dz, du and ddelta of a strip, and add its part to dD and ddelta_bias."""
    if job.gated:
        z = _rows(job, job.z, job.z_row_pitch, job.z_batch_pitch, batch, row, strip)
        dout = _rows(job, job.dout, job.dout_row_pitch, job.dout_batch_pitch, batch, row, strip)
        dz = _rows(job, job.dz, job.dz_row_pitch, job.dz_batch_pitch, batch, row, strip)
        gate_gradient((steps, 0, (z, dout, (y, ROW_BYTES)), (dz,)))
    per_channel = (batch * job.total_strips + strip) * ROW_BYTES
    sums = ((job.dD + per_channel, 0), (job.ddelta_bias + per_channel, 0))
    sources = (
        _rows(job, job.delta, job.delta_row_pitch, job.delta_batch_pitch, batch, row, strip),
        _rows(job, job.u, job.u_row_pitch, job.u_batch_pitch, batch, row, strip),
        (job.delta_bias + strip * ROW_BYTES, 0),
        (job.D + strip * ROW_BYTES, 0),
        (dt, ROW_BYTES),
        (dy, ROW_BYTES),
        (dx, ROW_BYTES),
        (ddt, ROW_BYTES),
    )
    du = _rows(job, job.du, job.du_row_pitch, job.du_batch_pitch, batch, row, strip)
    ddelta = _rows(job, job.ddelta, job.ddelta_row_pitch, job.ddelta_batch_pitch, batch, row, strip)
    if job.softplus:
        input_gradients_softplus((steps, 0, (*sources, *sums), (du, ddelta, *sums)))
    else:
        input_gradients((steps, 0, (*sources, *sums), (du, ddelta, *sums)))


def _emit_fetch_add(builder: ir.IRBuilder, counter: ir.Value) -> ir.Value:
    """Add one to the int64 at this address, atomically, and return what it was."""
    pointer = builder.inttoptr(counter, counter.type.as_pointer())
    return builder.atomic_rmw("add", pointer, ir.Constant(counter.type, 1), "monotonic")


_fetch_add = routine(_emit_fetch_add, types.int64)


@njit(error_model="numpy")
def _start(data: Any, job: Any) -> tuple[int, int]:
    """The address of the job's next item, and this thread's scratch memory."""
    next_item, next_thread = carray(data, (1,), np.int64), carray(data, (2,), np.int64)[1:]
    return next_item.ctypes.data, job.scratch + _fetch_add((next_thread.ctypes.data,)) * job.scratch_bytes


@njit(error_model="numpy")
def _forward(data: Any) -> None:
    job = carray(data, (1,), JOB)[0]
    next_item, scratch = _start(data, job)
    item = _fetch_add((next_item,))
    while item < job.items:
        _forward_item(job, item, scratch)
        item = _fetch_add((next_item,))


@njit(error_model="numpy")
def _backward(data: Any) -> None:
    job = carray(data, (1,), JOB)[0]
    next_item, scratch = _start(data, job)
    item = _fetch_add((next_item,))
    while item < job.items:
        _backward_item(job, item, scratch)
        item = _fetch_add((next_item,))


@cache
def forward_worker() -> Callable[[int], None]:
    """The compiled `void work(JOB *)`: takes items until there are none. Any number of threads may run it at once."""
    sources = _sources()

    def work(data: Any) -> None:
        sources  # noqa: B018
        _forward(data)

    return _compile(work)


@cache
def backward_worker() -> Callable[[int], None]:
    """As `forward_worker`."""
    sources = _sources()

    def work(data: Any) -> None:
        sources  # noqa: B018
        _backward(data)

    return _compile(work)


def _sources() -> str:
    """A digest of what the workers are made of. numba's cache on disk watches the file of the compiled function alone;
    closed over, this makes it watch the files that the function calls into as well."""
    files = (Path(__file__).with_name(name) for name in ("lanes.py", "tiles.py", "kernels.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _compile(work: Callable[[int], None]) -> Callable[[int], None]:
    signature = types.void(types.voidptr)
    try:
        return cfunc(signature, cache=True)(work).ctypes
    except (RuntimeError, OSError):  # neither this directory nor the user's cache can be written: not kept, then
        return cfunc(signature)(work).ctypes
