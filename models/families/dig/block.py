"""DiG's block and network (Zhu et al., arXiv 2405.18428): gated linear attention scans the tokens in four orders.

Letters: B batch, L tokens, D width, H heads, K = D/2H width of a key, V = D/H of a value, I inner width of the MLP.
Parameter names are those of github.com/hustvl/DiG.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.block import AdaLNZeroBlock
from models.denoiser import AdaLNDenoiser
from models.families.dig import FORGET_RANK, FORGET_SCALE, inner_width
from models.families.dig.recurrence import gated_linear_attention
from models.layers import RMSNorm
from models.spec import ModelSpec

NORM_EPS = 1e-6
GAIN = 2**-2.5
"""Of the xavier initialisation of the mixer's linear layers, as in the repository."""


class DiGBlock(AdaLNZeroBlock):
    """adaLN-Zero around gated linear attention and SwiGLU, then a depthwise 3x3 convolution over the grid of tokens."""

    def __init__(self, spec: ModelSpec, tokens: int) -> None:
        super().__init__(spec, tokens)
        self.attn = self.new_mixer(spec, tokens)
        self.dw_conv = nn.Conv2d(spec.width, spec.width, 3, padding=1, groups=spec.width)

    @staticmethod
    def new_mixer(spec: ModelSpec, tokens: int) -> GatedLinearAttention:
        return GatedLinearAttention(spec)

    @staticmethod
    def new_mlp(spec: ModelSpec) -> nn.Module:
        return SwiGLU(spec.width, inner_width(spec))

    def mix(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.attn(x)
        return mixed

    def set_implementation(self, name: str) -> None:
        self.attn.implementation = name

    @torch.no_grad()
    def initialize_weights(self) -> None:
        super().initialize_weights()
        for module in self.attn.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, gain=GAIN)
        nn.init.dirac_(self.dw_conv.weight, groups=self.dw_conv.groups)  # the identity
        assert self.dw_conv.bias is not None
        nn.init.zeros_(self.dw_conv.bias)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        x = super().forward(x, c)                                              # (B, L, D)
        edge = int(x.shape[1] ** 0.5)
        grid = x.transpose(1, 2).unflatten(2, (edge, edge))                    # (B, D, h, w)
        out: Tensor = self.dw_conv(grid)
        return out.flatten(2).transpose(1, 2)                                  # (B, L, D)


class GatedLinearAttention(nn.Module):
    """Attention without softmax whose state is decayed by a gate of the token (Yang et al., arXiv 2312.06635)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        D = spec.width
        self.heads = spec.heads
        self.implementation = "auto"
        self.q_proj = nn.Linear(D, D // 2, bias=False)
        self.k_proj = nn.Linear(D, D // 2, bias=False)
        self.v_proj = nn.Linear(D, D, bias=False)
        self.g_proj = nn.Linear(D, D, bias=False)
        self.gk_proj = nn.Sequential(nn.Linear(D, FORGET_RANK, bias=False), nn.Linear(FORGET_RANK, D // 2))
        self.g_norm_swish_gate = RMSNorm(D // self.heads, NORM_EPS)
        self.o_proj = nn.Linear(D, D, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v, g, forget = (
            projection(x).unflatten(-1, (self.heads, -1))
            for projection in (self.q_proj, self.k_proj, self.v_proj, self.g_proj, self.gk_proj)
        )                                                                      # (B, L, H, K or V)
        forget = forget.to(torch.promote_types(forget.dtype, torch.float32))
        log_decay = F.softplus(-forget, threshold=50) * -FORGET_SCALE          # log sigmoid / 16
        o = gated_linear_attention(q * q.shape[-1] ** -0.5, k, v, log_decay, self.implementation)
        o = self.g_norm_swish_gate(o) * F.silu(g)                              # (B, L, H, V)
        out: Tensor = self.o_proj(o.flatten(2))                                # (B, L, D)
        return out


class SwiGLU(nn.Module):
    """silu(a) b, both linear in x, then a linear layer (Shazeer, arXiv 2002.05202).

    The last product takes its weight as a tensor, as DiG's fused function does: counters that hook modules miss it.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, 2 * inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.gate_proj(x).chunk(2, dim=-1)                              # (..., I) each
        return F.linear(F.silu(a) * b, self.down_proj.weight)                  # (..., D)


class DiGDenoiser(AdaLNDenoiser):
    """Every block sees the tokens in another order: after each the sequence is reversed, after two the grid transposed.

    Four blocks see all four orders, after which the first is back; where the depth is no multiple of four it is
    restored at the end, which DiG's own depths never need.
    """

    def through(self, blocks: Iterable[nn.Module], x: Tensor, c: Tensor) -> Tensor:
        depth = 0
        for depth, block in enumerate(blocks, start=1):
            x = self.run(block, x, c).flip(1)
            if depth % 2 == 0:
                x = self.transposed(x)
        if depth // 2 % 2 == 1:
            x = self.transposed(x)
        if depth % 2 == 1:
            x = x.flip(1)
        return x

    def transposed(self, x: Tensor) -> Tensor:
        """Tokens (B, L, D) of a square grid, column by column where they were row by row."""
        return torch.unflatten(x, 1, (self.grid, self.grid)).transpose(1, 2).flatten(1, 2)
