"""The scan on CUDA devices: prepares the operands for the Triton kernels, and launches one direction or two at once.

Float32 inside. Results are deterministic on a given device; into how many segments time is cut, and with it how the
output is rounded, depends on the device and on the batch size. With TRITON_INTERPRET=1 in the environment from the
start, the kernels are interpreted, and run on CPU tensors too: slowly, for tests.

Made for few states, as Mamba's 16; any number is right, but with more than some 32 the backward's registers overflow.
What is known without a GPU, the results and the compiled code, tests/test_scan_triton.py checks; the rest, on one,
tests/test_scan_triton_gpu.py.
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from math import isqrt

import torch
from torch import Tensor

from models.scan.operands import Buffer, Gradients, ScanOperands

CHUNK = 16  # tokens between kept states: for 16 states, they take as much memory as u in float32
FORWARD_WIDTH = 64  # channels in a program, one to a thread
BACKWARD_WIDTH = 32  # a warp, so that sums over channels need no barrier
WARPS_PER_PROCESSOR = 8  # below that, time is cut into segments: the first pass costs less than idle units
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@cache
def missing() -> str:
    """Why it does not run on this machine, or ""."""
    if not INTERPRETED and not torch.cuda.is_available():
        return "torch sees no CUDA device"
    try:
        import triton  # noqa: F401  it takes a while to import, and is only needed once something runs
    except ImportError as error:
        return f"triton cannot be imported ({error}); pip install triton, on Linux"
    if not (INTERPRETED or os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "triton finds no C compiler for its launcher; install gcc or set CC"
    return ""


def unsupported(device: torch.device, dtype: torch.dtype) -> str:
    """Why it does not take such tensors, or ""."""
    if device.type != "cuda" and not (device.type == "cpu" and INTERPRETED):
        return f"it runs on CUDA tensors, not on {device.type}"
    if dtype == torch.float64:
        return "its state is float32, and float64 inputs need a float64 state"
    return ""


def states_shape(scan: ScanOperands) -> tuple[int, ...]:
    """The inter-chunk states: that before every chunk, in the order of the scan."""
    batch, length, channels, states = scan.sizes
    return batch, -(-length // CHUNK), states, channels


def forward(scan: ScanOperands, keep_states: bool) -> tuple[Tensor, Tensor]:
    """See `reference.forward`."""
    return forward_both([scan], keep_states)


def backward(scan: ScanOperands, states: Tensor, dout: Tensor) -> Gradients:
    """See `reference.backward`."""
    return backward_both([scan], states, dout)


def forward_both(scans: Sequence[ScanOperands], keep_states: bool) -> tuple[Tensor, Tensor]:
    """One launch for one scan, or for two of equal shapes, dtypes and z in opposite directions.

    Returns the sum of the outputs, (B, L, E) in u's dtype, and the states that `backward_both` starts from, empty
    unless kept; those of two scans are stacked.
    """
    from models.scan.triton import forward as kernels

    launch = _Launch(scans, FORWARD_WIDTH)
    batch, length, channels, _ = launch.sizes
    out = launch.u.new_empty(launch.stacked(batch, length, channels))
    kept = launch.empty(*(launch.stacked(*states_shape(scans[0])) if keep_states else (0,)))
    carries = launch.carries()
    with launch.device_guard:
        for read_out in (False, True) if launch.segments > 1 else (True,):
            kernels.forward[launch.grid](
                *launch.operands, launch.z, out, kept, carries, *launch.numbers, launch.pitches,
                READ_OUT=read_out, KEEP=keep_states and read_out, **launch.options,
            )  # fmt: skip
    return out.sum(0) if len(scans) > 1 else out, kept


def backward_both(scans: Sequence[ScanOperands], states: Tensor, dout: Tensor) -> Gradients:
    """Gradients of the eight operands for dout (B, L, E); those of two scans are stacked, but for that of z."""
    from models.scan.triton import backward as kernels

    launch = _Launch(scans, BACKWARD_WIDTH)
    batch, length, channels, count = launch.sizes
    if dout.stride(2) != 1 or dout.stride(0) != length * dout.stride(1):
        dout = dout.contiguous()
    sequence = launch.stacked(batch, length, channels)
    parts = launch.stacked(batch * launch.segments, channels)
    row_parts = launch.stacked(launch.blocks, batch, length, count)
    scan = scans[0]
    buffers = kernels.GradientBuffers(
        u=scan.u.new_empty(sequence),
        delta=scan.delta.new_empty(sequence),
        A=launch.empty(*parts, count),
        B=launch.empty(*row_parts),
        C=launch.empty(*row_parts),
        D=launch.empty(*parts),
        z=None if scan.z is None else scan.z.new_empty(sequence),
        bias=launch.empty(*parts),
    )
    carries = launch.carries()
    token_states = launch.empty(launch.directions, batch, launch.segments, CHUNK, count, channels)
    rest = (*launch.numbers, launch.pitches._replace(dout=dout.stride(1)))
    with launch.device_guard:
        if launch.segments > 1:
            kernels.adjoint_carry[launch.grid](*launch.operands, launch.z, dout, carries, *rest, **launch.options)
        kernels.backward[launch.grid](
            *launch.operands, launch.z, dout, states, token_states, carries, buffers, *rest, **launch.options
        )
    dz = buffers.z.sum(0) if len(scans) > 1 and buffers.z is not None else buffers.z
    dA, dB, dC = buffers.A.sum(-3), buffers.B.sum(-4), buffers.C.sum(-4)
    return buffers.u, buffers.delta, dA, dB, dC, buffers.D.sum(-2), dz, buffers.bias.sum(-2)


def workspace(scans: Sequence[ScanOperands], backward: bool, keep_states: bool) -> list[Buffer]:
    """See `Backend.workspace`. Results of each direction, their sum, and what programs write a part of each."""
    batch, length, channels, states = scans[0].sizes
    scan, directions = scans[0], len(scans)
    blocks = -(-channels // _width(channels, BACKWARD_WIDTH if backward else FORWARD_WIDTH))
    segments, _ = _segments(scan.u.device, directions, batch, length, channels)
    row, sequence = (batch, length, states), (directions, batch, length, channels)
    carries = (directions, batch, segments if segments > 1 else 0, states + 1, channels)
    held = [Buffer("carries", carries, torch.float32)]
    if not backward:
        held += [Buffer("out of a direction", sequence, scan.u.dtype)]
        held += [Buffer("out", sequence[1:], scan.u.dtype)] * (directions > 1)
        kept = (directions, *states_shape(scan)) if keep_states else (0,)
        return [*held, Buffer("kept states", kept, torch.float32)]
    z = scan.u if scan.z is None else scan.z
    held += [Buffer(f"d{name}", sequence, t.dtype) for name, t in (("u", scan.u), ("delta", scan.delta))]
    held += [Buffer("dz of a direction", sequence, z.dtype)] * (scan.z is not None)
    held += [Buffer("dz", sequence[1:], z.dtype)] * (scan.z is not None and directions > 1)
    held += [Buffer(name, (directions, blocks + 1, *row), torch.float32) for name in ("dB", "dC")]
    held += [Buffer("dA", (directions, batch * segments, channels, states), torch.float32)]
    return [*held, Buffer("states", (directions, batch, segments, CHUNK, states, channels), torch.float32)]


class _Launch:
    """One launch's operands, with tokens an equal pitch apart and their channels or states next to each other, and how
    the work is divided: a program takes a block of channels, for a segment of time."""

    def __init__(self, scans: Sequence[ScanOperands], max_width: int) -> None:
        from models.scan.triton.tiles import Operands, Pitches

        scan = scans[0]
        assert len(scans) == 1 or [s.reverse for s in scans] == [scan.reverse, not scan.reverse]
        self.directions, self.sizes, self.u = len(scans), scan.sizes, scan.u
        self.z = None if scan.z is None else _rows([scan.z])[0]
        rows = {name: _rows([getattr(s, name) for s in scans]) for name in ("u", "delta", "B", "C")}
        self.operands = [
            Operands(
                *(rows["u"][d], rows["delta"][d], s.A.contiguous(), rows["B"][d], rows["C"][d]),
                D=None if s.D is None else s.D.contiguous(),
                bias=None if s.delta_bias is None else s.delta_bias.contiguous(),
            )
            for d, s in enumerate(scans)
        ]
        if len(scans) == 1:
            self.operands *= 2  # the kernels take two, and do not read the second
        pitches = {name: pair[0].stride(1) for name, pair in rows.items()}
        self.pitches = Pitches(**pitches, z=0 if self.z is None else self.z.stride(1), dout=0)

        batch, length, channels, states = self.sizes
        width = _width(channels, max_width)
        self.blocks = -(-channels // width)
        self.segments, chunks_per_segment = _segments(self.u.device, self.directions, batch, length, channels)
        self.grid = (self.blocks * self.segments * batch, self.directions)
        self.numbers = (batch, length, channels, self.segments, chunks_per_segment)
        constants = {"STATES": states, "CHUNK": CHUNK, "WIDTH": width}
        self.options = {**constants, "SOFTPLUS": scan.delta_softplus, "REVERSE": scan.reverse}
        self.options |= {"num_warps": max(1, width // 32), "enable_fp_fusion": True}

    def stacked(self, *shape: int) -> tuple[int, ...]:
        """The shape of a result: with an axis of directions in front if there are two."""
        return shape if self.directions == 1 else (self.directions, *shape)

    def empty(self, *shape: int) -> Tensor:
        """A float32 tensor on the device of the operands."""
        return torch.empty(shape, dtype=torch.float32, device=self.u.device)

    def carries(self) -> Tensor:
        """Memory for the carry of every segment."""
        batch, _, channels, states = self.sizes
        return self.empty(self.directions, batch, self.segments if self.segments > 1 else 0, states + 1, channels)

    @property
    def device_guard(self) -> AbstractContextManager[object]:
        """Makes the device of the operands the current one, on which kernels are launched."""
        return torch.cuda.device(self.u.device) if self.u.is_cuda else nullcontext()


def _width(channels: int, most: int) -> int:
    """Channels in a program."""
    return min(most, 1 << (channels - 1).bit_length())


def _segments(device: torch.device, directions: int, batch: int, length: int, channels: int) -> tuple[int, int]:
    """How many segments time is cut into, and their chunks: as many as fill the device, but no more than a segment
    has tokens, since each starts by combining the carries of all before it."""
    chunks = -(-length // CHUNK)
    warps = directions * batch * -(-channels // 32)
    wanted = min(-(-_processors(device) * WARPS_PER_PROCESSOR // warps), chunks, isqrt(length))
    chunks_per_segment = -(-chunks // wanted)
    return -(-chunks // chunks_per_segment), chunks_per_segment


def _rows(tensors: list[Tensor]) -> list[Tensor]:
    """(B, L, *) tensors of one pitch from token to token, copied where theirs is not one."""
    _, length, _ = tensors[0].shape
    pitch = tensors[0].stride(1)
    if all(t.stride(2) == 1 and t.stride(1) == pitch and t.stride(0) == length * pitch for t in tensors):
        return tensors
    return [t.contiguous() for t in tensors]


@cache
def _processors(device: torch.device) -> int:
    """Multiprocessors of a device; one, where kernels are interpreted; those of an H100, where tensors are fake."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return 1 if INTERPRETED else 132
    return torch.cuda.get_device_properties(device).multi_processor_count
