"""The closed form of an adaLN-Zero block (models/block.py, `AdaLNZeroBlock`) around any mixer. Imports no torch.

Letters: B batch, F frames (1 of an image), L tokens of a frame, T = B·F·L, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from models.operations import Op, elementwise, linear

if TYPE_CHECKING:
    from models.spec import ModelSpec

Mixer = Callable[["ModelSpec", int, int, str], list[Op]]
"""The closed form of a mixer: (spec, number of sequences, tokens of each, module) to operations."""

Mlp = Callable[["ModelSpec", int, str], list[Op]]
"""The closed form of an MLP: (spec, number of tokens, module) to operations."""


def gelu_mlp(spec: ModelSpec, T: int, where: str) -> list[Op]:
    """DiT's: two linear layers around a GELU."""
    D, hidden = spec.width, spec.mlp_ratio * spec.width
    return [
        linear(f"{where}.fc1", T, D, hidden),
        elementwise("activation", T * hidden, f"{where}.act"),
        linear(f"{where}.fc2", T, hidden, D),
    ]


def adaln_zero(
    spec: ModelSpec, axes: tuple[str, ...], B: int, L: int, mixer: Mixer, module: str, mlp: Mlp = gelu_mlp
) -> list[Op]:
    """The operations of one block that mixes over those axes in turn, then applies its MLP.

    `module` is the mixer's name inside the block. Of two axes the second has a mixer of its own, `temporal`.
    """
    D = spec.width
    T = B * max(1, spec.frames) * L
    residual = elementwise("gate", 4 * T * D, "blocks.*")  # modulate, gate, residual
    scale = elementwise("gate", B * D, "blocks.*")  # 1 + scale
    ops = [
        elementwise("activation", B * D, "blocks.*.adaLN_modulation.*"),
        linear("blocks.*.adaLN_modulation.*", B, D, spec.modulations * D),
    ]
    for axis in axes:
        where = "blocks.*." + ("temporal" if axis == "time" and len(axes) > 1 else module)
        norm = elementwise("norm", T * D, "blocks.*.norm1", via="module")
        ops += [norm, *mixer(spec, *spec.sequences(axis, B, L), where), scale, residual]
    if spec.mlp:
        ops += [
            elementwise("norm", T * D, "blocks.*.norm2", via="module"),
            *mlp(spec, T, "blocks.*.mlp"),
            scale,
            residual,
        ]
    return ops
