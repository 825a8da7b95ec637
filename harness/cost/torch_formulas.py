"""Importing this makes torch's own FlopCounterMode count mamba_ssm, causal-conv1d and flash-linear-attention.

    import harness.cost.torch_formulas
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode() as counter:
        model(x).sum().backward()

Their kernels are no operators of torch's dispatcher, so that a counter says 0 of them without a word. Those of
causal-conv1d are, in its newer versions: they get a formula. Around the others stands a wrapper that does the same and,
while a counter is active, dispatches one operator more, which does nothing and whose formula is the kernel's work.
What a kernel needs is counted, two for each multiply-add of the recurrence, as `models.scan` counts it; that a kernel
evaluates it in chunks, by more and larger products, is not. Those of the packages that are installed are imported with
this module; `register()` again takes what can be imported since.
"""

# The wrapped functions are those of packages that declare no types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, no-any-return, arg-type"

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.flop_counter import FlopCounterMode, flop_registry, register_flop_formula

from models.scan.custom_op import BACKWARD_MACS, FORWARD_MACS

__all__ = ["KERNELS", "OPERATORS", "register"]

AGAIN = BACKWARD_MACS // FORWARD_MACS
"""A backward pass of a recurrence, over its forward pass: the states once more, and the gradients of two products."""


@torch.library.custom_op("harness::kernel_work", mutates_args=())
def _kernel_work(anchor: Tensor, flops: int) -> Tensor:
    """Nothing, said to be so many FLOPs."""
    return anchor.new_empty(0)


@_kernel_work.register_fake
def _(anchor, flops):
    return anchor.new_empty(0)


@register_flop_formula(torch.ops.harness.kernel_work)
def _stated(anchor_shape, flops, *_, **__) -> int:
    return flops


# ---- What the kernels do, in FLOPs -----------------------------------------------------------------------------------


def _selective_scan(macs: int) -> Callable[..., int]:
    def flops(u, delta, A, *_, **__) -> int:
        """u (B, E, L), A (E, S)."""
        return 2 * macs * u.numel() * A.shape[-1]

    return flops


def _chunk_scan_forward(x, dt, A, B, C, *_, **__) -> int:
    """Mamba-2: x (B, L, H, P), B (B, L, G, S)."""
    return 2 * FORWARD_MACS * x.numel() * B.shape[-1]


def _chunk_scan_backward(dout, x, dt, A, B, C, *_, **__) -> int:
    return 2 * BACKWARD_MACS * x.numel() * B.shape[-1]


def _state_update(state, *_, **__) -> int:
    """One token of a Mamba: state (B, ..., S)."""
    return 2 * FORWARD_MACS * state.numel()


def _convolution(passes: int) -> Callable[..., int]:
    def flops(x, weight, *_, **__) -> int:
        """x (B, E, L), weight (E, K)."""
        return 2 * passes * x.numel() * weight.shape[-1]

    return flops


def _convolution_update(x, conv_state, weight, *_, **__) -> int:
    return 2 * x.numel() * weight.shape[-1]


def _recurrence(macs: int) -> Callable[..., int]:
    def flops(q, k, v, *_, **__) -> int:
        """A state of (K, V) a head and token: q, k (B, L, H, K), v (B, L, H', V) of at least as many heads."""
        return 2 * macs * max(q.numel() * v.shape[-1], v.numel() * k.shape[-1])

    return flops


def _rwkv6(r, k, v, *_, **__) -> int:
    return _recurrence(3)(r, k, v)


# ---- Where they are --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kernel:
    """A function that a counter cannot see into: its module, its name, and its FLOPs from its arguments.

    With `differentiable` it is a function of autograd, whose backward pass is counted as `AGAIN` times as much.
    """

    module: str
    name: str
    flops: Callable[..., int]
    differentiable: bool = False


def _linear_attention() -> list[Kernel]:
    """flash-linear-attention's functions, with the products of one value of a state.

    k v and q S; with a decay, its product; of a delta rule, k S too (Yang et al., arXiv 2312.06635, 2412.06464).
    """
    macs = {
        "linear_attn": (2, "chunk_linear_attn fused_chunk_linear_attn fused_recurrent_linear_attn"),
        "gla": (3, "chunk_gla fused_chunk_gla fused_recurrent_gla"),
        "simple_gla": (3, "chunk_simple_gla fused_chunk_simple_gla fused_recurrent_simple_gla"),
        "retention": (3, "chunk_retention fused_chunk_retention fused_recurrent_retention"),
        "lightning_attn": (3, "chunk_lightning_attn fused_recurrent_lightning_attn"),
        "delta_rule": (3, "chunk_delta_rule fused_chunk_delta_rule fused_recurrent_delta_rule"),
        "gated_delta_rule": (4, "chunk_gated_delta_rule fused_recurrent_gated_delta_rule"),
        "kda": (4, "chunk_kda fused_recurrent_kda"),
    }
    found = [
        Kernel(f"fla.ops.{module}", name, _recurrence(n), differentiable=True)
        for module, (n, names) in macs.items()
        for name in names.split()
    ]
    return found + [Kernel("fla.ops.rwkv6", name, _rwkv6, differentiable=True)
                    for name in ("chunk_rwkv6", "fused_recurrent_rwkv6")]  # fmt: skip


