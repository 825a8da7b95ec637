"""DiT in the reference arrangement, of timm's parts, with the parameter names of the official weights: a yardstick."""

import torch
from timm.layers import Attention, Mlp, PatchEmbed
from torch import nn

from models.layers import FinalLayer, LabelEmbedder, TimestepEmbedder, modulate, sincos_2d


class ReferenceBlock(nn.Module):
    """A DiT block in the reference arrangement: timm's attention and MLP between affine-free norms, one adaLN."""

    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(width, num_heads=heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(width, 4 * width, act_layer=lambda: nn.GELU(approximate="tanh"))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x, c):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + gate1.unsqueeze(1) * self.attn(modulate(self.norm1(x), shift1, scale1))
        return x + gate2.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift2, scale2))


class ReferenceDiT(nn.Module):
    def __init__(self, spec, resolution):
        super().__init__()
        grid = spec.grid(resolution)
        self.patch, self.grid = spec.patch, grid
        self.x_embedder = PatchEmbed(grid * spec.patch, spec.patch, spec.channels, spec.width)
        self.t_embedder = TimestepEmbedder(spec.width)
        self.y_embedder = LabelEmbedder(spec.num_classes, spec.width, 0.1)
        self.pos_embed = nn.Parameter(sincos_2d(grid, grid, spec.width), requires_grad=False)
        self.blocks = nn.ModuleList([ReferenceBlock(spec.width, spec.heads) for _ in range(spec.depth)])
        self.final_layer = FinalLayer(spec)

    def forward(self, x, t, y):
        x = self.x_embedder(x) + self.pos_embed
        c = self.t_embedder(t) + self.y_embedder(y)
        for block in self.blocks:
            x = block(x, c)
        x = self.final_layer(x, c).unflatten(1, (self.grid, self.grid)).unflatten(-1, (self.patch, self.patch, -1))
        return torch.einsum("bhwpqc->bchpwq", x).reshape(len(x), -1, self.grid * self.patch, self.grid * self.patch)
