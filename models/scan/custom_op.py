"""The selective scan as one operator of torch's dispatcher, for one direction or for two opposite ones.

Registered with a fake kernel, an autograd formula and FLOP formulas, so that meta tensors, FakeTensorMode,
torch.compile and FlopCounterMode see one operator where they would otherwise meet a loop, or nothing at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from models.scan.backends import BACKENDS, FUSED, FusedBackend, resolve
from models.scan.operands import Buffer, ScanOperands
from models.scan.portable import reference

FORWARD_MACS = 3 + 1
"""Multiply-adds for each token, channel, state and direction, an exponential aside: dt A, x B and a h + x B, then
y += C h: the 3LEN + LEN of DiM's section 3.4 (Mo and Tian, arXiv 2405.15881)."""

BACKWARD_MACS = FORWARD_MACS + 8
"""The forward again, for the states and, with a gate, y; then, with g = dL/dh and a = exp(dt A): g + dy C, dC += dy h,
dB += g x, dx += g B, a g, e = (a g) h, dA += e dt, ddt += e A."""

Pair = tuple[Tensor, Tensor]
"""An operand of each direction: of the forward one, of the backward one."""


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
    with the step size dt = delta + delta_bias, through softplus if `delta_softplus`; D, z and delta_bias may be absent.
    `reverse` runs the recurrence from the last token to the first.

    Shapes: u, delta, z (B, L, E); A (E, N); B, C (B, L, N); D, delta_bias (E,); returns (B, L, E) in u's dtype.
    The state is float32 (float64 where u is float64); memory is O(B L E), forward and backward.
    `backend` is "auto" or a key of `available()`; `resolve` says which one "auto" is.
    Raises ValueError for operands that do not fit together and for a backend that is unknown or cannot run.
    """
    return _call([ScanOperands(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)], backend)


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
    pairs = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "delta_bias": delta_bias}
    for name, pair in pairs.items():
        if pair is not None and _kind(pair[0]) != _kind(pair[1]):
            described = " and ".join(f"{tuple(t.shape)} {t.dtype} on {t.device}" for t in pair)
            raise ValueError(f"both {name} must have one shape, dtype and device, got {described}")
    forwards, backwards = (
        ScanOperands(
            *(u[d], delta[d], A[d], B[d], C[d]),
            D=None if D is None else D[d],
            z=z,
            delta_bias=None if delta_bias is None else delta_bias[d],
            delta_softplus=delta_softplus,
            reverse=d == 1,
        )
        for d in (0, 1)
    )
    # Without a fused launch, each direction is a call: one call for both would hold the states of both until both
    # gradients are there. A compiler cannot look into the choice, and two calls are as right.
    if not torch.compiler.is_compiling() and resolve(backend, u[0].device, u[0].dtype) in FUSED:
        return _call([forwards, backwards], backend)
    return _call([forwards], backend) + _call([backwards], backend)


def _kind(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return tensor.shape, tensor.dtype, tensor.device


def _call(scans: Sequence[ScanOperands], backend: str) -> Tensor:
    """The operator's output for one direction, or for two of equal shapes, dtypes and z."""
    scans[0].check()
    arguments = arguments_of(scans, backend)
    keep_states = torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in arguments)
    out: Tensor = scan_and_states(*arguments, keep_states)[0]
    return out


def arguments_of(scans: Sequence[ScanOperands], backend: str) -> list[Any]:
    """One scan or two as the operators' arguments: fifteen tensors or None, and the options."""
    second = scans[1].tensors if len(scans) > 1 else (None,) * 8
    return [*scans[0].tensors, *second[:Z], *second[Z + 1 :], scans[0].delta_softplus, scans[0].reverse, backend]


# ---- The operator ----------------------------------------------------------------------------------------------------

# The second direction has operands of its own but for z, and runs against the first; without one, all are None.
# They are single arguments, not lists of one or two, since torch's autograd of lists adds some 80 microseconds a call.
TENSORS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "Tensor? u2, Tensor? delta2, Tensor? A2, Tensor? B2, Tensor? C2, Tensor? D2, Tensor? delta_bias2"
)
OPTIONS = "bool delta_softplus, bool reverse, str backend"  # reverse: that of the first direction
FORWARD = f"({TENSORS}, {OPTIONS}, bool keep_states) -> (Tensor, Tensor)"
BACKWARD = f"(Tensor dout, Tensor states, {TENSORS}, {OPTIONS}) -> Tensor[]"
Z = ScanOperands._fields.index("z")


def scans_of(name: str, arguments: Sequence[Any]) -> list[ScanOperands]:
    """The operands of each direction in a call of this operator, `selective_scan` or `selective_scan_backward`."""
    start = 0 if name == "selective_scan" else 2
    first, second = arguments[start : start + 8], arguments[start + 8 : start + 15]
    softplus, reverse = arguments[start + 15 : start + 17]
    scans = [ScanOperands._make([*first, softplus, reverse])]
    if second[0] is not None:
        scans.append(ScanOperands._make([*second[:Z], first[Z], *second[Z:], softplus, not reverse]))
    return scans


