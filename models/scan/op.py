"""The selective scan as an operator of torch's dispatcher.

Registered with a fake kernel, an autograd formula and FLOP formulas, so that meta tensors, FakeTensorMode,
torch.compile and FlopCounterMode see one operator where they would otherwise meet a loop, or nothing at all.
"""

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import reference
from .backends import BACKENDS, resolve
from .inputs import ScanInputs

# Multiply-adds for each token, channel and state, an exponential aside.
# Forward, the count of section 3.4 of the paper (3LEN + LEN): dt A, x B and a h + x B; then y += C h.
FORWARD_MACS = 3 + 1
# Backward: the forward again, for the states and, by way of the gate, y (4); then, with g = dL/dh and a = exp(dt A),
# g + dy C, dC += dy h, dB += g x, dx += g B, a g, e = (a g) h, dA += e dt, ddt += e A (8).
BACKWARD_MACS = FORWARD_MACS + 8


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
    *,
    backend: str = "auto",
) -> Tensor:
    """Mamba's selective scan (Gu and Dao 2023, algorithm 2), channel-last, along dimension 1.

    h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t;  y_t = <C_t, h_t> + D u_t;  out_t = y_t silu(z_t)
    with dt = delta + delta_bias, through softplus if `delta_softplus`; D, z and delta_bias may be absent.
    `reverse` runs the recurrence from the last token to the first.

    Shapes: u, delta, z (B, L, E); A (E, N); B, C (B, L, N); D, delta_bias (E,); returns (B, L, E) in u's dtype.
    The state is float32 (float64 where u is float64); memory is O(B L E), forward and backward.
    `backend` is "auto" or a key of `available()`; `resolve` says which one "auto" is.
    Raises ValueError for operands that do not fit together and for a backend that is unknown or cannot run.
    """
    operands = (u, delta, A, B, C, D, z, delta_bias)
    ScanInputs(*operands, delta_softplus, reverse).check()
    keep_states = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in operands)
    return _scan(*operands, delta_softplus, reverse, backend, keep_states)[0]


@torch.library.custom_op("dim::selective_scan", mutates_args=())
def _scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    backend: str,
    keep_states: bool,
) -> tuple[Tensor, Tensor]:
    """Output and the states that the backward starts from (empty unless `keep_states`)."""
    scan = ScanInputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)
    return BACKENDS[resolve(backend, u.device, u.dtype)].forward(scan, keep_states)


@torch.library.custom_op("dim::selective_scan_backward", mutates_args=())
def _scan_backward(
    dout: Tensor,
    states: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the eight tensor operands in their dtypes; empty for an absent one: operators cannot return None."""
    scan = ScanInputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)
    module = BACKENDS[resolve(backend, u.device, u.dtype)]
    gradients = module.backward(scan, states, dout)
    return tuple(  # type: ignore[return-value]
        u.new_empty(0) if operand is None or gradient is None else gradient.to(operand.dtype).contiguous()
        for gradient, operand in zip(gradients, scan.tensors, strict=True)
    )


@_scan.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse, backend, keep_states):
    scan = ScanInputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)
    module = BACKENDS.get(resolve(backend, u.device, u.dtype), reference)  # meta: no backend runs, any shape will do
    shape = module.states_shape(scan) if keep_states else (0,)
    return u.new_empty(u.shape), u.new_empty(shape, dtype=scan.state_dtype)


@_scan_backward.register_fake
def _(dout, states, u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse, backend):
    return tuple(u.new_empty(0) if t is None else t.new_empty(t.shape) for t in (u, delta, A, B, C, D, z, delta_bias))


def _setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
    *operands, ctx.delta_softplus, ctx.reverse, ctx.backend, keep_states = inputs
    ctx.present = [t is not None for t in operands]
    ctx.keep_states = keep_states
    ctx.save_for_backward(output[1], *operands)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dout: Tensor | None, _dstates: None) -> tuple:
    if dout is None:
        return (None,) * 12
    if not ctx.keep_states:
        raise RuntimeError("dim::selective_scan was called without keep_states: there is nothing to go back from")
    states, *operands = ctx.saved_tensors
    gradients = _scan_backward(dout, states, *operands, ctx.delta_softplus, ctx.reverse, ctx.backend)
    return *(g if here else None for g, here in zip(gradients, ctx.present, strict=True)), None, None, None, None


_scan.register_autograd(_gradients, setup_context=_setup_context)


def _flops(u_shape: torch.Size, A_shape: torch.Size, macs: int) -> int:
    return 2 * macs * prod(u_shape) * A_shape[1]


@register_flop_formula(torch.ops.dim.selective_scan)
def _forward_flops(u_shape, delta_shape, A_shape, *args, **kwargs) -> int:
    return _flops(u_shape, A_shape, FORWARD_MACS)


@register_flop_formula(torch.ops.dim.selective_scan_backward)
def _backward_flops(dout_shape, states_shape, u_shape, delta_shape, A_shape, *args, **kwargs) -> int:
    return _flops(u_shape, A_shape, BACKWARD_MACS)
