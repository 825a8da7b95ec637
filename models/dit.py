"""DiT's block (Peebles & Xie, arXiv 2212.09748): multi-head self-attention mixes the tokens.

Letters: B batch, L tokens, D width. Costs a token: 4D² multiply-adds in the projections, 2LD in QKᵀ and AV.
"""

from __future__ import annotations

from timm.layers import Attention
from torch import Tensor

from models.layers import AdaLNZeroBlock
from models.spec import ModelSpec


class DiTBlock(AdaLNZeroBlock):
    """adaLN-Zero around attention and MLP. `attn.fused_attn` chooses SDPA (default) or materialised scores."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.attn = attention(spec)

    def mix(self, x: Tensor) -> Tensor:
        return self.attn(x)


def attention(spec: ModelSpec) -> Attention:
    """Multi-head self-attention over (B, L, D)."""
    return Attention(spec.width, num_heads=spec.heads, qkv_bias=True)