def workspace_of(name: str, arguments: Sequence[Any]) -> list[Buffer]:
    """What a call of this operator has allocated when it has the most, by its backend's `workspace`."""
    scans, backward = scans_of(name, arguments), name != "selective_scan"
    backend, keep_states = (arguments[-1], True) if backward else arguments[-2:]
    module = BACKENDS[resolve(backend, scans[0].u.device, scans[0].u.dtype)]
    return module.workspace(scans, backward, keep_states)


@torch.library.custom_op("dim::selective_scan", mutates_args=(), schema=FORWARD)
def scan_and_states(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Output, summed over the directions, and the states that the backward starts from (empty unless `keep_states`)."""
    scans, (backend, keep_states) = scans_of("selective_scan", arguments), arguments[-2:]
    name = resolve(backend, scans[0].u.device, scans[0].u.dtype)
    if len(scans) == 1:
        return BACKENDS[name].forward(scans[0], keep_states)
    return _fused(name).forward_both(scans, keep_states)


@torch.library.custom_op("dim::selective_scan_backward", mutates_args=(), schema=BACKWARD)
def _backward(dout: Tensor, states: Tensor, *arguments: Any) -> list[Tensor]:
    """Gradients of the first eight operands in their dtypes, but for absent ones; those of two directions stacked, but
    for z."""
    scans = scans_of("selective_scan_backward", (dout, states, *arguments))
    name = resolve(arguments[-1], scans[0].u.device, scans[0].u.dtype)
    if len(scans) == 1:
        gradients = BACKENDS[name].backward(scans[0], states, dout)
    else:
        gradients = _fused(name).backward_both(scans, states, dout)
    return [
        gradient.to(operand.dtype).contiguous()
        for gradient, operand in zip(gradients, scans[0].tensors, strict=True)
        if gradient is not None and operand is not None
    ]


def _fused(name: str) -> FusedBackend:
    if name not in FUSED:
        raise ValueError(f"scan backend {name!r} takes one direction a call; two: {', '.join(FUSED)}")
    return FUSED[name]


@scan_and_states.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    scans, (backend, keep_states) = scans_of("selective_scan", arguments), arguments[-2:]
    scan = scans[0]
    module = BACKENDS.get(resolve(backend, scan.u.device, scan.u.dtype), reference)  # meta: no backend, any shape does
    shape = _stacked(module.states_shape(scan), len(scans)) if keep_states else (0,)
    return scan.u.new_empty(scan.u.shape), scan.u.new_empty(shape, dtype=scan.state_dtype)


@_backward.register_fake
def _(*arguments: Any) -> list[Tensor]:
    scans = scans_of("selective_scan_backward", arguments)
    return [
        t.new_empty(t.shape if index == Z else _stacked(t.shape, len(scans)))
        for index, t in enumerate(scans[0].tensors)
        if t is not None
    ]


def _stacked(shape: Sequence[int], directions: int) -> tuple[int, ...]:
    return tuple(shape) if directions == 1 else (directions, *shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.softplus, ctx.reverse, ctx.backend, ctx.keep_states = inputs
    ctx.save_for_backward(output[1], *tensors)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dout: Tensor | None, _dstates: None) -> tuple[Tensor | None, ...]:
    options = (None,) * 4
    if dout is None:
        return *(None,) * 15, *options
    if not ctx.keep_states:
        raise RuntimeError("dim::selective_scan was called without keep_states: its backward has nothing to start from")
    states, *tensors = ctx.saved_tensors
    return *gradients_of(dout, states, [*tensors, ctx.softplus, ctx.reverse, ctx.backend]), *options


def gradients_of(dout: Tensor, states: Tensor, arguments: Sequence[Any]) -> tuple[Tensor | None, ...]:
    """The gradient of each of the fifteen tensors of `arguments_of`, from the output's; None for an absent one."""
    found = iter(_backward(dout, states, *arguments))
    gradients = [None if tensor is None else next(found) for tensor in arguments[:8]]
    if arguments[8] is None:
        return *gradients, *(None,) * 7
    dz = gradients.pop(Z)
    first, second = zip(*((None, None) if g is None else g.unbind() for g in gradients), strict=True)
    return *first[:Z], dz, *first[Z:], *second


scan_and_states.register_autograd(_gradients, setup_context=_setup_context)


@register_flop_formula(torch.ops.dim.selective_scan, get_raw=True)
def _forward_flops(*arguments: Any, **_: Any) -> int:
    return 2 * FORWARD_MACS * sum(prod(scan.sizes) for scan in scans_of("selective_scan", arguments))


@register_flop_formula(torch.ops.dim.selective_scan_backward, get_raw=True)
def _backward_flops(*arguments: Any, **_: Any) -> int:
    return 2 * BACKWARD_MACS * sum(prod(scan.sizes) for scan in scans_of("selective_scan_backward", arguments))
