"""Two selective scans over one sequence, in opposite directions: in one launch where the backend can, else in two."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import fused
from .backends import resolve
from .inputs import ScanInputs
from .op import BACKWARD_MACS, FORWARD_MACS, selective_scan

Pair = tuple[Tensor, Tensor]
PAIRED = ("u", "delta", "A", "B", "C", "D", "delta_bias")  # operands of which each direction has its own
OPERANDS = ScanInputs._fields[:8]


def bidirectional_scan(
    u: Pair,
    delta: Pair,
    A: Pair,
    B: Pair,
    C: Pair,
    D: Pair | None = None,
    z: Tensor | None = None,
    delta_bias: Pair | None = None,
    delta_softplus: bool = False,
    *,
    backend: str = "auto",
) -> Tensor:
    """The sum of `selective_scan` of the first of every pair and that of the second with `reverse`; z gates both.

    Shapes, of each of a pair, as in `selective_scan`; returns (B, L, E) in u's dtype.
    Raises ValueError as `selective_scan` does, and where the two of a pair differ in shape, dtype or device.
    """
    operands = (u, delta, A, B, C, D, z, delta_bias)
    for name, pair in zip(OPERANDS, operands, strict=True):
        if name in PAIRED and pair is not None and _kind(pair[0]) != _kind(pair[1]):
            described = " and ".join(f"{tuple(t.shape)} {t.dtype} on {t.device}" for t in pair)
            raise ValueError(f"both {name} must have one shape, dtype and device, got {described}")
    forwards, backwards = _scans(*(_listed(operand) for operand in operands), delta_softplus)
    # A compiler cannot look into the choice; two operators are as right.
    if torch.compiler.is_compiling() or resolve(backend, forwards.u.device, forwards.u.dtype) != "triton":
        return selective_scan(*forwards, backend=backend) + selective_scan(*backwards, backend=backend)
    forwards.check()
    tensors = [tensor for scan in (forwards, backwards) for tensor in scan.tensors if tensor is not None]
    keep_states = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return _both(*(_listed(operand) for operand in operands), delta_softplus, keep_states)[0].sum(0)


def _kind(tensor: Tensor) -> tuple:
    return tensor.shape, tensor.dtype, tensor.device


def _listed(operand: Pair | Tensor | None) -> list[Tensor]:
    """As the operators take it: two, one or no tensors."""
    return [] if operand is None else [operand] if isinstance(operand, Tensor) else list(operand)


def _scans(*operands: Any) -> tuple[ScanInputs, ScanInputs]:
    """The scan of each direction, from the eight listed operands and delta_softplus."""
    *listed, softplus = operands

    def scan(direction: int) -> ScanInputs:
        own = [tensors[min(direction, len(tensors) - 1)] if tensors else None for tensors in listed]
        return ScanInputs._make([*own, softplus, direction == 1])

    return scan(0), scan(1)


@torch.library.custom_op("dim::bidirectional_scan", mutates_args=())
def _both(
    u: Sequence[Tensor],
    delta: Sequence[Tensor],
    A: Sequence[Tensor],
    B: Sequence[Tensor],
    C: Sequence[Tensor],
    D: Sequence[Tensor],
    z: Sequence[Tensor],
    delta_bias: Sequence[Tensor],
    delta_softplus: bool,
    keep_states: bool,
) -> tuple[Tensor, Tensor]:
    """Outputs and the states that the backward starts from (empty unless `keep_states`)."""
    return fused.forward_both(_scans(u, delta, A, B, C, D, z, delta_bias, delta_softplus), keep_states)


@torch.library.custom_op("dim::bidirectional_scan_backward", mutates_args=())
def _both_backward(
    dout: Tensor,
    states: Tensor,
    u: Sequence[Tensor],
    delta: Sequence[Tensor],
    A: Sequence[Tensor],
    B: Sequence[Tensor],
    C: Sequence[Tensor],
    D: Sequence[Tensor],
    z: Sequence[Tensor],
    delta_bias: Sequence[Tensor],
    delta_softplus: bool,
) -> list[Tensor]:
    """Gradients of the eight operands in their dtypes, those of a pair stacked; empty for an absent one."""
    listed = (u, delta, A, B, C, D, z, delta_bias)
    gradients = fused.backward_both(_scans(*listed, delta_softplus), states, dout)
    return [
        dout.new_empty(0) if not tensors or gradient is None else gradient.to(tensors[0].dtype).contiguous()
        for gradient, tensors in zip(gradients, listed, strict=True)
    ]


@_both.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, delta_softplus, keep_states):
    scan, _ = _scans(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    kept = (2, *fused.states_shape(scan)[1:]) if keep_states else (0,)
    return u[0].new_empty(2, *u[0].shape), u[0].new_empty(kept, dtype=scan.state_dtype)


@_both_backward.register_fake
def _(dout, states, u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    listed = (u, delta, A, B, C, D, z, delta_bias)
    return [t[0].new_empty(len(t), *t[0].shape) if t else dout.new_empty(0) for t in listed]


def _setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
    *listed, ctx.delta_softplus, ctx.keep_states = inputs
    ctx.lengths = [len(tensors) for tensors in listed]
    ctx.save_for_backward(output[1], *(tensor for tensors in listed for tensor in tensors))
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dout: Tensor | None, _dstates: None) -> tuple:
    if dout is None:
        return *([None] * length for length in ctx.lengths), None, None
    if not ctx.keep_states:
        raise RuntimeError("dim::bidirectional_scan was called without keep_states: there is nothing to go back from")
    states, *tensors = ctx.saved_tensors
    rest = iter(tensors)
    listed = [[next(rest) for _ in range(length)] for length in ctx.lengths]
    gradients = _both_backward(dout, states, *listed, ctx.delta_softplus)
    return *(list(g)[:length] for g, length in zip(gradients, ctx.lengths, strict=True)), None, None


_both.register_autograd(_gradients, setup_context=_setup_context)


def _flops(u_shapes: Sequence[torch.Size], A_shapes: Sequence[torch.Size], macs: int) -> int:
    return sum(2 * macs * prod(u) * A[1] for u, A in zip(u_shapes, A_shapes, strict=True))


@register_flop_formula(torch.ops.dim.bidirectional_scan)
def _forward_flops(u_shapes, delta_shapes, A_shapes, *args, **kwargs) -> int:
    return _flops(u_shapes, A_shapes, FORWARD_MACS)


@register_flop_formula(torch.ops.dim.bidirectional_scan_backward)
def _backward_flops(dout_shape, states_shape, u_shapes, delta_shapes, A_shapes, *args, **kwargs) -> int:
    return _flops(u_shapes, A_shapes, BACKWARD_MACS)
