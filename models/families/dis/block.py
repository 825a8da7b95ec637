"""DiS's block and network (Fei et al., arXiv 2402.05608): a U of Mamba blocks over the tokens of image and condition.

Letters: B batch, L tokens of the image, X = 2 tokens of label and timestep, D width, p patch side, C channels.
Parameter names are those of github.com/feizc/DiS.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.block import Block
from models.denoiser import Denoiser
from models.families.dim.block import BidirectionalMamba
from models.families.dis import EXTRAS
from models.layers import FinalLayer, LabelEmbedder, RMSNorm, timestep_features
from models.spec import ModelSpec

NORM_EPS = 1e-5


class DiSBlock(Block):
    """Vim's mixer of the normalised residual stream, which the mixed tokens join at the next block.

    With a `skip` the mixed tokens are first projected together with those that left the block's partner.
    """

    def __init__(self, spec: ModelSpec, tokens: int, skip: bool = False) -> None:
        super().__init__(spec, tokens)
        self.norm = RMSNorm(spec.width, NORM_EPS)
        self.mixer = BidirectionalMamba(spec)
        self.skip_linear = nn.Linear(2 * spec.width, spec.width) if skip else None

    def set_implementation(self, name: str) -> None:
        self.mixer.scan_backend = name

    def forward(self, x: Tensor, residual: Tensor | None, skip: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.skip_linear is not None:
            assert skip is not None
            x = self.skip_linear(torch.cat([x, skip], dim=-1))      # (B, X + L, D)
        residual = x if residual is None else residual + x          # (B, X + L, D)
        return self.mixer(self.norm(residual)), residual


class DiSDenoiser(Denoiser):
    """Timestep and label as tokens, learned positions, as many blocks with skips as without; adaLN in the end alone.

    The repository drops the residual branches of single samples in training (stochastic depth, to a rate of 0.1 at the
    last block). That is regularisation, which no other family here has, and it is left out.
    """

    def __init__(self, spec: ModelSpec, block: type[DiSBlock], resolution: int = 256) -> None:
        super().__init__(spec, block, resolution)
        D, tokens, pairs = spec.width, EXTRAS + spec.tokens(resolution), spec.depth // 2
        self.patch_embed = PatchEmbed(spec)
        self.time_embed = nn.Sequential(nn.Linear(D, 4 * D), nn.SiLU(), nn.Linear(4 * D, D))
        self.label_emb = LabelEmbedder(spec.num_classes, D, spec.class_dropout)
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, D))
        self.in_blocks = nn.ModuleList([block(spec, tokens) for _ in range(pairs)])
        self.mid_block = block(spec, tokens) if spec.depth % 2 else None
        self.out_blocks = nn.ModuleList([block(spec, tokens, skip=True) for _ in range(pairs)])
        self.norm_f = RMSNorm(D, NORM_EPS)
        self.final_layer = FinalLayer(spec)
        if not self.pos_embed.is_meta:
            self.initialize_weights()

    @torch.no_grad()
    def initialize_weights(self) -> None:
        """The repository's: torch's own and Mamba's, with zero biases, and mixers' last layers scaled by depth^-1/2.

        Positions begin at zero, labels at a deviation of 0.02. Only the forward direction's step sizes keep Mamba's
        bias, the others begin at zero: an oversight, it seems, but what was trained and published.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, BidirectionalMamba):
                module.reset_state_space()
                nn.init.zeros_(module.get_parameter("dt_proj_b.bias"))
                module.out_proj.weight.div_(math.sqrt(max(1, 2 * len(self.in_blocks))))
        nn.init.normal_(self.label_emb.embedding_table.weight, std=0.02)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, drop_labels: Tensor | None = None) -> Tensor:
        x = self.patch_embed(x)                                     # (B, L, D)
        time = self.time_embed(timestep_features(t, self.spec.width).to(x.dtype))  # (B, D)
        label = self.label_emb(y, drop_labels)                      # (B, D)
        x = torch.cat([label[:, None], time[:, None], x], dim=1) + self.pos_embed  # (B, X + L, D)
        x = self.norm_f(self.through(x))                            # (B, X + L, D)
        x = self.final_layer(x, time + label)                       # (B, X + L, p*p*C)
        return self.unpatchify(x[:, EXTRAS:])                       # (B, 2C, H, W)


    def through(self, x: Tensor) -> Tensor:
        """The residual stream (B, X + L, D) after all blocks."""
        residual: Tensor | None = None
        skips: list[Tensor] = []
        for block in self.in_blocks:
            x, residual = self.run(block, x, residual)
            skips.append(x)
        if self.mid_block is not None:
            x, residual = self.run(self.mid_block, x, residual)
        for block in self.out_blocks:
            x, residual = self.run(block, x, residual, skips.pop())
        return x if residual is None else residual + x


class PatchEmbed(nn.Module):
    """Patches of a latent (B, C, H, W) to tokens (B, L, D)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.proj = nn.Conv2d(spec.channels, spec.width, spec.patch, spec.patch)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.proj(x)                               # (B, D, h, w)
        return tokens.flatten(2).transpose(1, 2)
