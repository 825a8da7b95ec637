"""DiG (Zhu et al., arXiv 2405.18428, CVPR 2025): gated linear attention in DiT's skeleton, scanned in four orders.

Shapes and names as in github.com/hustvl/DiG (its models "bid-layer-dwconv-qdir"). Letters: B sequences, L tokens of
each, T = B·L, D width, H heads, K = D/2H width of a key, V = D/H of a value, I inner width of the MLP.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from models.families.adaln_zero import adaln_zero
from models.families.family import Family, Implementations, Kernel
from models.families.skeleton import ADALN
from models.operations import Op, elementwise, linear
from models.sizes import SIZES, Size

if TYPE_CHECKING:
    from models.block import Block
    from models.denoiser import Denoiser
    from models.spec import ModelSpec

FORGET_RANK = 16
"""Of the projection to the forget gate, D to D/2."""

FORGET_SCALE = 1 / 16
"""Of the gate's logarithm: decays begin near one."""

RECURRENCE_MACS = 3
"""Multiplications for each token, head and value of its (K, V) state: k v, a S, S q. As of the selective scan, whose
fourth is the product of step size and decay."""


def inner_width(spec: ModelSpec) -> int:
    """I: two thirds of the MLP ratio times D, up to a multiple of 256."""
    return -(-int(spec.width * spec.mlp_ratio * 2 / 3) // 256) * 256


def operations(spec: ModelSpec, axes: tuple[str, ...], B: int, L: int) -> list[Op]:
    """The closed form of one block."""
    T, D = B * L, spec.width
    return [
        *adaln_zero(spec, axes, B, L, gated_linear_attention, "attn", swiglu),
        Op("conv", T * D * 9, 0, "blocks.*.dw_conv", params=10 * D),
    ]


def gated_linear_attention(spec: ModelSpec, B: int, L: int, where: str) -> list[Op]:
    """The mixer over B sequences of L tokens: a token costs 4D² + 24D in projections, 3D²/2H in the recurrence."""
    D, H, T = spec.width, spec.heads, B * L
    norm = f"{where}.g_norm_swish_gate"
    return [
        linear(f"{where}.q_proj", T, D, D // 2, bias=False),
        linear(f"{where}.k_proj", T, D, D // 2, bias=False),
        linear(f"{where}.v_proj", T, D, D, bias=False),
        linear(f"{where}.g_proj", T, D, D, bias=False),
        linear(f"{where}.gk_proj.*", T, D, FORGET_RANK, bias=False),
        linear(f"{where}.gk_proj.*", T, FORGET_RANK, D // 2),
        elementwise("gate", 3 * T * D // 2, where),  # -forget, its scale, that of q
        elementwise("activation", T * D // 2, where),  # softplus
        Op("recurrence", RECURRENCE_MACS * T * D // 2 * D // H, T * D // 2, where, via="kernel"),
        elementwise("activation", T * D + T * H, norm),  # square, inverse root
        Op("gate", 0, 3 * T * D + T * H, norm, via="function", params=D // H),  # mean, + eps, two products
        elementwise("activation", T * D, where),  # SiLU of the output gate
        elementwise("gate", T * D, where),
        linear(f"{where}.o_proj", T, D, D, bias=False),
    ]


def swiglu(spec: ModelSpec, T: int, where: str) -> list[Op]:
    """The MLP: a token costs 3 D I."""
    D, inner = spec.width, inner_width(spec)
    return [
        linear(f"{where}.gate_proj", T, D, 2 * inner, bias=False),
        elementwise("activation", T * inner, where),
        elementwise("gate", T * inner, where),
        linear(where, T, inner, D, bias=False, via="function"),
    ]


def _block() -> type[Block]:
    from models.families.dig.block import DiGBlock

    return DiGBlock


def _denoiser() -> type[Denoiser]:
    from models.families.dig.block import DiGDenoiser

    return DiGDenoiser


def _backends() -> Sequence[str]:
    from models.families.dig.recurrence import IMPLEMENTATIONS

    return ["auto", *IMPLEMENTATIONS]


def _backend_on(name: str, device: str) -> str:
    from models.families.dig.recurrence import resolve

    return resolve(name, device)


DIG = Family(
    name="DiG",
    depths={
        # S to XL: Zhu et al., within 1.6 % of DiT's parameters, and no other depth is nearer; N, T: of this project
        "": {"N": 3, "T": 6, "S": 12, "B": 12, "L": 24, "XL": 28},
        "matched": {"N": 2, "T": 5},
    },
    sizes=SIZES | {"XL": Size(1152, 18)},
    operations=operations,
    block=_block,
    skeleton=dataclasses.replace(ADALN, denoiser=_denoiser, video_denoiser=None),
    implementations=Implementations(field="gla", usual=("auto",), choices=_backends, resolve=_backend_on),
    kernels={"gated_linear_attention": Kernel(kind="recurrence", exponentials=lambda arguments: arguments[3].numel())},
    counterpart="DiT",
)
