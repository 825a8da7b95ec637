"""The scan of the mamba_ssm package, for CUDA tensors: an adapter between its layout, (B, E, L), and ours, (B, L, E).

Only the package's public function is called. It keeps its states to itself, so the backward runs its forward again;
it has no reverse mode, so operands and result are flipped in time.
"""

from functools import cache

import torch
from torch import Tensor

from .inputs import Gradients, ScanInputs

MAX_STATES = 256  # the CUDA kernel's limit


@cache
def missing() -> str:
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    try:
        from mamba_ssm.ops import selective_scan_interface
    except Exception as error:  # a package built without its CUDA code, or for another torch, fails in many ways
        return f"mamba_ssm cannot be imported ({type(error).__name__}: {error}); pip install mamba-ssm".replace(
            "\n", " "
        )
    if getattr(selective_scan_interface, "selective_scan_cuda", None) is None:
        return "mamba_ssm was built without its CUDA scan; reinstall it with MAMBA_KEEP_CUDA_BUILD=TRUE"
    return ""


def unsupported(device: torch.device, dtype: torch.dtype) -> str:
    if device.type != "cuda":
        return f"it runs on CUDA tensors, not on {device.type}"
    if dtype == torch.float64:
        return "its state is float32, and float64 inputs need a float64 state"
    return ""


def states_shape(scan: ScanInputs) -> tuple[int, ...]:
    """Nothing is kept."""
    return (0,)


def forward(inputs: ScanInputs, keep_states: bool) -> tuple[Tensor, Tensor]:
    """See `reference.forward`."""
    operands = _to_mamba(inputs)
    out = _scan(inputs, operands).to(inputs.u.dtype)
    return _from_mamba(out, inputs), inputs.u.new_empty(0, dtype=inputs.state_dtype)


def backward(inputs: ScanInputs, states: Tensor, dout: Tensor) -> Gradients:
    """See `reference.backward`."""
    operands = [None if operand is None else operand.detach().requires_grad_() for operand in _to_mamba(inputs)]
    present = [operand for operand in operands if operand is not None]
    with torch.enable_grad():
        out = _scan(inputs, operands)
    found = iter(torch.autograd.grad(out, present, _sequence(dout, inputs, out.dtype)))
    gradients = (None if operand is None else next(found) for operand in operands)
    return tuple(_from_mamba(g, inputs) if g is not None and g.dim() == 3 else g for g in gradients)


def _scan(inputs: ScanInputs, operands: list[Tensor | None]) -> Tensor:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    states = inputs.A.shape[1]
    if states > MAX_STATES:
        raise ValueError(f"mamba_ssm scans at most {MAX_STATES} states a channel, got {states}")
    u, delta, A, B, C, D, z, bias = operands
    return selective_scan_fn(u, delta, A, B, C, D, z, bias, inputs.delta_softplus)


def _to_mamba(inputs: ScanInputs) -> list[Tensor | None]:
    """Sequences as (B, E, L) or (B, N, L) in one dtype, the widest of theirs; A, D and delta_bias in float32."""
    dtypes = {tensor.dtype for tensor in inputs.tensors if tensor is not None and tensor.dim() == 3}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32

    def to_mamba(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        return _sequence(tensor, inputs, dtype) if tensor.dim() == 3 else tensor.float().contiguous()

    return [to_mamba(tensor) for tensor in inputs.tensors]


def _sequence(tensor: Tensor, inputs: ScanInputs, dtype: torch.dtype) -> Tensor:
    in_scan_order = tensor.flip(1) if inputs.reverse else tensor
    return in_scan_order.to(dtype).transpose(1, 2).contiguous()


def _from_mamba(tensor: Tensor, inputs: ScanInputs) -> Tensor:
    in_scan_order = tensor.transpose(1, 2)
    return in_scan_order.flip(1) if inputs.reverse else in_scan_order.contiguous()
