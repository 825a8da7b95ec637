"""Gated linear attention (Yang et al., arXiv 2312.06635) as one operator of torch's dispatcher.

S_t = diag(a_t) S_{t-1} + k_t v_tᵀ,  o_t = S_tᵀ q_t,  a head at a time, with a_t = exp(log_decay_t) in (0, 1].

Evaluated in chunks of C tokens (their section 4): within a chunk as attention between pairs of tokens, decayed by
exp(B_i - B_j) with B_t = Σ_{s≤t} log_decay_s; from chunk to chunk by the recurrence.
The gradient of log_decay needs no states: with s_t = q_t ∘ dq_t - k_t ∘ dk_t it is Σ_{t'≥t} s_t'.

Letters: B batch, L tokens, H heads, K width of a key, V of a value, C tokens of a chunk.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

CHUNK = 16
"""Tokens of a chunk. Where its decays are strong, those of all its pairs are computed: C for each token and channel."""

FACTORED_UP_TO = 60.0
"""Of |B_t - B_middle|: up to here exp(B_i - B_j) is a product of two factors, which float32 holds with all digits."""

FORWARD_MACS = 3
"""Multiplications for each token, head and value of its state: k v, a S, S q."""

BACKWARD_MACS = FORWARD_MACS + 4
"""The states again and S do; then, with G the gradient of S: q do, a G, G v, Gᵀ k. That of log_decay is elementwise."""

IMPLEMENTATIONS = ("chunked", "recurrent", "fla")


def resolve(name: str, device: torch.device | str) -> str:
    """The implementation that a name stands for on a device: "auto" is fla's Triton kernels on a GPU, else chunks.

    Raises ValueError, with the choices, for an unknown name and for one that cannot run there.
    """
    kind = torch.device(device).type
    if name == "auto":
        return "fla" if kind == "cuda" and fla_is_installed() else "chunked"
    choices = ", ".join(["auto", *IMPLEMENTATIONS])
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"unknown gla backend {name!r}; choose from {choices}")
    if name == "fla" and kind != "meta":
        reason = "its kernels run on a GPU" if kind != "cuda" else "pip install flash-linear-attention"
        if kind != "cuda" or not fla_is_installed():
            raise ValueError(f"gla backend 'fla' cannot run here: {reason}; choose from {choices}")
    return name


@cache
def fla_is_installed() -> bool:
    """Whether there is a package with Triton kernels of gated linear attention."""
    return importlib.util.find_spec("fla") is not None


def gated_linear_attention(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, implementation: str = "auto") -> Tensor:
    """q, k, log_decay (B, L, H, K) and v (B, L, H, V) to (B, L, H, V), in v's dtype; q is not scaled here.

    The state is float32 (float64 where v is). Raises ValueError for an implementation that is unknown or cannot run.
    """
    name = resolve(implementation, v.device)
    if name == "recurrent":
        return recurrent(q, k, v, log_decay)
    if name == "fla" and not v.is_meta:
        from fla.ops.gla import chunk_gla

        of_fla: Tensor = chunk_gla(q, k, v, log_decay, scale=1.0)[0]
        return of_fla
    out: Tensor = _forward(q, k, v, log_decay)
    return out


def recurrent(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """The definition, token by token, in plain torch: what the other implementations are tested against."""
    wide = _wide(v)
    decay = log_decay.to(wide).exp()
    q, k, values = (t.to(wide) for t in (q, k, v))
    state = values.new_zeros(*q.shape[:1], *q.shape[2:], v.shape[-1])                    # (B, H, K, V)
    out = []
    for t in range(q.shape[1]):
        update = k[:, t].unsqueeze(-1) * values[:, t].unsqueeze(-2)                      # (B, H, K, V)
        state = decay[:, t].unsqueeze(-1) * state + update
        out.append((q[:, t].unsqueeze(-1) * state).sum(dim=-2))                          # (B, H, V)
    return torch.stack(out, dim=1).to(v.dtype)


def _wide(v: Tensor) -> torch.dtype:
    return torch.promote_types(v.dtype, torch.float32)


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Each chunk of tensors (B, L, H, ·), as (B, H, C, ·)."""
    return zip(*([c.transpose(1, 2) for c in t.split(CHUNK, dim=1)] for t in tensors), strict=True)


