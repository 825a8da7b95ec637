"""What a count is made of: operations, and the Cost that sums them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

MAC_KINDS = ("linear", "conv", "attention", "scan")
"""Kinds with multiply-adds: products with weights, convolutions, QKᵀ and AV, the selective scan."""

ELEMENTWISE_KINDS = ("norm", "activation", "gate")
"""Kinds without: normalisations; SiLU, GELU, softmax, exp …; additions and multiplications of whole tensors."""

KINDS = MAC_KINDS + ELEMENTWISE_KINDS

Key = TypeVar("Key")


@dataclass(frozen=True)
class Op:
    """One line of arithmetic.

    `macs`: multiply-adds. `elementwise`: results of elementwise work, never part of `macs`. `where`: the module that
    runs it, block numbers replaced by `*`. `via`: how it is reached, which is what decides whether a counter sees it:
    "module" (a submodule is called), "function" (a function of tensors), "kernel" (one fused operator).
    `params`: parameters of the submodule behind it.
    """

    kind: str
    macs: int
    elementwise: int
    where: str
    via: str = "module"
    params: int = 0

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind


@dataclass(frozen=True)
class Cost:
    """A counted forward pass. `uncounted`: operators that do arithmetic and have no rule, with their calls."""

    ops: tuple[Op, ...]
    params: int
    method: str
    uncounted: dict[str, int] = field(default_factory=dict)

    @property
    def macs(self) -> int:
        return sum(op.macs for op in self.ops)

    @property
    def gmacs(self) -> float:
        return self.macs / 1e9

    @property
    def gflops(self) -> float:
        """Two operations a multiply-add."""
        return 2 * self.macs / 1e9

    @property
    def elementwise(self) -> int:
        return sum(op.elementwise for op in self.ops)

    def by_kind(self) -> dict[str, int]:
        """Multiply-adds of each kind that has them."""
        return {kind: n for kind, n in _sums(self.ops, lambda op: op.kind, "macs").items() if kind in MAC_KINDS}

    def elementwise_by_kind(self) -> dict[str, int]:
        """Elementwise results of each kind that has them."""
        return {kind: n for kind, n in _sums(self.ops, lambda op: op.kind, "elementwise").items() if n}

    def by_module(self) -> dict[tuple[str, str], int]:
        """Multiply-adds by (module, kind)."""
        sums = _sums(self.ops, lambda op: (op.where, op.kind), "macs")
        return {key: n for key, n in sums.items() if n}


def _sums(ops: tuple[Op, ...], key: Callable[[Op], Key], amount: str) -> dict[Key, int]:
    totals: dict[Key, int] = {}
    for op in ops:
        totals[key(op)] = totals.get(key(op), 0) + getattr(op, amount)
    return totals
