"""The scan on CUDA devices: operands prepared for the Triton kernels, for one direction or for two in one launch.

Float32 inside. Results are deterministic on a given device; into how many segments time is cut, and with it how the
output is rounded, depends on the device and on the batch size. With TRITON_INTERPRET=1 in the environment from the
start, the kernels are interpreted, and run on CPU tensors too: slowly, for tests.
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from math import isqrt

import torch
from torch import Tensor

from .inputs import Gradients, ScanInputs

CHUNK = 16  # tokens between kept states: for 16 states, they take as much memory as u in float32
FORWARD_WIDTH = 64  # channels in a program of the forward, one to a thread
THREADS = 256  # of a program of the backward, one to a channel and state, where there are that many
MAX_BACKWARD_WIDTH = 16
WARPS_PER_PROCESSOR = 8  # below that, the forward cuts time into segments: the second pass costs less than idle units
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@cache
def missing() -> str:
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
    if device.type != "cuda" and not (device.type == "cpu" and INTERPRETED):
        return f"it runs on CUDA tensors, not on {device.type}"
    if dtype == torch.float64:
        return "its state is float32, and float64 inputs need a float64 state"
    return ""


def states_shape(scan: ScanInputs) -> tuple[int, ...]:
    """The state before every chunk, in the order in which the scan meets them, of every direction of a launch."""
    batch, length, channels, states = scan.sizes
    return 1, batch, -(-length // CHUNK), states, channels


def forward(scan: ScanInputs, keep_states: bool) -> tuple[Tensor, Tensor]:
    """See `reference.forward`."""
    out, states = forward_both([scan], keep_states)
    return out[0], states


def backward(scan: ScanInputs, states: Tensor, dout: Tensor) -> Gradients:
    """See `reference.backward`."""
    return tuple(
        None if gradient is None else gradient.squeeze(0) for gradient in backward_both([scan], states, dout[None])
    )


def forward_both(scans: Sequence[ScanInputs], keep_states: bool) -> tuple[Tensor, Tensor]:
    """One launch for one scan, or for two of equal shapes, dtypes and z in opposite directions.

    Returns the outputs (directions, B, L, E), and the states that `backward_both` starts from, empty unless kept.
    """
    from . import triton_kernels as kernels

    job = _Job(scans)
    batch, length, channels, states = job.sizes
    out = job.u.new_empty(job.directions, batch, length, channels)
    kept_shape = (job.directions, *states_shape(scans[0])[1:])
    kept = job.empty(*kept_shape if keep_states else (0,))
    segments, chunks_per_segment = _segments(job)
    ends = job.empty(job.directions, batch, segments, states + 1, channels) if segments > 1 else kept
    width = min(FORWARD_WIDTH, _power_of_two(channels))
    grid = (-(-channels // width) * segments * batch, job.directions)

    def launch(read_out: bool) -> None:
        kernels.forward[grid](
            *job.operands, job.z, out, kept, ends, batch, length, channels, segments, chunks_per_segment, job.pitches,
            STATES=states, CHUNK=CHUNK, WIDTH=width, SOFTPLUS=job.softplus, REVERSE=job.reverse,
            READ_OUT=read_out, KEEP=keep_states and read_out, num_warps=max(1, width // 32), enable_fp_fusion=True,
        )  # fmt: skip

    with job.device_guard:
        if segments > 1:
            launch(read_out=False)
        launch(read_out=True)
    return out, kept


def backward_both(scans: Sequence[ScanInputs], states: Tensor, dout: Tensor) -> Gradients:
    """Gradients of the eight operands, each with a leading axis of directions, for dout (directions, B, L, E).
    That of z, which the directions share, is their sum and has no more than one place there."""
    from . import triton_kernels as kernels

    job = _Job(scans)
    batch, length, channels, count = job.sizes
    tile = _power_of_two(count)
    width = min(_power_of_two(channels), MAX_BACKWARD_WIDTH, max(1, THREADS // tile))
    blocks = -(-channels // width)
    if dout.stride(3) != 1 or dout.stride(1) != length * dout.stride(2):
        dout = dout.contiguous()
    scan = scans[0]
    sequence = (job.directions, batch, length, channels)
    gradients = kernels.Gradients(
        u=scan.u.new_empty(sequence),
        delta=scan.delta.new_empty(sequence),
        A=job.empty(job.directions, batch, channels, count),
        B=job.empty(job.directions, blocks, batch, length, count),
        C=job.empty(job.directions, blocks, batch, length, count),
        D=job.empty(job.directions, batch, channels),
        z=None if scan.z is None else scan.z.new_empty(sequence),
        bias=job.empty(job.directions, batch, channels),
    )
    with job.device_guard:
        kernels.backward[(blocks * batch, job.directions)](
            *job.operands, job.z, dout, states, gradients, batch, length, channels, dout.stride(0),
            job.pitches._replace(dout=dout.stride(2)), STATES=count, TILE=tile, CHUNK=CHUNK, WIDTH=width,
            SOFTPLUS=job.softplus, REVERSE=job.reverse, num_warps=max(1, min(THREADS, width * tile) // 32),
            enable_fp_fusion=True,
        )  # fmt: skip
    du, ddelta, dA, dB, dC, dD, dz, dbias = gradients
    if dz is not None:
        dz = dz.sum(0, keepdim=True) if job.directions > 1 else dz
    return du, ddelta, dA.sum(1), dB.sum(1), dC.sum(1), dD.sum(1), dz, dbias.sum(1)


class _Job:
    """One launch's operands, with tokens an equal pitch apart and their channels or states next to each other."""

    def __init__(self, scans: Sequence[ScanInputs]):
        from . import triton_kernels as kernels

        scan = scans[0]
        assert len(scans) == 1 or [s.reverse for s in scans] == [scan.reverse, not scan.reverse]
        self.directions, self.sizes, self.u = len(scans), scan.sizes, scan.u
        self.softplus, self.reverse = scan.delta_softplus, scan.reverse
        self.z = None if scan.z is None else _rows([scan.z])[0]
        rows = {name: _rows([getattr(s, name) for s in scans]) for name in ("u", "delta", "B", "C")}
        self.operands = [
            kernels.Operands(
                *(rows["u"][d], rows["delta"][d], s.A.contiguous(), rows["B"][d], rows["C"][d]),
                D=None if s.D is None else s.D.contiguous(),
                bias=None if s.delta_bias is None else s.delta_bias.contiguous(),
            )
            for d, s in enumerate(scans)
        ]
        if len(scans) == 1:
            self.operands *= 2  # of which the second is not looked at
        pitches = {name: pair[0].stride(1) for name, pair in rows.items()}
        self.pitches = kernels.Pitches(**pitches, z=0 if self.z is None else self.z.stride(1), dout=0)

    def empty(self, *shape: int) -> Tensor:
        return self.u.new_empty(shape, dtype=torch.float32)

    @property
    def device_guard(self) -> AbstractContextManager:
        return torch.cuda.device(self.u.device) if self.u.is_cuda else nullcontext()


def _rows(tensors: list[Tensor]) -> list[Tensor]:
    """(B, L, *) tensors of one pitch from token to token, copied where theirs is not one."""
    _, length, _ = tensors[0].shape
    pitch = tensors[0].stride(1)
    if all(t.stride(2) == 1 and t.stride(1) == pitch and t.stride(0) == length * pitch for t in tensors):
        return tensors
    return [t.contiguous() for t in tensors]


def _segments(job: _Job) -> tuple[int, int]:
    """How many segments time is cut into, and their chunks: as many as fill the device, but no more than a segment has
    tokens, since each starts by folding up what all before it have left."""
    batch, length, channels, _ = job.sizes
    chunks = -(-length // CHUNK)
    processors = _processors(job.u.device) if job.u.is_cuda else 1
    warps = job.directions * batch * -(-channels // 32)
    wanted = min(-(-processors * WARPS_PER_PROCESSOR // warps), chunks, isqrt(length))
    chunks_per_segment = -(-chunks // wanted)
    return -(-chunks // chunks_per_segment), chunks_per_segment


@cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def _power_of_two(size: int) -> int:
    """The smallest that is not smaller."""
    return 1 << (size - 1).bit_length()