KERNELS = (
    Kernel("selective_scan_cuda", "fwd", _selective_scan(FORWARD_MACS)),
    Kernel("selective_scan_cuda", "bwd", _selective_scan(BACKWARD_MACS)),
    Kernel("mamba_ssm.ops.triton.ssd_combined", "_mamba_chunk_scan_combined_fwd", _chunk_scan_forward),
    Kernel("mamba_ssm.ops.triton.ssd_combined", "_mamba_chunk_scan_combined_bwd", _chunk_scan_backward),
    Kernel("mamba_ssm.ops.triton.selective_state_update", "selective_state_update", _state_update),
    *_linear_attention(),
)

OLD_CONVOLUTIONS = (
    Kernel("causal_conv1d_cuda", "causal_conv1d_fwd", _convolution(1)),
    Kernel("causal_conv1d_cuda", "causal_conv1d_bwd", _convolution(2)),
    Kernel("causal_conv1d_cuda", "causal_conv1d_update", _convolution_update),
)
"""Of causal-conv1d before its operators (1.5)."""

OPERATORS = {
    "DaoAILab::_causal_conv1d_fwd_cpp": lambda x, weight, *_, **__: 2 * prod(x) * weight[-1],
    "DaoAILab::_causal_conv1d_bwd_cpp": lambda x, weight, *_, **__: 4 * prod(x) * weight[-1],
    "DaoAILab::_causal_conv1d_update_cpp": lambda x, conv_state, weight, *_, **__: 2 * prod(x) * weight[-1],
}
"""Operators that causal-conv1d registers when it is imported, with their FLOPs from shapes."""

OPERATORS_OF = "causal_conv1d.cpp_functions"


def register() -> list[str]:
    """Register formulas of operators and wrap kernels, of what is installed; returns the names of what is counted now.

    What was wrapped or registered before stays as it is. A package that cannot be imported, for want of a GPU's driver
    say, is left alone.
    """
    found = []
    has_operators = _imported(OPERATORS_OF) is not None
    for name, formula in OPERATORS.items():
        namespace, _, operator = name.partition("::")
        packet = getattr(getattr(torch.ops, namespace), operator, None)
        if packet is not None:
            if packet not in flop_registry:
                register_flop_formula(packet)(formula)
            found.append(name)
    for kernel in KERNELS if has_operators else (*KERNELS, *OLD_CONVOLUTIONS):
        module = _imported(kernel.module)
        function = getattr(module, kernel.name, None)
        if callable(function):
            if not hasattr(function, "_counted_by_harness"):
                _replace(module, kernel, function)
            found.append(f"{kernel.module}.{kernel.name}")
    return found


def _imported(name: str) -> Any:
    """A module that is loaded, or can be; None for one that is not there."""
    if name in sys.modules:
        return sys.modules[name]
    try:
        return importlib.import_module(name) if importlib.util.find_spec(name.partition(".")[0]) else None
    except Exception:  # an installed package may want a GPU
        return None


def _replace(module: Any, kernel: Kernel, function: Callable[..., Any]) -> None:
    """Put the wrapper in the place of the function, wherever it has been imported."""
    counted = _wrapped(kernel, function)
    setattr(module, kernel.name, counted)
    for other in list(sys.modules.values()):
        names = getattr(other, "__dict__", {})
        for name, value in list(names.items()):
            if value is function:
                names[name] = counted


_INSIDE = threading.local()


def _wrapped(kernel: Kernel, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args, **kwargs):
        if torch.compiler.is_compiling() or not _counting() or getattr(_INSIDE, "kernel", False):
            return function(*args, **kwargs)
        _INSIDE.kernel = True  # one function of a package may call another
        try:
            out = function(*args, **kwargs)
        finally:
            _INSIDE.kernel = False
        flops = kernel.flops(*args, **kwargs)
        first = out[0] if isinstance(out, (tuple, list)) else out
        if kernel.differentiable and isinstance(first, Tensor) and first.requires_grad:
            first = _Work.apply(first, flops, AGAIN * flops)
            return type(out)([first, *out[1:]]) if isinstance(out, (tuple, list)) else first
        anchor = first if isinstance(first, Tensor) else next(a for a in args if isinstance(a, Tensor))
        _kernel_work(anchor.detach(), flops)
        return out

    call._counted_by_harness = True  # type: ignore[attr-defined]
    return call


def _counting() -> bool:
    """Whether a FlopCounterMode is active."""
    return any(isinstance(getattr(mode, "counter", None), FlopCounterMode)
               for mode in _get_current_dispatch_mode_stack())  # fmt: skip


class _Work(torch.autograd.Function):
    """The identity, with the work of a kernel forward and backward."""

    @staticmethod
    def forward(ctx, out, flops, backward_flops):
        ctx.backward_flops = backward_flops
        _kernel_work(out.detach(), flops)
        return out.view_as(out)

    @staticmethod
    def backward(ctx, *gradients):
        (gradient,) = gradients
        _kernel_work(gradient.detach(), ctx.backward_flops)
        return gradient, None, None


register()
