"""A diagonal state space without input dependence (S4D: Gu et al., arXiv 2206.11893) as one operator of torch.

h_t = exp(w) h_{t-1} + u_t,  y_t = 2 Re <c, h_t>,  a channel at a time, with P complex states: the halves of P pairs.

Its output is a convolution with the kernel K_l = 2 Re Σ_p c_p exp(w_p l), which two FFTs evaluate. The kernel is a
product of two matrices: with l = a·s + b, exp(w l) = exp(w a s) exp(w b), so that P (L/s + s) exponentials suffice
where a Vandermonde matrix has P L. `reverse` runs it from the last token to the first, a correlation with K.

Letters: B batch, L tokens, E channels, P states of a channel, s tokens of a stride.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

STRIDE = 64

FORWARD_MACS = 6
"""Multiplications of real numbers for each token, channel and complex state, by the recurrence: four in exp(w) h, two
in the real part of c h."""

BACKWARD_MACS = 4 + 6 + 4 + 2
"""The states again; the recurrence of their gradients, dy c in it; those of exp(w), and of c."""

IMPLEMENTATIONS = ("fft", "recurrent")


def diagonal_state_space(u: Tensor, w: Tensor, c: Tensor, reverse: bool = False, implementation: str = "fft") -> Tensor:
    """u (B, L, E) real, w and c (E, P) complex, w of negative real part, to y (B, L, E) in u's dtype.

    Evaluated in float32 (float64 where u is). Raises ValueError, with the choices, for an unknown implementation.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"unknown s4d backend {implementation!r}; choose from {', '.join(IMPLEMENTATIONS)}")
    if implementation == "recurrent":
        return recurrent(u, w, c, reverse)
    out: Tensor = _forward(u, w, c, reverse)
    return out


def recurrent(u: Tensor, w: Tensor, c: Tensor, reverse: bool = False) -> Tensor:
    """The definition, token by token, in plain torch: what the convolution is tested against."""
    wide = u.to(_wide(u))
    state, out = torch.zeros_like(c), []                                       # (B, E, P) from the first token on
    for t in reversed(range(u.shape[1])) if reverse else range(u.shape[1]):
        state = w.exp() * state + wide[:, t].unsqueeze(-1)
        out.append(2 * (c * state).sum(dim=-1).real)                           # (B, E)
    return torch.stack(out[::-1] if reverse else out, dim=1).to(u.dtype)


def _wide(u: Tensor) -> torch.dtype:
    return torch.promote_types(u.dtype, torch.float32)


def _powers(w: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """exp(w a s) (E, L/s, P) and exp(w b) (E, P, s), and their exponents a s and b."""
    b = torch.arange(STRIDE, device=w.device, dtype=w.real.dtype)
    a = torch.arange(-(-length // STRIDE), device=w.device, dtype=w.real.dtype) * STRIDE
    return (w.unsqueeze(1) * a[:, None]).exp(), (w.unsqueeze(-1) * b).exp(), a, b


def kernel(w: Tensor, c: Tensor, length: int) -> Tensor:
    """K (E, L)."""
    strides, within, _, _ = _powers(w, length)
    left = c.unsqueeze(1) * strides                                            # (E, L/s, P)
    parts = torch.cat([left.real, -left.imag], dim=-1) @ torch.cat([within.real, within.imag], dim=1)
    return 2 * parts.flatten(1)[:, :length]


def _spectrum(x: Tensor) -> Tensor:
    """Of (..., L), with as many zeros behind it, so that nothing wraps around: (..., L+1)."""
    padded = x.new_zeros(*x.shape[:-1], 2 * x.shape[-1], dtype=_wide(x))
    padded[..., : x.shape[-1]] = x
    spectrum: Tensor = torch.fft.rfft(padded)
    return spectrum


def _signal(spectrum: Tensor) -> Tensor:
    """What has that spectrum, (..., L)."""
    length = spectrum.shape[-1] - 1
    signal: Tensor = torch.fft.irfft(spectrum, n=2 * length)
    return signal[..., :length]


def forward_body(u: Tensor, w: Tensor, c: Tensor, reverse: bool) -> Tensor:
    """What the operator computes."""
    of_kernel = _spectrum(kernel(w, c, u.shape[1]))                            # (E, L+1)
    if reverse:
        of_kernel = of_kernel.conj().resolve_conj()
    product = _spectrum(u.mT).mul_(of_kernel)                                  # (B, E, L+1)
    return _signal(product).mT.to(u.dtype).contiguous()                        # (B, L, E)


def backward_body(dout: Tensor, u: Tensor, w: Tensor, c: Tensor, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of u, w and c; of a complex tensor that is dL/dRe + i dL/dIm, as torch has it."""
    L = u.shape[1]
    of_kernel = _spectrum(kernel(w, c, L))                                     # (E, L+1)
    if not reverse:
        of_kernel = of_kernel.conj().resolve_conj()
    of_dout, of_u = _spectrum(dout.mT), _spectrum(u.mT)                        # (B, E, L+1) each
    earlier, later = (of_dout, of_u) if reverse else (of_u, of_dout)
    dkernel = _signal(earlier.conj().mul(later).sum(dim=0))                    # (E, L)
    del earlier, later, of_u
    du = _signal(of_dout.mul_(of_kernel)).mT.to(u.dtype).contiguous()          # (B, L, E)
    strides, within, a, b = _powers(w.conj(), L)
    blocks = torch.nn.functional.pad(dkernel, (0, -L % STRIDE)).unflatten(-1, (-1, STRIDE)).to(w.dtype)
    sums = blocks @ within.mT                                                  # (E, L/s, P)
    weighted = (blocks * b) @ within.mT + sums * a[:, None]                    # the same, times l
    dc = 2 * (strides * sums).sum(dim=1)                                       # (E, P)
    dw = 2 * c.conj() * (strides * weighted).sum(dim=1)
    return du, dw, dc


@torch.library.custom_op("diffussm::diagonal_state_space", mutates_args=())
def _forward(u: Tensor, w: Tensor, c: Tensor, reverse: bool) -> Tensor:
    return forward_body(u, w, c, reverse)


@torch.library.custom_op("diffussm::diagonal_state_space_backward", mutates_args=())
def _backward(dout: Tensor, u: Tensor, w: Tensor, c: Tensor, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    return backward_body(dout, u, w, c, reverse)


@_forward.register_fake
def _(u: Tensor, w: Tensor, c: Tensor, reverse: bool) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


@_backward.register_fake
def _(dout: Tensor, u: Tensor, w: Tensor, c: Tensor, reverse: bool) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (u, w, c))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.reverse = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    return *_backward(dout, *ctx.saved_tensors, ctx.reverse), None


_forward.register_autograd(_gradients, setup_context=_setup_context)


@register_flop_formula(torch.ops.diffussm.diagonal_state_space, get_raw=True)
def _forward_flops(u: Tensor, w: Tensor, *_: Any, **__: Any) -> int:
    return 2 * FORWARD_MACS * u.numel() * w.shape[-1]


@register_flop_formula(torch.ops.diffussm.diagonal_state_space_backward, get_raw=True)
def _backward_flops(dout: Tensor, u: Tensor, w: Tensor, *_: Any, **__: Any) -> int:
    return 2 * BACKWARD_MACS * u.numel() * w.shape[-1]
