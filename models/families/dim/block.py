"""DiM's block (Mo & Tian, arXiv 2405.15881): two selective scans, one in each direction, mix the tokens.

Letters: B batch, L tokens, D width, E = expand·D inner width, S state, K convolution, R rank of the step size's
projection. The closed form of the mixer is `bidirectional_mamba` of this package.
Parameter names are Vim's (Zhu et al., arXiv 2401.09417): a direction's own weights carry the infix `_b` when backward.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.block import AdaLNZeroBlock
from models.scan import recomputed_scan
from models.spec import ModelSpec
from models.video import VideoBlock

DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4  # initial step sizes, Mamba (Gu & Dao, arXiv 2312.00752, section 3.6)


class DiMBlock(AdaLNZeroBlock):
    """adaLN-Zero around a bidirectional Mamba and MLP."""

    def __init__(self, spec: ModelSpec, tokens: int) -> None:
        super().__init__(spec, tokens)
        self.mixer = self.new_mixer(spec, tokens)

    @staticmethod
    def new_mixer(spec: ModelSpec, tokens: int) -> BidirectionalMamba:
        """Two scans over (B, L, D), of any length."""
        return BidirectionalMamba(spec)

    def mix(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.mixer(x)
        return mixed

    def set_implementation(self, name: str) -> None:
        for module in self.modules():
            if isinstance(module, BidirectionalMamba):
                module.scan_backend = name

    def keep_operands(self) -> None:
        for module in self.modules():
            if isinstance(module, BidirectionalMamba):
                module.keeps_operands = True

    def initialize_weights(self) -> None:
        super().initialize_weights()
        for module in self.modules():
            if isinstance(module, BidirectionalMamba):
                module.reset_state_space()  # xavier and a zero bias would give every channel the same step size, 0.69


class DiMVideoBlock(VideoBlock, DiMBlock):
    """Bidirectional Mamba over space or time."""


class BidirectionalMamba(nn.Module):
    """Mamba-1 run over the sequence in both directions, with shared input and output projections (Vim's "v2").

    `spec.merge` averages ("mean") or adds ("sum") the two directions. `scan_backend` names the selective scan's
    implementation. The backward makes the operands of the scans again, as Vim's does, unless `keeps_operands`. Both
    change speed and memory, never the function.

    The weights of the submodules are used as tensors, without calling the submodules. The fused kernels of mamba_ssm
    and Vim do the same, which is why counters that hook modules (thop) see nothing of a Mamba mixer.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        D, E, S, K, R = spec.width, spec.inner, spec.state, spec.conv, spec.dt_rank
        self.merge = spec.merge
        self.scan_backend = "auto"
        self.keeps_operands = False
        self.in_proj = nn.Linear(D, 2 * E, bias=False)
        self.out_proj = nn.Linear(E, D, bias=False)
        for b in ("", "_b"):
            self.add_module(f"conv1d{b}", nn.Conv1d(E, E, K, groups=E))
            self.add_module(f"x_proj{b}", nn.Linear(E, R + 2 * S, bias=False))
            self.add_module(f"dt_proj{b}", nn.Linear(R, E))
            self.register_parameter(f"A{b}_log", nn.Parameter(torch.empty(E, S)))
            self.register_parameter(f"D{b}", nn.Parameter(torch.empty(E)))
        self.reset_state_space()

    @torch.no_grad()
    def reset_state_space(self) -> None:
        """Mamba's own initialisation of the step size (dt_proj), the decay (A_log) and the skip (D)."""
        for b in ("", "_b"):
            dt_proj, A_log = getattr(self, f"dt_proj{b}"), getattr(self, f"A{b}_log")
            bound = dt_proj.in_features**-0.5
            dt_proj.weight.uniform_(-bound, bound)
            log_dt = torch.empty_like(dt_proj.bias).uniform_(math.log(DT_MIN), math.log(DT_MAX))
            dt = log_dt.exp().clamp(min=DT_FLOOR)
            dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus(bias) = dt
            A_log.copy_(torch.arange(1, A_log.shape[1] + 1, device=A_log.device).log().expand_as(A_log))  # S4D-real
            getattr(self, f"D{b}").fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        x, z = F.linear(x, self.in_proj.weight).chunk(2, dim=-1)                 # (B, L, E) each
        inputs = (x, *self.weights_of(reverse=False)), (x, *self.weights_of(reverse=True))
        y = recomputed_scan(scan_operands, inputs, z, backend=self.scan_backend,
                            keep=self.keeps_operands)                            # (B, L, E), both directions' sum
        if self.merge == "mean":
            y = y / 2
        return F.linear(y, self.out_proj.weight)                                 # (B, L, D)

    def weights_of(self, reverse: bool) -> tuple[Tensor, ...]:
        """A direction's own weights, in the order of `scan_operands`."""
        b = "_b" if reverse else ""
        conv, x_proj, dt_proj = (getattr(self, f"{name}{b}") for name in ("conv1d", "x_proj", "dt_proj"))
        state_space = getattr(self, f"A{b}_log"), getattr(self, f"D{b}")
        return conv.weight, conv.bias, x_proj.weight, dt_proj.weight, dt_proj.bias, *state_space


def scan_operands(
    x: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    x_proj: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    reverse: bool,
) -> tuple[Tensor, ...]:
    """u, delta, A, B, C, D and the bias of delta for one direction's scan over x (B, L, E)."""
    R, S = dt_proj.shape[1], A_log.shape[1]
    u = F.silu(causal_conv1d(x, conv_weight, conv_bias, reverse))                # (B, L, E)
    dt, B, C = torch.split(F.linear(u, x_proj), [R, S, S], dim=-1)               # (B, L, R), (B, L, S), (B, L, S)
    delta = F.linear(dt, dt_proj)                                                # (B, L, E), its bias enters the scan
    A = -torch.exp(A_log.float())                                                # (E, S)
    return u, delta, A, B, C, D.float(), dt_bias.float()                         # D and the bias (E,)


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool = False) -> Tensor:
    """Depthwise convolution in which a token sees itself and the K-1 before it (after it, with `reverse`).

    x (B, L, E), weight (E, 1, K), bias (E,); returns (B, L, E). Reversing pads the other end and flips the kernel,
    which equals flipping the sequence twice and copies nothing. As a 2-D convolution over (E, 1, L) in channels-last
    order it reads and writes (B, L, E) as it lies in memory; a 1-D one would transpose both.
    """
    K = weight.shape[-1]
    if reverse:
        weight = weight.flip(-1)
    x = F.pad(x, (0, 0, 0, K - 1) if reverse else (0, 0, K - 1, 0))              # (B, L + K - 1, E)
    x = x.transpose(1, 2).unsqueeze(2)                                           # (B, E, 1, L + K - 1)
    x = F.conv2d(x, weight.unsqueeze(2), bias, groups=x.shape[1])                # (B, E, 1, L)
    return x.squeeze(2).transpose(1, 2)                                          # (B, L, E)