class _Decays:
    """Of a chunk's log_decay (B, H, C, K): `since` its start to each token, `until` its end, and between its tokens.

    The decays between two tokens, a_ij = exp(B_i - B_j) for j ≤ i, else 0, are only ever summed with other operands.
    A product of a factor of i and one of j makes those sums matrix products, many times faster than the pairs (B, H, C,
    C, K) themselves, which take its place where a factor would overflow.
    """

    def __init__(self, log_decay: Tensor) -> None:
        total = log_decay.cumsum(dim=-2)
        self.since = total.exp()
        self.until = (total[..., -1:, :] - total).exp()
        centred = total - total[..., total.shape[-2] // 2, None, :]
        self.pairs: Tensor | None = None
        if bool((centred.abs() <= FACTORED_UP_TO).all()):
            self.to, self.of = centred.exp(), centred.neg().exp()
        else:
            C = total.shape[-2]
            later = torch.ones(C, C, dtype=torch.bool, device=total.device).triu(1).unsqueeze(-1)
            between = total.unsqueeze(-2) - total.unsqueeze(-3)
            self.pairs = between.masked_fill_(later, -torch.inf).exp_()

    def carried(self, state: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The state after the chunk, of the one before it: (B, H, K, V)."""
        return self.since[..., -1, :].unsqueeze(-1) * state + (k * self.until).mT @ v

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Σ_c q_ic a_ijc k_jc: (B, H, C, C)."""
        if self.pairs is None:
            return ((q * self.to) @ (k * self.of).mT).tril_()
        return ((self.pairs * k.unsqueeze(-3)) @ q.unsqueeze(-1)).squeeze(-1)

    def into_queries(self, dscores: Tensor, k: Tensor) -> Tensor:
        """Σ_j dscores_ij a_ijc k_jc, with dscores 0 for j > i: (B, H, C, K)."""
        if self.pairs is None:
            return self.to * (dscores @ (k * self.of))
        return (dscores.unsqueeze(-1) * self.pairs * k.unsqueeze(-3)).sum(dim=-2)

    def into_keys(self, dscores: Tensor, q: Tensor) -> Tensor:
        """Σ_i dscores_ij a_ijc q_ic, with dscores 0 for j > i: (B, H, C, K)."""
        if self.pairs is None:
            return self.of * (dscores.mT @ (q * self.to))
        return (dscores.unsqueeze(-1) * self.pairs * q.unsqueeze(-2)).sum(dim=-3)


@torch.library.custom_op("dig::gated_linear_attention", mutates_args=())
def _forward(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    out = torch.empty_like(v, memory_format=torch.contiguous_format)
    wide = [t.to(_wide(v)) for t in (q, k, v, log_decay)]
    state = wide[2].new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])            # (B, H, K, V)
    for written, q_, k_, v_, g in _chunks(out, *wide):
        decays = _Decays(g)
        written.copy_(decays.scores(q_, k_) @ v_ + (q_ * decays.since) @ state)          # (B, H, C, V)
        state = decays.carried(state, k_, v_)
    return out


@torch.library.custom_op("dig::gated_linear_attention_backward", mutates_args=())
def _backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    wide = [t.to(_wide(v)) for t in (q, k, v, log_decay, dout)]
    chunks = list(_chunks(*wide))
    states = [wide[2].new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])]         # before each chunk
    for _, k_, v_, g, _ in chunks[:-1]:
        states.append(_Decays(g).carried(states[-1], k_, v_))
    dq, dk, dv = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in wide[:3])
    dstate = torch.zeros_like(states[0])                                                 # after the chunk
    for (q_, k_, v_, g, do), (dq_, dk_, dv_) in reversed(list(zip(chunks, _chunks(dq, dk, dv), strict=True))):
        decays = _Decays(g)
        state = states.pop()
        dscores = (do @ v_.mT).tril_()                                                   # (B, H, C, C)
        dq_.copy_(decays.into_queries(dscores, k_) + decays.since * (do @ state.mT))
        dk_.copy_(decays.into_keys(dscores, q_) + decays.until * (v_ @ dstate.mT))
        dv_.copy_(decays.scores(q_, k_).mT @ do + (k_ * decays.until) @ dstate)
        dstate = decays.since[..., -1, :].unsqueeze(-1) * dstate + (q_ * decays.since).mT @ do
    ds = wide[0] * dq - wide[1] * dk
    dlog_decay = ds.flip(1).cumsum(dim=1).flip(1)
    gradients = zip((dq, dk, dv, dlog_decay), (q, k, v, log_decay), strict=True)
    first, second, third, fourth = (gradient.to(t.dtype) for gradient, t in gradients)
    return first, second, third, fourth


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    return torch.empty_like(v, memory_format=torch.contiguous_format)


@_backward.register_fake
def _(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v, log_decay))


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, dout: Tensor) -> tuple[Tensor, ...]:
    return tuple(_backward(dout, *ctx.saved_tensors))


_forward.register_autograd(_gradients, setup_context=_setup_context)


@register_flop_formula(torch.ops.dig.gated_linear_attention, get_raw=True)
def _forward_flops(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, **_: Any) -> int:
    return 2 * FORWARD_MACS * q.numel() * v.shape[-1]


@register_flop_formula(torch.ops.dig.gated_linear_attention_backward, get_raw=True)
def _backward_flops(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, **_: Any) -> int:
    return 2 * BACKWARD_MACS * q.numel() * v.shape[-1]
