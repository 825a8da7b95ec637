"""The block: what a family gives to the skeleton, and the adaLN-Zero block that most families put their mixer into.

Letters: B batch, L tokens, D width; ... leading dimensions, a condition's broadcast to x's.
Module and parameter names are DiT's (Peebles & Xie, arXiv 2212.09748), so that its checkpoints load as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from timm.layers.activations import GELUTanh
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from models.layers import LAYER_NORM_EPS, modulate, zero_linears
from models.spec import ModelSpec


class Block(nn.Module):
    """One of the blocks between the embeddings and the final layer: tokens (B, L, D) to tokens, in the skeleton's way.

    `tokens` is the length of the sequences that it mixes, which a mixer with parameters along the sequence needs.
    """

    def __init__(self, spec: ModelSpec, tokens: int) -> None:
        super().__init__()

    def initialize_weights(self) -> None:
        """Called after the skeleton's initialisation (xavier): set here what a family initialises in its own way."""

    def set_implementation(self, name: str) -> None:
        """Run the mixers in that one of the family's implementations, if it states any."""
        raise NotImplementedError

    def keep_operands(self) -> None:
        """Keep for the backward what the mixers make again otherwise, of a family that `recomputes`."""
        raise NotImplementedError

    forward: Callable[..., Any]
    """In DiT's skeleton: x (..., L, D) and the condition c (..., D), one row for each sample or for whatever shares it,
    to x."""


class AdaLNZeroBlock(Block):
    """A residual block under adaLN-Zero: a token mixer, then an MLP. A family is this block with its own `mix`.

    The condition gives shift, scale and gate for each sublayer; gates start at zero, so a new block is the identity.
    Its closed form is `adaln_zero` (models/families/adaln_zero.py).
    """

    def __init__(self, spec: ModelSpec, tokens: int) -> None:
        super().__init__(spec, tokens)
        width = spec.width
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS, elementwise_affine=False)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, spec.modulations * width))
        self.mlp: nn.Module | None = None
        if spec.mlp:
            self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS, elementwise_affine=False)
            self.mlp = self.new_mlp(spec)

    @staticmethod
    def new_mixer(spec: ModelSpec, tokens: int) -> nn.Module:
        """The family's mixer of sequences (B, tokens, D)."""
        raise NotImplementedError

    @staticmethod
    def new_mlp(spec: ModelSpec) -> nn.Module:
        """DiT's MLP of a token (..., D); another one comes with its closed form (`adaln_zero`'s `mlp`)."""
        return Mlp(spec.width, spec.mlp_ratio * spec.width, act_layer=GELUTanh)

    def mix(self, x: Tensor) -> Tensor:
        """Exchange information between tokens: (B, L, D) to (B, L, D)."""
        raise NotImplementedError

    def mixes(self, x: Tensor) -> Sequence[Callable[[Tensor], Tensor]]:
        """The mixings that x goes through in turn, each a residual under the same shift, scale and gate."""
        return (self.mix,)

    def initialize_weights(self) -> None:
        """Close the gates. A mixer with an initialisation of its own restores it in an override of this."""
        zero_linears(self.adaLN_modulation)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        modulation = self.adaLN_modulation(c).chunk(6 if self.mlp is not None else 3, dim=-1)
        shift, scale, gate = modulation[:3]                                               # (..., D) each
        for mix in self.mixes(x):
            x = x + gate.unsqueeze(-2) * mix(modulate(self.norm1(x), shift, scale))       # (..., L, D)
        if self.mlp is not None:
            shift, scale, gate = modulation[3:]                                           # (..., D) each
            x = x + gate.unsqueeze(-2) * self.mlp(modulate(self.norm2(x), shift, scale))  # (..., L, D)
        return x
