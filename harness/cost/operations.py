"""What a count is made of: the Cost that sums operations, and how two counts of one model differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from models.operations import MAC_KINDS, Op

Key = TypeVar("Key")


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


def differences(one: Cost, other: Cost) -> list[str]:
    """Where two counts of one model differ, a line each: which operation of which module, both amounts, by how much.

    Multiply-adds and elementwise results are compared by module and kind, parameters in all. An operator that a count
    names as uncounted is a difference, too.
    """
    pairs = []
    for amount, unit in (("macs", "multiply-adds"), ("elementwise", "elementwise results")):
        sides = [_sums(cost.ops, lambda op: (op.where, op.kind), amount) for cost in (one, other)]
        for where, kind in dict.fromkeys([*sides[0], *sides[1]]):
            n, m = (side.get((where, kind), 0) for side in sides)
            pairs.append((f"{unit} of {kind} in {where or 'no module'}", n, m))
    pairs.append(("parameters", one.params, other.params))
    lines = [f"{what}: {n:,} {one.method}, {m:,} {other.method} ({m - n:+,})" for what, n, m in pairs if n != m]
    uncounted = one.uncounted | other.uncounted
    return lines + [f"{operator}: no rule counts it ({calls} calls)" for operator, calls in uncounted.items()]


def _sums(ops: Iterable[Op], key: Callable[[Op], Key], amount: str) -> dict[Key, int]:
    totals: dict[Key, int] = {}
    for op in ops:
        totals[key(op)] = totals.get(key(op), 0) + getattr(op, amount)
    return totals
