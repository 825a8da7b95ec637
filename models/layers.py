"""The parts that all families share: position tables, embeddings of timestep and class, the final layer.

Letters: B batch, L tokens, D width, p patch side, C channels; ... leading dimensions, a condition's broadcast to x's.
Module and parameter names are DiT's (Peebles & Xie, arXiv 2212.09748), so that its checkpoints load as they are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.sizes import TIMESTEP_FREQUENCIES
from models.spec import ModelSpec

LAYER_NORM_EPS = 1e-6


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift: x (..., L, D); shift and scale (..., D), of each sample's condition."""
    return x * (1 + scale.unsqueeze(-2)) + shift.unsqueeze(-2)


def sincos_1d(positions: Tensor, dim: int) -> Tensor:
    """[sin | cos] of positions (M,) at dim/2 frequencies 10000^(-i/(dim/2)): (M, dim), float64."""
    frequencies = 10000.0 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim // 2))
    angles = positions.double()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def sincos_2d(rows: int, columns: int, dim: int) -> Tensor:
    """The fixed position table (1, rows·columns, dim), float32: columns in the first half of dim, rows after it."""
    row, column = torch.arange(rows).repeat_interleave(columns), torch.arange(columns).repeat(rows)
    return torch.cat([sincos_1d(column, dim // 2), sincos_1d(row, dim // 2)], dim=1).float().unsqueeze(0)


def zero_linears(module: nn.Module) -> None:
    """Set every linear layer inside to zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)


def timestep_features(t: Tensor, count: int) -> Tensor:
    """[cos | sin] of timesteps t (B,) at count/2 frequencies: (B, count), float32."""
    half = count // 2
    index = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(-math.log(10000) * index / half)  # (B, count/2)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps), times a weight for each channel, in float32 at least.

    In arithmetic that every version of torch dispatches alike, so that counts do not depend on it.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))               # (..., D)
        scale = torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + self.eps)  # (..., 1)
        return wide * scale * self.weight                                      # (..., D)


class TimestepEmbedder(nn.Module):
    """Timesteps to vectors: [cos | sin] features, then a two-layer MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIMESTEP_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        features = timestep_features(t, TIMESTEP_FREQUENCIES)             # (B, 256)
        c: Tensor = self.mlp(features.to(next(self.parameters()).dtype))  # (B, D)
        return c


class LabelEmbedder(nn.Module):
    """Class labels to vectors. The last row is the null class, which classifier-free guidance conditions on."""

    def __init__(self, num_classes: int, width: int, dropout: float) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)
        self.null_class = num_classes
        self.dropout = dropout

    def forward(self, y: Tensor, drop: Tensor | None = None) -> Tensor:
        """y (...) int64; `drop` (...) bool says which labels become null. In training it is drawn when not given."""
        if drop is None and self.training and self.dropout > 0:
            drop = torch.rand(y.shape, device=y.device) < self.dropout
        if drop is not None:
            y = y.masked_fill(drop, self.null_class)
        c: Tensor = self.embedding_table(y)  # (..., D)
        return c


class FinalLayer(nn.Module):
    """Tokens to pixels of their patch, under adaLN (shift and scale)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(spec.width, eps=LAYER_NORM_EPS, elementwise_affine=False)
        self.linear = nn.Linear(spec.width, spec.patch_area * spec.out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(spec.width, 2 * spec.width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=-1)               # (..., D) each
        out: Tensor = self.linear(modulate(self.norm_final(x), shift, scale))  # (..., L, p*p*C)
        return out
