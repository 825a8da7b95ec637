"""The scan on CUDA devices: operands prepared for the Triton kernels, for one direction or for two in one launch.

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

from .inputs import Gradients, ScanInputs

CHUNK = 16  # tokens between kept states: for 16 states, they take as much memory as u in float32
FORWARD_WIDTH = 64  # channels in a program, one to a thread
BACKWARD_WIDTH = 32  # a warp, so that sums over channels need no barrier
WARPS_PER_PROCESSOR = 8  # below that, time is cut into segments: the first pass costs less than idle units
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
    gradients = backward_both([scan], states, dout[None])
    return tuple(None if gradient is None else gradient.squeeze(0) for gradient in gradients)


def forward_both(scans: Sequence[ScanInputs], keep_states: bool) -> tuple[Tensor, Tensor]:
    """One launch for one scan, or for two of equal shapes, dtypes and z in opposite directions.

    Returns the outputs (directions, B, L, E), and the states that `backward_both` starts from, empty unless kept.
    """
    from . import triton_forward as kernels

    launch = _Launch(scans, FORWARD_WIDTH)
    batch, length, channels, _ = launch.sizes
    out = launch.u.new_empty(launch.directions, batch, length, channels)
    kept = launch.empty(*(launch.directions, *states_shape(scans[0])[1:]) if keep_states else (0,))
    ends = launch.ends()
    with launch.device_guard:
        for read_out in (False, True) if launch.segments > 1 else (True,):
            kernels.forward[launch.grid](
                *launch.operands, launch.z, out, kept, ends, *launch.numbers, launch.pitches,
                READ_OUT=read_out, KEEP=keep_states and read_out, **launch.options,
            )  # fmt: skip
    return out, kept


def backward_both(scans: Sequence[ScanInputs], states: Tensor, dout: Tensor) -> Gradients:
    """Gradients of the eight operands, each with a leading axis of directions, for dout (directions, B, L, E).
    That of z, which the directions share, is their sum and has no more than one place there."""
    from . import triton_backward as kernels

    launch = _Launch(scans, BACKWARD_WIDTH)
    batch, length, channels, count = launch.sizes
    if dout.stride(3) != 1 or dout.stride(1) != length * dout.stride(2):
        dout = dout.contiguous()
    sequence = (launch.directions, batch, length, channels)
    parts = (launch.directions, batch * launch.segments, channels)
    row_parts = (launch.directions, launch.blocks, batch, length, count)
    scan = scans[0]
    gradients = kernels.Gradients(
        u=scan.u.new_empty(sequence),
        delta=scan.delta.new_empty(sequence),
        A=launch.empty(*parts, count),
        B=launch.empty(*row_parts),
        C=launch.empty(*row_parts),
        D=launch.empty(*parts),
        z=None if scan.z is None else scan.z.new_empty(sequence),
        bias=launch.empty(*parts),
    )
    ends = launch.ends()
    waiting = launch.empty(launch.directions, batch, launch.segments, CHUNK, count, channels)
    rest = (*launch.numbers, dout.stride(0), launch.pitches._replace(dout=dout.stride(2)))
    with launch.device_guard:
        if launch.segments > 1:
            kernels.hand_over[launch.grid](*launch.operands, launch.z, dout, ends, *rest, **launch.options)
        kernels.backward[launch.grid](
            *launch.operands, launch.z, dout, states, waiting, ends, gradients, *rest, **launch.options
        )
    dz = None if gradients.z is None else gradients.z.sum(0, keepdim=True) if len(scans) > 1 else gradients.z
    dA, dB, dC, dD, dbias = (getattr(gradients, name).sum(1) for name in ("A", "B", "C", "D", "bias"))
    return gradients.u, gradients.delta, dA, dB, dC, dD, dz, dbias


class _Launch:
    """One launch's operands, with tokens an equal pitch apart and their channels or states next to each other, and how
    the work is divided: a program takes a block of channels, for a segment of time."""

    def __init__(self, scans: Sequence[ScanInputs], max_width: int):
        from .triton_forward import Operands, Pitches

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
            self.operands *= 2  # of which the second is not looked at
        pitches = {name: pair[0].stride(1) for name, pair in rows.items()}
        self.pitches = Pitches(**pitches, z=0 if self.z is None else self.z.stride(1), dout=0)

        batch, length, channels, states = self.sizes
        width = min(max_width, 1 << (channels - 1).bit_length())
        self.blocks = -(-channels // width)
        self.segments, chunks_per_segment = self._segments()
        self.grid = (self.blocks * self.segments * batch, self.directions)
        self.numbers = (batch, length, channels, self.segments, chunks_per_segment)
        constants = {"STATES": states, "CHUNK": CHUNK, "WIDTH": width}
        self.options = {**constants, "SOFTPLUS": scan.delta_softplus, "REVERSE": scan.reverse}
        self.options |= {"num_warps": max(1, width // 32), "enable_fp_fusion": True}

    def empty(self, *shape: int) -> Tensor:
        return self.u.new_empty(shape, dtype=torch.float32)

    def ends(self) -> Tensor:
        """Room for what segments leave to each other."""
        batch, _, channels, states = self.sizes
        return self.empty(self.directions, batch, self.segments if self.segments > 1 else 0, states + 1, channels)

    @property
    def device_guard(self) -> AbstractContextManager:
        return torch.cuda.device(self.u.device) if self.u.is_cuda else nullcontext()

    def _segments(self) -> tuple[int, int]:
        """How many segments time is cut into, and their chunks: as many as fill the device, but no more than a segment
        has tokens, since each starts by folding up what all before it have left."""
        batch, length, channels, _ = self.sizes
        chunks = -(-length // CHUNK)
        processors = _processors(self.u.device) if self.u.is_cuda else 1
        warps = self.directions * batch * -(-channels // 32)
        wanted = min(-(-processors * WARPS_PER_PROCESSOR // warps), chunks, isqrt(length))
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
    return torch.cuda.get_device_properties(device).multi_processor_count
