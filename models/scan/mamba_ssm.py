"""The scan of the mamba_ssm package, for CUDA tensors: an adapter between its layout, (B, E, L), and ours, (B, L, E).

Only the package's public function is called. It keeps its states to itself, so the backward runs its forward again;
it has no reverse mode, so operands and result are flipped in time.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from models.scan.operands import Buffer, Gradients, ScanOperands

MAX_STATES = 256  # the CUDA kernel's limit


@cache
def missing() -> str:
    """Why it does not run on this machine, or ""."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    try:
        from mamba_ssm.ops import selective_scan_interface
    except Exception as error:  # a package built without its CUDA code, or for another torch, fails in many ways
        reason = " ".join(str(error).split("\n"))
        return f"mamba_ssm cannot be imported ({type(error).__name__}: {reason}); pip install mamba-ssm"
    if getattr(selective_scan_interface, "selective_scan_cuda", None) is None:
        return "mamba_ssm was built without its CUDA scan; reinstall it with MAMBA_KEEP_CUDA_BUILD=TRUE"
    return ""


def unsupported(device: torch.device, dtype: torch.dtype) -> str:
    """Why it does not take such tensors, or ""."""
    if device.type != "cuda":
        return f"it runs on CUDA tensors, not on {device.type}"
    if dtype == torch.float64:
        return "its state is float32, and float64 inputs need a float64 state"
    return ""


def states_shape(scan: ScanOperands) -> tuple[int, ...]:
    """Nothing is kept."""
    return (0,)


def forward(scan: ScanOperands, keep_states: bool) -> tuple[Tensor, Tensor]:
    """See `reference.forward`."""
    operands = _to_mamba(scan)
    out = _run(scan, operands).to(scan.u.dtype)
    return _from_mamba(out, scan), scan.u.new_empty(0, dtype=scan.state_dtype)


def backward(scan: ScanOperands, states: Tensor, dout: Tensor) -> Gradients:
    """See `reference.backward`."""
    operands = [None if operand is None else operand.detach().requires_grad_() for operand in _to_mamba(scan)]
    present = [operand for operand in operands if operand is not None]
    with torch.enable_grad():
        out = _run(scan, operands)
    gradients = iter(torch.autograd.grad(out, present, _sequence(dout, scan, out.dtype)))
    return tuple(None if operand is None else _from_mamba(next(gradients), scan) for operand in operands)


def workspace(scans: Sequence[ScanOperands], backward: bool, keep_states: bool) -> list[Buffer]:
    """See `Backend.workspace`: transposed copies of the sequences, and the package's own tensors.

    Read from the package's source (selective_scan.cpp): out and, with a gate, out times it; the state after every 2048
    tokens. In the backward the gradients beside them, then their transposes.
    """
    (scan,) = scans
    batch, length, channels, states = scan.sizes
    dtype = _common_dtype(scan)
    copies = scan.gradient_sequences(dtype)
    results = [Buffer(name, tuple(scan.u.shape), dtype) for name in ("out", "gated out")[: 1 + (scan.z is not None)]]
    chunks = Buffer("states", (batch, channels, -(-length // 2048), 2 * states), torch.float32)
    held = [*(copy._replace(name=f"transpose of {copy.name[1:]}") for copy in copies), *results, chunks]
    if backward:
        return [*held, Buffer("transpose of dout", tuple(scan.u.shape), dtype), *copies]
    return [*held, Buffer("result", tuple(scan.u.shape), scan.u.dtype)]


def _run(scan: ScanOperands, operands: list[Tensor | None]) -> Tensor:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    states = scan.A.shape[1]
    if states > MAX_STATES:
        raise ValueError(f"mamba_ssm scans at most {MAX_STATES} states a channel, got {states}")
    u, delta, A, B, C, D, z, bias = operands
    out: Tensor = selective_scan_fn(u, delta, A, B, C, D, z, bias, scan.delta_softplus)
    return out


def _to_mamba(scan: ScanOperands) -> list[Tensor | None]:
    """Sequences as (B, E, L) or (B, N, L) in one dtype, the widest of theirs; A, D and delta_bias in float32."""
    dtype = _common_dtype(scan)

    def to_mamba(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        return _sequence(tensor, scan, dtype) if tensor.dim() == 3 else tensor.float().contiguous()

    return [to_mamba(tensor) for tensor in scan.tensors]


def _common_dtype(scan: ScanOperands) -> torch.dtype:
    """That of the sequences, float32 where they differ."""
    dtypes = {tensor.dtype for tensor in scan.tensors if tensor is not None and tensor.dim() == 3}
    return dtypes.pop() if len(dtypes) == 1 else torch.float32


def _sequence(tensor: Tensor, scan: ScanOperands, dtype: torch.dtype) -> Tensor:
    """(B, L, *) -> (B, *, L), in the order of the scan."""
    in_scan_order = tensor.flip(1) if scan.reverse else tensor
    return in_scan_order.to(dtype).transpose(1, 2).contiguous()


def _from_mamba(tensor: Tensor, scan: ScanOperands) -> Tensor:
    """A sequence, (B, *, L) in the order of the scan, as (B, L, *) in that of the tokens; a parameter as it is."""
    if tensor.dim() != 3:
        return tensor
    in_scan_order = tensor.transpose(1, 2)
    return (in_scan_order.flip(1) if scan.reverse else in_scan_order).contiguous()
