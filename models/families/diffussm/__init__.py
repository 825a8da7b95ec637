"""DiffuSSM (Yan et al., arXiv 2311.18257, CVPR 2024): bidirectional S4D at full length inside an hourglass, no patches.

There is no public code. The paper's equations, for positions l = 1 … L and rows j of M positions each:

    U_l = σ(W↑_m σ(W⁰ I_j))          Y = bidirectional S4D(U), of 2D channels
    I'_j = concat_m σ(W↓_m Y_l)      O_j = W³(σ(W² I'_j) ∘ σ(W¹ I_j))

fix the linear layers: 13 (L/M) D² + L D² multiply-adds a block, as it prints, and (13 + M) D² weights. XL has 29 blocks
of D = 1152 with M = 2, and 673 M parameters. What it leaves open is chosen here:

- rows: I and O have L/M rows, so the residual stream has; a row is M neighbouring positions of a line of the latent,
  which enter by one linear layer and leave by one, as a patch does. `patch` is 1, `group` M.
- condition: DiT's embeddings, then an adaLN of shift and scale before each block; one of three chunks (or six) would
  come to 712 M (827 M), so there is no gate.
- residual and norm: I is the normalised, modulated stream, and O is added to the stream, as DiT's sublayers are. W³
  begins at zero in place of the gate, so that a new block is the identity.
- S4D: 64 real states a channel, as 32 pairs, decays and step sizes as in S4D-Lin (Gu et al., arXiv 2206.11893), B and C
  both trained; each direction has its own. With B fixed to ones it would be 669 M.
- σ: GELU, DiT's; linear layers have biases; positions are DiT's fixed table.

So read, XL has 673.09 M parameters. Sizes below it have one block more than DiT, as XL has.
Letters: B batch, J rows, R = B·J, M rows' positions, T = R·M, D width, P = state/2 complex states of a channel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from models.families.family import Family, Implementations, Kernel
from models.operations import Op, elementwise, linear, repeat

if TYPE_CHECKING:
    from models.block import Block
    from models.spec import ModelSpec

DIRECTIONS = 2

RECURRENCE_MACS = 6
"""Multiplications for each token, channel and complex state: four of the decay, two of the output's real part. The FFT
by which it is evaluated costs less, how much depends on its algorithm; the paper writes α 2 L log L D."""


def operations(spec: ModelSpec, axes: tuple[str, ...], B: int, J: int) -> list[Op]:
    """The closed form of one block over J rows of the residual stream."""
    D, M, R = spec.width, spec.group, B * J
    block, T = "blocks.*", R * M
    down = linear(f"{block}.down.*", R, 2 * D, 2 * D // M)
    return [
        elementwise("activation", B * D, f"{block}.adaLN_modulation.*"),
        linear(f"{block}.adaLN_modulation.*", B, D, 2 * D),
        elementwise("norm", R * D, f"{block}.norm", via="module"),
        elementwise("gate", B * D + 2 * R * D, block),  # modulate
        linear(f"{block}.w0", R, D, D),
        linear(f"{block}.up", R, D, M * D),
        *(repeat(op, DIRECTIONS) for op in s4d(spec, T, f"{block}.ssm.*")),
        repeat(down, M),
        linear(f"{block}.w1", R, D, 2 * D),
        linear(f"{block}.w2", R, 2 * D, 2 * D),
        elementwise("activation", R * D + T * D + 3 * R * 2 * D, block),
        elementwise("gate", R * 2 * D + R * D, block),  # product of the branches, residual
        linear(f"{block}.w3", R, 2 * D, D),
    ]


def s4d(spec: ModelSpec, T: int, where: str) -> list[Op]:
    """One direction over T tokens."""
    D, P = spec.width, spec.state // 2
    return [
        elementwise("activation", D + 2 * D * P, where),  # step size; real part of A; exp(w)
        elementwise("gate", 6 * D * P, where),  # sign of A; its product with the step size; c
        Op("recurrence", RECURRENCE_MACS * T * D * P, D * P, where, via="kernel", params=D * (2 + 6 * P)),
        elementwise("gate", 2 * T * D, where),  # + D u
    ]


def _block() -> type[Block]:
    from models.families.diffussm.block import DiffuSSMBlock

    return DiffuSSMBlock


def _body(name: str) -> Callable[[], Callable[..., Any]]:
    def body() -> Callable[..., Any]:
        from models.families.diffussm import state_space

        found: Callable[..., Any] = getattr(state_space, name)
        return found

    return body


DIFFUSSM = Family(
    name="DiffuSSM",
    depths={
        # XL: Yan et al.; the others, a block more than DiT has as XL has, are of this project
        "": {"N": 4, "T": 7, "S": 13, "B": 13, "L": 25, "XL": 29},
        "matched": {"N": 2, "T": 5, "S": 12, "B": 12},
    },
    patches=(1, 2),
    fields={"group": 2, "state": 64},
    operations=operations,
    block=_block,
    implementations=Implementations(field="s4d", usual=("fft",), choices=lambda: ("fft", "recurrent")),
    kernels={
        "diagonal_state_space": Kernel(
            kind="recurrence", exponentials=lambda arguments: arguments[1].numel(), body=_body("forward_body")
        ),
        "diagonal_state_space_backward": Kernel(kind="recurrence", body=_body("backward_body")),
    },
    counterpart="DiT",
)
