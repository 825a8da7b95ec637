"""Closed-form counts from a ModelSpec alone, without torch, and the crossover that follows from them.

Letters: B batch, F frames (1 of an image), L tokens of a frame, T = B·F·L, D width, E = expand·D, S state,
K convolution, R rank of the timescale, p patch.
Elementwise work is what models/ computes with torch's own decompositions: one per result of an operator.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

from harness.cost.operations import Cost, Op
from models import ModelSpec

TIMESTEP_FREQUENCIES = 256
DIRECTIONS = 2
SCAN_MACS = 4
"""Multiply-adds per state, channel, token and direction: the paper's own 3 + 1 (section 3.4: 3L(2D)N + L(2D)N)."""


def analytic(spec: ModelSpec, resolution: int, batch: int = 1) -> Cost:
    """The exact cost of one forward pass over images or clips.

    Raises ValueError when the resolution does not divide into patches.
    """
    return at_tokens(spec, spec.tokens(resolution), batch)


def at_tokens(spec: ModelSpec, L: int, batch: int = 1) -> Cost:
    """The same for any number of tokens, square grid or not."""
    B, D, p = batch, spec.width, spec.patch
    T, half = B * max(1, spec.frames) * L, TIMESTEP_FREQUENCIES // 2
    kinds = Counter(spec.axes(i) for i in range(spec.depth))
    over_time = set(kinds) != {("space",)}
    ops = [
        Op("conv", T * D * spec.channels * p**2, 0, "x_embedder.proj", params=(spec.channels * p**2 + 1) * D),
        _elementwise("gate", T * D, ""),  # + position table
        _elementwise("gate", 2 * half + B * half, "t_embedder"),  # frequencies, and their products with t
        _elementwise("activation", half + 2 * B * half, "t_embedder"),  # exp; cos, sin
        _linear("t_embedder.mlp.*", B, TIMESTEP_FREQUENCIES, D),
        _elementwise("activation", B * D, "t_embedder.mlp.*"),
        _linear("t_embedder.mlp.*", B, D, D),
        Op("gate", 0, 0, "y_embedder.embedding_table", params=(spec.num_classes + 1) * D),
        _elementwise("gate", B * D, ""),  # timestep + label
        *([_elementwise("gate", T * D, "")] if over_time else []),  # + table of frame positions
        *(_repeat(op, blocks) for axes, blocks in kinds.items() for op in _block(spec, axes, B, L)),
        _elementwise("norm", T * D, "final_layer.norm_final", via="module"),
        _elementwise("activation", B * D, "final_layer.adaLN_modulation.*"),
        _linear("final_layer.adaLN_modulation.*", B, D, 2 * D),
        _elementwise("gate", B * D + 2 * T * D, "final_layer"),
        _linear("final_layer.linear", T, D, p**2 * spec.out_channels),
    ]
    return Cost(tuple(ops), params=sum(op.params for op in ops), method="analytic")


def _block(spec: ModelSpec, axes: tuple[str, ...], B: int, L: int) -> list[Op]:
    """A block that mixes over those axes in turn, the last with a mixer of its own where there are two."""
    D, F, hidden = spec.width, max(1, spec.frames), spec.mlp_ratio * spec.width
    T = B * F * L
    rows = {"space": (B * F, L), "time": (B * L, F), "spacetime": (B, F * L)}
    residual = _elementwise("gate", 4 * T * D, "blocks.*")  # modulate, gate, residual
    scale = _elementwise("gate", B * D, "blocks.*")  # 1 + scale
    ops = [
        _elementwise("activation", B * D, "blocks.*.adaLN_modulation.*"),
        _linear("blocks.*.adaLN_modulation.*", B, D, spec.modulations * D),
    ]
    for axis in axes:
        mixer, own = (_attention, "attn") if spec.family == "DiT" else (_mamba, "mixer")
        where = "blocks.*." + ("temporal" if axis == "time" and len(axes) > 1 else own)
        norm = _elementwise("norm", T * D, "blocks.*.norm1", via="module")
        ops += [norm, *mixer(spec, *rows[axis], where), scale, residual]
    if spec.mlp:
        ops += [
            _elementwise("norm", T * D, "blocks.*.norm2", via="module"),
            _linear("blocks.*.mlp.fc1", T, D, hidden),
            _elementwise("activation", T * hidden, "blocks.*.mlp.act"),
            _linear("blocks.*.mlp.fc2", T, hidden, D),
            scale,
            residual,
        ]
    return ops


