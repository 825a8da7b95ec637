"""DiM (Mo & Tian, arXiv 2405.15881): a bidirectional Mamba-1, two selective scans, mixes the tokens.

Letters: B sequences, L tokens of each, T = B·L, D width, E = expand·D inner width, S state, K convolution,
R rank of the step size's projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from models.families.adaln_zero import adaln_zero
from models.families.family import Family, Implementations
from models.operations import Op, elementwise, linear, repeat

if TYPE_CHECKING:
    from models.block import Block
    from models.spec import ModelSpec
    from models.video import VideoBlock

DIRECTIONS = 2
SCAN_MACS = 4
"""Multiply-adds per state, channel, token and direction: the paper's own 3 + 1 (section 3.4: 3L(2D)N + L(2D)N)."""


def operations(spec: ModelSpec, axes: tuple[str, ...], B: int, L: int) -> list[Op]:
    """The closed form of one block."""
    return adaln_zero(spec, axes, B, L, bidirectional_mamba, "mixer")


def bidirectional_mamba(spec: ModelSpec, B: int, L: int, where: str) -> list[Op]:
    """The mixer over B sequences of L tokens.

    A token costs 6D² multiply-adds in the shared projections, 2E(K + 2R + 2S) in what each direction has of its own,
    8ES in the scans.
    """
    D, E, S, K, R, T = spec.width, spec.inner, spec.state, spec.conv, spec.dt_rank, B * L
    direction = [
        Op("conv", T * E * K, 0, where, via="function", params=E * K + E),
        elementwise("activation", T * E + E * S, where),  # SiLU; exp of A_log
        elementwise("gate", E * S, where),  # its sign
        linear(where, T, E, R + 2 * S, bias=False, via="function"),
        linear(where, T, R, E, via="function"),
        Op("scan", SCAN_MACS * T * E * S, T * E * S, where, via="kernel", params=E * S + E),  # A_log and D
    ]
    return [
        linear(where, T, D, 2 * E, bias=False, via="function"),
        *(repeat(op, DIRECTIONS) for op in direction),
        elementwise("gate", T * E * (2 if spec.merge == "mean" else 1), where),  # merge
        linear(where, T, E, D, bias=False, via="function"),
    ]


def _block() -> type[Block]:
    from models.families.dim.block import DiMBlock

    return DiMBlock


def _video_block() -> type[VideoBlock]:
    from models.families.dim.block import DiMVideoBlock

    return DiMVideoBlock


def _backends() -> Sequence[str]:
    from models.scan import available

    return ["auto", *available()]


def _backend_on(name: str, device: str) -> str:
    import torch

    from models.scan import resolve

    return resolve(name, device, torch.float32)


SCAN = Implementations(field="scan", usual=("auto",), choices=_backends, resolve=_backend_on)
"""The ways of running the selective scan, which families may share."""

DIM = Family(
    name="DiM",
    depths={
        # S to XL: Mo & Tian, Table 1; the others are of this project, in the same ratios to DiT's
        "": {"P": 4, "N": 4, "U": 8, "M": 9, "T": 8, "S": 16, "B": 16, "L": 32, "XL": 36},
        # the depth whose parameters are nearest to those of the DiT of that size
        "matched": {"P": 2, "N": 2, "U": 5, "M": 5, "T": 5, "S": 10, "B": 10, "L": 21, "XL": 24},
    },
    operations=operations,
    block=_block,
    video_block=_video_block,
    implementations=SCAN,
    recomputes=True,
    counterpart="DiT",
    fields={"merge": "mean"},
)
