"""Clips: a family's blocks over space and over time, in one skeleton (arXiv 2405.15881, section 3.5).

The arrangement "alternating" is Latte's (Ma et al., arXiv 2401.03048, variant 1): even blocks mix the tokens of a
frame, odd blocks the frames at a position. "both" mixes twice in every block, first over space, then over time, under
the same shift, scale and gate (its variant 3); "flat" mixes all tokens of all frames as one sequence.
The condition is evaluated once a sample and broadcast over its frames and positions; Latte repeats it for every row.

Letters: B batch, T frames of the clip, J joint images, L tokens of a frame, D width, p patch side, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.block import AdaLNZeroBlock
from models.denoiser import AdaLNDenoiser
from models.layers import sincos_1d
from models.spec import ModelSpec


class VideoBlock(AdaLNZeroBlock):
    """A family's block over the tokens of clips (B, T, L, D), or of images (B, L, D), which mix over space alone.

    `axes` are mixed in turn: "space", "time", or "spacetime" as one sequence. Stands before the family's block among
    the bases. Where there are two axes, time has a mixer of its own, `temporal`.
    """

    def __init__(self, spec: ModelSpec, tokens: int) -> None:
        super().__init__(spec, tokens)
        self.axes: Sequence[str] = ("space",)
        if spec.arrangement == "both":
            self.temporal = self.new_mixer(spec, spec.frames)

    def mixes(self, x: Tensor) -> Sequence[Callable[[Tensor], Tensor]]:
        if x.dim() == 3:
            return (self.mix,)
        return [getattr(self, f"over_{axis}") for axis in self.axes]

    def over_space(self, x: Tensor) -> Tensor:
        return self.mix(x.flatten(0, 1)).view(x.shape)  # rows (B*T, L, D)

    def over_time(self, x: Tensor) -> Tensor:
        B, T, L, D = x.shape
        mix = self.temporal if len(self.axes) > 1 else self.mix
        x = mix(x.transpose(1, 2).contiguous().view(B * L, T, D))  # rows (B*L, T, D)
        return x.view(B, L, T, D).transpose(1, 2)                  # (B, T, L, D)

    def over_spacetime(self, x: Tensor) -> Tensor:
        return self.mix(x.flatten(1, 2)).view(x.shape)  # rows (B, T*L, D)


class VideoDenoiser(AdaLNDenoiser):
    """Predicts the noise (and the variance) in a clip's latents, given timestep and class.

    Its state dict is the image model's and the table of frame positions, `temp_embed`: of DiT, Latte's.
    """

    def __init__(self, spec: ModelSpec, block: type[VideoBlock], resolution: int = 256) -> None:
        super().__init__(spec, block, resolution)
        frames = sincos_1d(torch.arange(spec.frames), spec.width).float()
        self.register_buffer("temp_embed", frames.unsqueeze(0))  # in the state dict, as Latte has it
        self.temp_embed: Tensor
        for i, video_block in enumerate(self.video_blocks):
            video_block.axes = spec.axes(i)

    @property
    def video_blocks(self) -> list[VideoBlock]:
        return [block for block in self.blocks if isinstance(block, VideoBlock)]

    def forward(self, x: Tensor, t: Tensor, y: Tensor, drop_labels: Tensor | None = None) -> Tensor:
        """x (B, T, C, H, W); timesteps t (B,) in 0..999; labels y (B,) int64. Returns (B, T, 2C or C, H, W).

        Joint images follow the clip on the frame axis: x (B, T+J, C, H, W), with y (B, 1+J) of the clip and of each
        image. They share its timestep and the blocks over space; those over time they pass by.
        In training labels are dropped at random, or where `drop_labels`, of y's shape, says so.
        Raises ValueError for another number of frames.
        """
        if y.dim() == 1:
            y, drop_labels = y[:, None], None if drop_labels is None else drop_labels[:, None]
        T, J = self.spec.frames, y.shape[1] - 1
        if x.shape[1] != T + J:
            raise ValueError(f"{x.shape[1]} frames for a clip of {T} and {J} joint images")
        c = self.t_embedder(t)[:, None] + self.y_embedder(y, drop_labels)  # (B, 1+J, D)
        out = self.denoise_clip(x[:, :T], c[:, :1])                        # (B, T, 2C, H, W)
        if J:
            blocks = [block for block in self.video_blocks if "time" not in block.axes[:1]]
            images = self.denoise(x[:, T:].flatten(0, 1), c[:, 1:].flatten(0, 1), blocks)
            images = torch.unflatten(images, 0, (-1, J))                   # (B, J, 2C, H, W)
            out = torch.cat([out, images], dim=1)                          # (B, T+J, 2C, H, W)
        return out

    def denoise_clip(self, x: Tensor, c: Tensor) -> Tensor:
        """x (B, T, C, H, W) under the condition c (B, 1, D). Returns (B, T, 2C or C, H, W)."""
        B, T = x.shape[:2]
        x = self.x_embedder(x.flatten(0, 1)) + self.pos_embed         # (B*T, L, D)
        x = torch.unflatten(x, 0, (B, T))                             # (B, T, L, D)
        first = 1 if self.spec.arrangement == "alternating" else 0  # the first block to mix over time
        for i, block in enumerate(self.blocks):
            if i == first:
                x = x + self.temp_embed.unsqueeze(2)                  # (B, T, L, D)
            x = self.run(block, x, c)                                 # (B, T, L, D)
        x = self.final_layer(x, c)                                    # (B, T, L, p*p*C)
        x = self.unpatchify(x.flatten(0, 1))                          # (B*T, 2C, H, W)
        return torch.unflatten(x, 0, (B, T))                          # (B, T, 2C, H, W)
