"""DiT's block (Peebles & Xie, arXiv 2212.09748): multi-head self-attention mixes the tokens.

Letters: B batch, L tokens, D width. Costs a token: 4D² multiply-adds in the projections, 2LD in QKᵀ and AV.
"""

from __future__ import annotations

from timm.layers.attention import Attention
from torch import Tensor

from models.block import AdaLNZeroBlock
from models.spec import ModelSpec
from models.video import VideoBlock


class DiTBlock(AdaLNZeroBlock):
    """adaLN-Zero around attention and MLP. `attn.fused_attn` chooses SDPA (default) or materialised scores."""

    def __init__(self, spec: ModelSpec, tokens: int) -> None:
        super().__init__(spec, tokens)
        self.attn = self.new_mixer(spec, tokens)

    @staticmethod
    def new_mixer(spec: ModelSpec, tokens: int) -> Attention:
        """Multi-head self-attention over (B, L, D), of any length."""
        return Attention(spec.width, num_heads=spec.heads, qkv_bias=True)

    def mix(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.attn(x)
        return mixed

    def set_implementation(self, name: str) -> None:
        for module in self.modules():
            if isinstance(module, Attention):
                module.fused_attn = name == "sdpa"  # type: ignore[misc]  # declared final, for TorchScript


class DiTVideoBlock(VideoBlock, DiTBlock):
    """Attention over space or time; in the alternating arrangement, Latte's block."""
