"""LightningDiT-XL/1: DiT with SwiGLU, RMSNorm and rotary positions, on latents of 32 channels (Yao et al., 2501.01423).

As github.com/hustvl/LightningDiT makes it by its configuration `lightningdit_xl_vavae_f16d32`.

Letters: L tokens, T = B·L, D width, N blocks, I inner width of the SwiGLU.
"""

from __future__ import annotations

from harness.cost.observatory.outlines.pieces import product
from models.operations import Op, linear, repeat
from models.spec import TIMESTEP_FREQUENCIES

BLOCKS, WIDTH, INNER, CHANNELS, DOWNSAMPLE = 28, 1152, 3072, 32, 16


def operations(pixels: int, batch: int) -> tuple[list[Op], dict[str, int]]:
    """Operations, with the products of tensors that torchprofile counts where attention is two products."""
    N, D, L, B = BLOCKS, WIDTH, (pixels // DOWNSAMPLE) ** 2, batch
    T, block = B * L, "blocks.*"
    ops = [
        linear(f"{block}.adaLN_modulation.*", B, D, 6 * D),
        linear(f"{block}.attn.qkv", T, D, 3 * D),
        Op("attention", 2 * T * L * D, 0, f"{block}.attn", via="function"),
        linear(f"{block}.attn.proj", T, D, D),
        linear(f"{block}.mlp.w12", T, D, 2 * INNER),
        linear(f"{block}.mlp.w3", T, INNER, D),
        product(f"{block}.norm", 4 * T * D + 2 * T),  # by the root, by the weights, twice; two means
        product(block, 4 * T * D),  # modulations and gates
        product(f"{block}.attn", 5 * T * D),  # rotations of q and k by two tables, scale of q
        product(f"{block}.mlp", T * INNER),
    ]
    around = [
        Op("conv", T * D * CHANNELS, 0, "x_embedder.proj", params=(CHANNELS + 1) * D),
        linear("t_embedder.mlp.*", B, TIMESTEP_FREQUENCIES, D),
        linear("t_embedder.mlp.*", B, D, D),
        product("t_embedder", (B + 1) * TIMESTEP_FREQUENCIES // 2),
        linear("final_layer.adaLN_modulation.*", B, D, 2 * D),
        product("final_layer", 3 * T * D + T),
        linear("final_layer.linear", T, D, CHANNELS),
        product("unpatchify", T * CHANNELS),
    ]
    return [*around, *(repeat(op, N) for op in ops)], {"N": N, "L": L, "D": D, "S": 0}
