"""What different tools and papers call the cost of the same forward pass: counting rules as values.

A convention maps each operation to an amount in its own unit. For those that follow a tool, the tool itself is run too
(harness.cost.tools), and the two must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.cost.operations import Cost
from models.operations import Op

THOP_NORM_OPS = 2
"""thop counts two operations an element for a normalisation without weights, inside what it calls MACs."""

FVCORE_NORM_OPS = 4
"""fvcore counts four, inside what it calls flops (one a multiply-add)."""

SCAN_FLOPS = 9
"""FLOPs per state, channel and token of a scan in state-spaces/mamba issue 110: another rule than 2 x (3 + 1)."""


@dataclass(frozen=True)
class Convention:
    """A counting rule. `amount` is what it makes of one operation, in `unit`; `batch` is fixed where the rule fixes it.

    `tool` names the program whose rule it is, and which `harness.cost.tools.run` can run.
    """

    name: str
    unit: str
    counts: str
    amount: Callable[[Op], int]
    tool: str | None = None
    batch: int | None = None

    def total(self, cost: Cost) -> int:
        """The cost, in this convention's unit."""
        return sum(self.amount(op) for op in cost.ops)

    def omitted(self, cost: Cost) -> dict[str, float]:
        """What has multiply-adds and is not counted: its share of all of them, by kind and module."""
        left_out: dict[str, float] = {}
        for op in cost.ops:
            if op.macs and not self.amount(op):
                name = f"{op.kind} in {op.where}"
                left_out[name] = left_out.get(name, 0) + op.macs / cost.macs
        return left_out


def _thop(op: Op) -> int:
    if op.via != "module":
        return 0
    return THOP_NORM_OPS * op.elementwise if op.kind == "norm" else op.macs


def thop_params(cost: Cost) -> int:
    """Parameters as thop counts them: those of the Linear and Conv modules that are called, and of nothing else."""
    return sum(op.params for op in cost.ops if op.via == "module" and op.kind in ("linear", "conv"))


def _fvcore(op: Op) -> int:
    if op.kind in ("attention", "scan", "recurrence"):
        return 0
    return FVCORE_NORM_OPS * op.elementwise if op.kind == "norm" else op.macs


def _nine(op: Op) -> int:
    return SCAN_FLOPS * op.elementwise if op.kind == "scan" else 2 * op.macs


CONVENTIONS = {
    c.name: c
    for c in (
        Convention(
            "exact",
            "MAC",
            "every multiply-add: linear, conv, QKᵀ and AV, scan (3 + 1), recurrence",
            lambda op: op.macs,
        ),
        Convention("flops", "FLOP", "two for each multiply-add of exact", lambda op: 2 * op.macs),
        Convention("flops-scan9", "FLOP", "flops, but nine for each state, channel and token of a scan", _nine),
        Convention(
            "thop",
            "MAC",
            "Linear and Conv modules that are called; 2 (4 with weights) an element of a norm",
            _thop,
            "thop",
        ),
        Convention(
            "fvcore",
            "MAC",
            "linear, conv, matmul operators; 4 (5 with weights) an element of a norm",
            _fvcore,
            "fvcore",
        ),
        Convention(
            "torch",
            "FLOP",
            "operators with a FLOP formula; models.scan registers one for the scan, mamba_ssm has none",
            lambda op: 2 * op.macs,
            "torch",
        ),
        Convention("paper", "MAC", "thop's figure for a batch of three, printed as Gflops", _thop, "thop", batch=3),
    )
}


NAMES = (*CONVENTIONS, "formula")
"""What a user may name: the conventions, and the paper's expressions, which are no count of a model."""


def conventions_of(names: Sequence[str] | None = None) -> list[Convention]:
    """The conventions of these names, or all; `exact` is always among them. Raises ValueError for an unknown name."""
    for name in names or ():
        if name not in NAMES:
            raise ValueError(f"unknown convention {name!r}; choose from {', '.join(NAMES)}")
    return [found for name, found in CONVENTIONS.items() if not names or name in names or name == "exact"]


EXECUTING = ("fvcore",)
"""Tools that compute the model on real tensors; the others see it on the meta device."""


def executing(conventions: Sequence[Convention]) -> bool:
    """Whether the tool of any of them computes the model."""
    return any(convention.tool in EXECUTING for convention in conventions)


def conventions_of_module(names: Sequence[str] | None = None) -> list[Convention]:
    """Those for a module on given inputs: of these names, or all that neither compute it nor fix the batch.

    Raises ValueError for an unknown name, and for a convention that fixes the batch.
    """
    chosen = conventions_of(names)
    if not names:
        return [c for c in chosen if not c.batch and c.tool not in EXECUTING]
    for convention in chosen:
        if convention.batch:
            raise ValueError(
                f"the {convention.name} convention fixes a batch, which your inputs already have: choose thop"
            )
    return chosen


@dataclass(frozen=True)
class Formula:
    """An expression of section 3.4 of the paper, for one block and one sample, and what to know of it."""

    name: str
    expression: str
    multiply_adds: Callable[[int, int, int], float]  # of L, D, S
    remark: str


FORMULAS = (
    Formula(
        "DiT", "4LD² + 2L²D", lambda L, D, S: 4 * L * D**2 + 2 * L**2 * D, "leaves out the MLP (8LD²) and adaLN (6D²)"
    ),
    Formula("DiffuSSM", "7.5LD²", lambda L, D, S: 7.5 * L * D**2, "as printed; leaves out the state space and adaLN"),
    Formula(
        "DiM",
        "3L(2D)N + L(2D)N = 8NLD",
        lambda L, D, S: 8 * S * L * D,
        "leaves out the second direction (8NLD), the mixer's projections and convolutions (6LD² + 4LD(2R + 2N + K)), "
        "the MLP (8LD²) and adaLN (6D²); N is the state, 16",
    ),
)
