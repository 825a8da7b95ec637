"""The networks: what the harness calls, whatever stands inside, and DiT's skeleton, which most families share.

Letters: B batch, L tokens, D width, p patch side, G patches of a token, C channels, H = W latent side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.block import Block
from models.families import named
from models.layers import FinalLayer, LabelEmbedder, TimestepEmbedder, sincos_2d, zero_linears
from models.spec import ModelSpec


class Denoiser(nn.Module):
    """Predicts the noise (and, with `learn_sigma`, the variance) in a latent, given timestep and class.

    Built for one square resolution in pixels. Raises ValueError when the resolution does not divide into patches.
    `activation_checkpointing` recomputes each block in the backward pass instead of keeping its activations.
    A skeleton is a subclass, with `forward` and modules of its own, among them the family's blocks.
    """

    forward: Callable[..., Any]
    """x (B, C, H, W), timesteps t (B,) in 0..999, labels y (B,) int64 to (B, 2C or C, H, W). In training labels are
    dropped at random, or where a fourth argument, (B,) bool, says so."""

    def __init__(self, spec: ModelSpec, block: type[Block], resolution: int = 256) -> None:
        super().__init__()
        self.grid = spec.grid(resolution)
        self.spec = spec
        self.resolution = resolution
        self.activation_checkpointing = False

    def every_block(self) -> Iterator[Block]:
        """The blocks, in the order in which they were added."""
        return (module for module in self.modules() if isinstance(module, Block))

    def set_implementation(self, name: str) -> None:
        """Run every block's mixers in that one of the family's implementations: other speed and memory, same function.

        Raises ValueError, with the choices, for an unknown name, and for a family that has one implementation only.
        """
        ways = named(self.spec.family).implementations
        if ways is None:
            raise ValueError(f"{self.spec.family} has one implementation only, not {name!r}")
        ways.check(name)
        for block in self.every_block():
            block.set_implementation(name)

    def keep_operands(self) -> None:
        """Keep for the backward what the mixers make again otherwise: more memory, a little less time.

        Raises ValueError for a family whose mixers make nothing again.
        """
        if not named(self.spec.family).recomputes:
            raise ValueError(f"{self.spec.family} recomputes no operands of its mixer")
        for block in self.every_block():
            block.keep_operands()

    @torch.no_grad()
    def store_weights(self, dtype: torch.dtype) -> None:
        """Store the weights of linear layers and convolutions in the dtype that autocast casts them to in every call.

        Outputs under autocast in that dtype are the same bit for bit. What autocast does not cast stays as it is, as
        embeddings and the state space, and so do biases.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
                module.weight = nn.Parameter(module.weight.to(dtype), module.weight.requires_grad)

    def run(self, block: nn.Module, *inputs: Tensor | None) -> Any:
        """One block, its activations kept or to be recomputed."""
        if self.activation_checkpointing and self.training:
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def unpatchify(self, x: Tensor) -> Tensor:
        """(B, L, p*G*p*C) to (B, C, H, W); within a token the channel runs fastest, then the column."""
        B, p, G, grid = x.shape[0], self.spec.patch, self.spec.group, self.grid
        x = x.reshape(B, grid, grid // G, p, G * p, -1)  # (B, h, w, p, G*p, C)
        x = x.permute(0, 5, 1, 3, 2, 4)                  # (B, C, h, p, w, G*p)
        return x.reshape(B, -1, grid * p, grid * p)      # (B, C, H, W)

    def forward_with_cfg(
        self, x: Tensor, t: Tensor, y: Tensor, cfg_scale: float, cfg_channels: int | None = None
    ) -> Tensor:
        """Classifier-free guidance in one batched forward: uncond + cfg_scale (cond - uncond).

        The batch is doubled, as in DiT: y (2B,) holds the labels, then the null class; of x (2B, ..., C, H, W) the
        first half is used, twice. Only the first `cfg_channels` noise channels are guided, never the variance. The
        default is the published one: three of an image latent's four (DiT's authors call it unintended and keep it),
        all of a clip's (Latte).
        """
        half = x[: len(x) // 2]
        out = self(torch.cat([half, half]), t, y)  # (2B, ..., 2C, H, W); the call, not `forward`, may be compiled
        guided = self.spec.cfg_channels if cfg_channels is None else min(cfg_channels, self.spec.channels)
        noise, rest = out.tensor_split([guided], dim=-3)
        cond, uncond = noise.chunk(2)                                # (B, ..., guided, H, W) each
        noise = uncond + cfg_scale * (cond - uncond)
        return torch.cat([torch.cat([noise, noise]), rest], dim=-3)  # (2B, ..., 2C, H, W)


class AdaLNDenoiser(Denoiser):
    """DiT's skeleton: embed, N blocks, final layer, unpatchify. Only the block differs between families.

    The closed form is `ADALN` (models/families/skeleton.py).
    """

    def __init__(self, spec: ModelSpec, block: type[Block], resolution: int = 256) -> None:
        super().__init__(spec, block, resolution)
        p, G, rows, columns = spec.patch, spec.group, self.grid, self.grid // spec.group
        patch: Any = (p, G * p)  # timm takes a pair, too
        self.x_embedder = PatchEmbed(rows * p, patch, spec.channels, spec.width)
        self.t_embedder = TimestepEmbedder(spec.width)
        self.y_embedder = LabelEmbedder(spec.num_classes, spec.width, spec.class_dropout)
        self.register_buffer("pos_embed", sincos_2d(rows, columns, spec.width))  # in the state dict, as DiT has it
        self.pos_embed: Tensor
        mixed = [spec.sequences(spec.axes(i)[0], 1, rows * columns)[1] for i in range(spec.depth)]
        self.blocks = nn.ModuleList([block(spec, tokens) for tokens in mixed])
        self.final_layer = FinalLayer(spec)
        if not self.pos_embed.is_meta:
            self.initialize_weights()

    @torch.no_grad()
    def initialize_weights(self) -> None:
        """DiT's initialisation; what a mixer has of its own (the state space) keeps the mixer's."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        patches = self.x_embedder.proj
        assert patches.bias is not None
        nn.init.xavier_uniform_(patches.weight.flatten(1))  # the patch embedding is a linear layer
        nn.init.zeros_(patches.bias)
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for module in self.t_embedder.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
        for block in self.every_block():
            block.initialize_weights()
        zero_linears(self.final_layer)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, drop_labels: Tensor | None = None) -> Tensor:
        c = self.t_embedder(t) + self.y_embedder(y, drop_labels)  # (B, D)
        return self.denoise(x, c, self.blocks)                    # (B, 2C, H, W)

    def denoise(self, x: Tensor, c: Tensor, blocks: Iterable[nn.Module]) -> Tensor:
        """x (B, C, H, W) under the condition c (B, D), by those blocks. Returns (B, 2C or C, H, W)."""
        # The embedded tokens (B, L, D) have no name here: it would keep them in memory while the blocks run.
        x = self.through(blocks, self.x_embedder(x) + self.pos_embed, c)  # (B, L, D)
        x = self.final_layer(x, c)                                        # (B, L, p*G*p*C)
        return self.unpatchify(x)                                         # (B, 2C, H, W)

    def through(self, blocks: Iterable[nn.Module], x: Tensor, c: Tensor) -> Tensor:
        """Tokens x (B, L, D) under the condition c (B, D), one block after the other."""
        for block in blocks:
            x = self.run(block, x, c)
        return x