def _attention(spec: ModelSpec, B: int, L: int, where: str) -> list[Op]:
    """B rows of L tokens."""
    D, T = spec.width, B * L
    return [
        _linear(f"{where}.qkv", T, D, 3 * D),
        _elementwise("gate", 2 * T * D, where),  # q and k, scaled by d^-1/4 each
        Op("attention", 2 * B * L * L * D, 0, where, via="kernel"),  # QKᵀ and AV
        _elementwise("activation", B * spec.heads * L * L, where),  # softmax
        _linear(f"{where}.proj", T, D, D),
    ]


def _mamba(spec: ModelSpec, B: int, L: int, where: str) -> list[Op]:
    """B rows of L tokens."""
    D, E, S, K, R, T = spec.width, spec.inner, spec.state, spec.conv, spec.dt_rank, B * L
    direction = [
        Op("conv", T * E * K, 0, where, via="function", params=E * K + E),
        _elementwise("activation", T * E + E * S, where),  # SiLU; exp of A_log
        _elementwise("gate", E * S, where),  # its sign
        _linear(where, T, E, R + 2 * S, bias=False, via="function"),
        _linear(where, T, R, E, via="function"),
        Op("scan", SCAN_MACS * T * E * S, T * E * S, where, via="kernel", params=E * S + E),  # A_log and D
    ]
    return [
        _linear(where, T, D, 2 * E, bias=False, via="function"),
        *(_repeat(op, DIRECTIONS) for op in direction),
        _elementwise("gate", T * E * (2 if spec.merge == "mean" else 1), where),  # merge
        _linear(where, T, E, D, bias=False, via="function"),
    ]


def _linear(where: str, rows: int, inputs: int, outputs: int, bias: bool = True, via: str = "module") -> Op:
    return Op("linear", rows * inputs * outputs, 0, where, via, params=(inputs + bias) * outputs)


def _elementwise(kind: str, results: int, where: str, via: str = "function") -> Op:
    return Op(kind, 0, results, where, via)


def _repeat(op: Op, times: int) -> Op:
    return dataclasses.replace(op, macs=times * op.macs, elementwise=times * op.elementwise, params=times * op.params)


def rivals(dim: ModelSpec, dit: ModelSpec) -> bool:
    """Whether these are a DiM and the DiT to hold it against: of its width, patch, frames and arrangement."""
    of_dim, of_dit = ((s.width, s.patch, s.frames, s.arrangement) for s in (dim, dit))
    return (dim.family, dit.family) == ("DiM", "DiT") and of_dim == of_dit


def crossover(cheap: ModelSpec, dear: ModelSpec, limit: int = 1 << 20) -> float | None:
    """The resolution in pixels at which the exact cost of `cheap` falls to that of `dear`; above it, it is lower.

    Both must share patch, downsample and frames. Returns None when they do not cross below `limit` tokens a side.
    The cost is a quadratic in L, a + b L + c L², fixed by three evaluations; the root is exact, not rounded to a grid.
    """
    if (cheap.patch, cheap.downsample, cheap.frames) != (dear.patch, dear.downsample, dear.frames):
        raise ValueError(f"{cheap.name} and {dear.name} cut images into different tokens: no common resolution")
    d1, d2, d3 = (at_tokens(dear, L).macs - at_tokens(cheap, L).macs for L in (1, 2, 3))
    c = (d3 - 2 * d2 + d1) / 2
    b = d2 - d1 - 3 * c
    a = d1 - b - c
    if c == 0:
        return None
    discriminant = b * b - 4 * a * c
    if discriminant < 0:
        return None
    tokens = (-b + discriminant**0.5) / (2 * c)
    if not 0 < tokens < limit**2:
        return None
    return tokens**0.5 * cheap.patch * cheap.downsample


def equal_macs_depth(spec: ModelSpec, target: ModelSpec, resolution: int) -> int:
    """The depth that brings `spec` nearest to the exact cost of `target` at a resolution."""
    goal = analytic(target, resolution).macs

    def distance(depth: int) -> int:
        return abs(analytic(dataclasses.replace(spec, depth=depth), resolution).macs - goal)

    one, three = (analytic(dataclasses.replace(spec, depth=n), resolution).macs for n in (1, 3))
    guess = max(1, round(2 * (goal - one) / (three - one)) + 1)  # blocks alternate, so that two are the step
    return min((depth for depth in (guess - 1, guess, guess + 1) if depth > 0), key=distance)
