"""A bidirectional scan that keeps what its operands are made from, and makes them again for the backward.

Mamba's and Vim's fused mixers do the same (`mamba_inner_fn` of mamba_ssm, its `checkpoint_lvl` 1): the padded input,
the convolution's output, u and delta are cheap to make, and keeping them takes four tensors of (B, L, E) a direction.
Values and gradients are those of `bidirectional_scan` of kept operands, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.scan.backends import FUSED, resolve
from models.scan.custom_op import Z, arguments_of, bidirectional_scan, gradients_of, scan_and_states
from models.scan.operands import ScanOperands

Operands = Callable[..., tuple[Tensor, ...]]
"""`operands(*inputs, reverse)` gives u, delta, A, B, C, D and delta_bias of a direction."""


def recomputed_scan(
    operands: Operands,
    inputs: tuple[Sequence[Tensor], Sequence[Tensor]],
    z: Tensor,
    *,
    backend: str = "auto",
    keep: bool = False,
) -> Tensor:
    """`bidirectional_scan`, with softplus, of what a function makes of the inputs of each direction.

    `operands` must depend on its inputs alone, all of them tensors; z (B, L, E) gates both directions. With `keep` the
    operands are kept after all. A compiler decides by itself what it recomputes. Returns (B, L, E).
    Raises ValueError as `bidirectional_scan` does.
    """
    needed = torch.is_grad_enabled() and any(t.requires_grad for t in (z, *inputs[0], *inputs[1]))
    if keep or not needed or torch.compiler.is_compiling():
        made = (operands(*inputs[0], reverse=False), operands(*inputs[1], reverse=True))
        u, delta, A, B, C, D, bias = zip(*made, strict=True)
        return bidirectional_scan(u, delta, A, B, C, D, z, bias, delta_softplus=True, backend=backend)
    if resolve(backend, z.device, z.dtype) in FUSED:
        both: Tensor = _Recomputed.apply(operands, (False, True), backend, z, *inputs[0], *inputs[1])
        return both
    first: Tensor = _Recomputed.apply(operands, (False,), backend, z, *inputs[0])
    second: Tensor = _Recomputed.apply(operands, (True,), backend, z, *inputs[1])
    return first + second


class _Recomputed(torch.autograd.Function):
    """The scan of one direction, or of two in one call."""

    @staticmethod
    def forward(
        ctx: Any, operands: Operands, reversals: tuple[bool, ...], backend: str, z: Tensor, *inputs: Tensor
    ) -> Tensor:
        scans = _made(operands, reversals, z, inputs)
        out: Tensor
        out, states = scan_and_states(*arguments_of(scans, backend), True)
        ctx.operands, ctx.reversals, ctx.backend = operands, reversals, backend
        device = z.device.type
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        ctx.save_for_backward(states, z, *inputs)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        states, z, *inputs = ctx.saved_tensors
        needed = ctx.needs_input_grad[-len(inputs) :]
        leaves = [t.detach().requires_grad_(need) for t, need in zip(inputs, needed, strict=True)]
        with torch.enable_grad(), torch.autocast(*ctx.autocast):
            scans = _made(ctx.operands, ctx.reversals, z, leaves)
        arguments = arguments_of(scans, ctx.backend)
        gradients = gradients_of(dout, states, arguments)
        made = [(t, g) for t, g in zip(arguments, gradients, strict=False) if t is not None and t.requires_grad]
        roots, gradients_of_roots = zip(*made, strict=True) if made else ((), ())
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        found = iter(torch.autograd.grad(roots, wanted, gradients_of_roots, allow_unused=True))
        return None, None, None, gradients[Z], *(next(found) if need else None for need in needed)


def _made(operands: Operands, reversals: Sequence[bool], z: Tensor, inputs: Sequence[Tensor]) -> list[ScanOperands]:
    """The operands of each direction, from as many inputs for each."""
    count, scans = len(inputs) // len(reversals), []
    for d, reverse in enumerate(reversals):
        u, delta, A, B, C, D, bias = operands(*inputs[d * count : (d + 1) * count], reverse=reverse)
        scans.append(ScanOperands(u, delta, A, B, C, D, z, bias, delta_softplus=True, reverse=reverse))
        scans[-1].check()
    return scans
