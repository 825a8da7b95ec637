"""One line of arithmetic as a value, and its constructors: closed forms and traced counts consist of them. No torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

MAC_KINDS = ("linear", "conv", "attention", "scan", "recurrence")
"""Kinds with multiply-adds: products with weights, convolutions, QKᵀ and AV, the selective scan, other recurrences over
the tokens. A recurrence counts as many as it has multiplications, token by token, however it is evaluated."""

ELEMENTWISE_KINDS = ("norm", "activation", "gate")
"""Kinds without: normalisations; SiLU, GELU, softmax, exp …; additions and multiplications of whole tensors."""

KINDS = MAC_KINDS + ELEMENTWISE_KINDS


@dataclass(frozen=True)
class Op:
    """One line of arithmetic.

    `macs`: multiply-adds. `elementwise`: results of elementwise work, never part of `macs`. `where`: the module that
    runs it, block numbers replaced by `*`. `via`: how it is reached, which decides whether a counter sees it:
    "module" (a submodule is called), "function" (a function of tensors), "kernel" (one fused operator).
    `params`: parameters of the submodule behind it. Raises ValueError for an unknown kind.
    """

    kind: str
    macs: int
    elementwise: int
    where: str
    via: str = "module"
    params: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of operation {self.kind!r}; choose from {', '.join(KINDS)}")


def linear(where: str, rows: int, inputs: int, outputs: int, bias: bool = True, via: str = "module") -> Op:
    """A product of `rows` rows with a weight of (outputs, inputs)."""
    return Op("linear", rows * inputs * outputs, 0, where, via, params=(inputs + bias) * outputs)


def elementwise(kind: str, results: int, where: str, via: str = "function") -> Op:
    """An operator without multiply-adds that writes `results` numbers."""
    return Op(kind, 0, results, where, via)


def repeat(op: Op, times: int) -> Op:
    """The same operation so many times, each with parameters of its own."""
    return dataclasses.replace(op, macs=times * op.macs, elementwise=times * op.elementwise, params=times * op.params)
