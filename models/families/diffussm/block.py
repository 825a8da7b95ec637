"""DiffuSSM's block (Yan et al., arXiv 2311.18257): S4D in both directions at full length, dense layers at a part of it.

Letters: B batch, J rows of the residual stream, M positions of a row, L = J·M, D width, P complex states of a channel.
Linear layers are named as the paper's matrices: `w0` … `w3`, `up` and `down` for W↑ and W↓.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.block import Block
from models.families.diffussm.state_space import diagonal_state_space
from models.layers import LAYER_NORM_EPS, modulate, zero_linears
from models.spec import ModelSpec

DT_MIN, DT_MAX = 1e-3, 1e-1  # initial step sizes, S4D (Gu et al., arXiv 2206.11893)


class DiffuSSMBlock(Block):
    """A residual block under adaLN: to M positions a row, through the state spaces, and back, gated by its input.

    Raises ValueError for a `group` that does not divide the channels, or an odd `state`.
    """

    def __init__(self, spec: ModelSpec, tokens: int) -> None:
        super().__init__(spec, tokens)
        D, M = spec.width, spec.group
        if 2 * D % M or spec.state % 2:
            raise ValueError(f"group {M} must divide twice the width ({2 * D}), and state {spec.state} must be even")
        self.group = M
        self.norm = nn.LayerNorm(D, eps=LAYER_NORM_EPS, elementwise_affine=False)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(D, 2 * D))
        self.w0 = nn.Linear(D, D)
        self.up = nn.Linear(D, M * D)  # the M matrices, one below the other
        self.ssm = nn.ModuleList([S4D(D, spec.state), S4D(D, spec.state, reverse=True)])
        self.down = nn.ModuleList([nn.Linear(2 * D, 2 * D // M) for _ in range(M)])
        self.w1 = nn.Linear(D, 2 * D)
        self.w2 = nn.Linear(2 * D, 2 * D)
        self.w3 = nn.Linear(2 * D, D)

    def initialize_weights(self) -> None:
        """A new block is the identity, and its condition without effect."""
        zero_linears(self.adaLN_modulation)
        zero_linears(self.w3)

    def set_implementation(self, name: str) -> None:
        for ssm in self.ssm:
            assert isinstance(ssm, S4D)
            ssm.implementation = name

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=-1)                       # (B, D) each
        rows = modulate(self.norm(x), shift, scale)                                    # (B, J, D)
        u = _gelu(self.up(_gelu(self.w0(rows)))).unflatten(-1, (self.group, -1))       # (B, J, M, D)
        y = torch.cat([ssm(u.flatten(1, 2)) for ssm in self.ssm], dim=-1)              # (B, L, 2D)
        y = y.unflatten(1, (-1, self.group)).movedim(2, 0).contiguous()                # (M, B, J, 2D)
        back = torch.cat([down(y_m) for down, y_m in zip(self.down, y, strict=True)], dim=-1)  # (B, J, 2D)
        gated = _gelu(self.w2(_gelu(back))) * _gelu(self.w1(rows))                     # (B, J, 2D)
        out: Tensor = x + self.w3(gated)                                               # (B, J, D)
        return out


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


class S4D(nn.Module):
    """A state space a channel, diagonal and the same at every token (Gu et al., arXiv 2206.11893).

    h' = A h + B u, y = Re(C h) + D u in continuous time, held constant over steps dt. Its `state` real states are
    half as many pairs of conjugates, of which one each is kept. `reverse` runs it from the last token to the first.
    """

    def __init__(self, width: int, state: int, reverse: bool = False) -> None:
        super().__init__()
        self.reverse = reverse
        self.implementation = "fft"
        pairs = state // 2
        self.log_dt = nn.Parameter(torch.rand(width) * math.log(DT_MAX / DT_MIN) + math.log(DT_MIN))
        self.A_log = nn.Parameter(torch.full((width, pairs), math.log(0.5)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(pairs, dtype=torch.float32).repeat(width, 1))  # S4D-Lin
        self.B = nn.Parameter(torch.tensor([1.0, 0.0]).repeat(width, pairs, 1))
        self.C = nn.Parameter(torch.randn(width, pairs, 2) * 0.5**0.5)
        self.D = nn.Parameter(torch.ones(width))

    def forward(self, u: Tensor) -> Tensor:
        A = torch.complex(-self.A_log.exp(), self.A_imag)                              # (D, P)
        w = A * self.log_dt.exp().unsqueeze(-1)                                        # (D, P)
        c = torch.view_as_complex(self.C) * torch.view_as_complex(self.B) * (w.exp() - 1) / A
        y = diagonal_state_space(u, w, c, self.reverse, self.implementation)           # (B, L, D)
        return y + self.D * u
