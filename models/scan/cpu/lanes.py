"""Vector arithmetic for compiled kernels: sixteen channels at a time, written as arithmetic, emitted as LLVM.

Numba vectorises a loop where it can prove that nothing aliases. The scan's inner loop, whose states must stay in
registers from token to token, is beyond that. Here `Lanes` is a vector whose operators append instructions, `routine`
makes the function that emits them callable from compiled code, and `pointwise` turns plain arithmetic into a loop over
rows. A row is an address of sixteen float32; rows follow each other at a pitch in bytes, negative where time runs
backwards, 0 where every step meets the same row. No fast-math flag but `contract` (a multiply and an add may fuse), so
that NaN and infinity stay what they are and nothing is reordered.
"""

# mypy: allow-untyped-calls
# numba.core.cgutils has no annotations.

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16  # float32 in a 512-bit register; LLVM splits the vector where registers are narrower
ROW_BYTES = 4 * LANES
CHUNK = 16  # tokens that are read, scanned and written before the next: one state is kept for so many

Addresses = list[tuple[ir.Value, ir.Value]]  # with their pitches

_FLOAT, _INT32, _INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR, _INTEGERS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT32, LANES)

# 2^f for |f| <= 1/2, relative error 1.1e-7, lowest power first. The first two coefficients are pinned to 1 and ln 2: a
# free fit has the smaller worst error (7.5e-8), but a bias at f = 0, where the decay of a slow state lies, which
# compounds over all that the state remembers (1e-5 in dA after 4096 tokens).
EXP2 = (1.0, 0.6931471824645996, 0.24022282660007477, 0.05550558492541313, 0.009669691324234009, 0.001330060651525855)
# log(1 + t) / t for 0 <= t <= 1, relative error 5.1e-8, lowest power first.
LOG1P = (
    *(1.0, -0.49999648332595825, 0.3332132399082184, -0.24857163429260254, 0.1915365308523178),
    *(-0.13753798604011536, 0.0792044997215271, -0.03006576932966709, 0.005364818498492241),
)
LOG2_E, LN_2 = 1.4426950408889634, 0.6931471805599453
_ROUND = 1.5 * 2.0**23  # added to a float32, leaves the nearest integer in the low bits of its mantissa


def integer(number: int) -> ir.Constant:
    return ir.Constant(_INT64, number)


class Lanes:
    """A vector of LANES float32, while its code is being emitted."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder, self.value = builder, value

    @classmethod
    def zero(cls, builder: ir.IRBuilder) -> "Lanes":
        return cls(builder, ir.Constant(_VECTOR, None))

    def __add__(self, other: "Lanes | float") -> "Lanes":
        return self._emit("fadd", other, "contract")

    def __sub__(self, other: "Lanes | float") -> "Lanes":
        return self._emit("fsub", other, "contract")

    def __mul__(self, other: "Lanes | float") -> "Lanes":
        return self._emit("fmul", other, "contract")

    def __truediv__(self, other: "Lanes | float") -> "Lanes":
        return self._emit("fdiv", other)

    def nearest_integer(self) -> tuple["Lanes", ir.Value]:
        """As floats, and in the low bits of integers. None of these additions may fuse or be reordered."""
        shifted = self._emit("fadd", _ROUND)
        return shifted._emit("fsub", _ROUND), shifted.bits()

    def where(self, comparison: str, bound: float, yes: "Lanes | float", no: "Lanes | float") -> "Lanes":
        """Lane by lane, `yes` where self compares so with bound, else `no`; NaN compares with nothing."""
        test = self.builder.fcmp_ordered(comparison, self.value, self._operand(bound))
        return Lanes(self.builder, self.builder.select(test, self._operand(yes), self._operand(no)))

    def bits(self) -> ir.Value:
        return self.builder.bitcast(self.value, _INTEGERS)

    def _operand(self, other: "Lanes | float") -> ir.Value:
        if isinstance(other, Lanes):
            return other.value
        return ir.Constant(_VECTOR, [ir.Constant(_FLOAT, float(np.float32(other)))] * LANES)

    def _emit(self, operation: str, other: "Lanes | float", *flags: str) -> "Lanes":
        return Lanes(self.builder, getattr(self.builder, operation)(self.value, self._operand(other), flags=flags))


def polynomial(x: Lanes, coefficients: Sequence[float]) -> Lanes:
    """Horner's rule; coefficients from the lowest power up."""
    *rest, second, first = coefficients
    result = x * first + second
    for coefficient in reversed(rest):
        result = result * x + coefficient
    return result


def exp2(x: Lanes) -> Lanes:
    """2^x: infinity from 128 on, the smallest normal number (1.2e-38) below -126, NaN for NaN."""
    x = x.where("<", -126.0, -126.0, x)
    x = x.where(">", 128.0, 128.0, x)
    whole, bits = x.nearest_integer()
    exponent = x.builder.shl(bits, ir.Constant(_INTEGERS, [23] * LANES))
    scaled = x.builder.add(polynomial(x - whole, EXP2).bits(), exponent)
    return Lanes(x.builder, x.builder.bitcast(scaled, _VECTOR))


def _exp_minus_abs(x: Lanes) -> Lanes:
    return exp2(x.where("<", 0.0, x, x * -1.0) * LOG2_E)


def softplus(x: Lanes) -> Lanes:
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)."""
    t = _exp_minus_abs(x)
    return polynomial(t, LOG1P) * t + x.where(">", 0.0, x, 0.0)


def sigmoid(x: Lanes) -> Lanes:
    """1 / (1 + e^-x)."""
    t = _exp_minus_abs(x)
    return x.where("<", 0.0, t, 1.0) / (t + 1.0)


def sum_each(rows: Sequence[Lanes]) -> Lanes:
    """The sums over the lanes of LANES or fewer rows (a power of two of them), in the first lanes of the result."""
    builder, sums, lanes_each = rows[0].builder, list(rows), LANES

    def add_neighbours(left: Lanes, right: Lanes) -> Lanes:
        """Sums of neighbouring lanes, those of left before those of right."""
        even, odd = (
            builder.shuffle_vector(left.value, right.value, ir.Constant(_INTEGERS, list(range(first, 2 * LANES, 2))))
            for first in (0, 1)
        )
        return Lanes(builder, even) + Lanes(builder, odd)

    while lanes_each > 1:
        others = sums if len(sums) == 1 else sums[1::2]
        sums = [add_neighbours(left, right) for left, right in zip(sums[0::2], others, strict=True)]
        lanes_each //= 2
    return sums[0]


class Rows:
    """Rows of lanes that follow each other from an address on."""

    def __init__(self, builder: ir.IRBuilder, address: ir.Value) -> None:
        self.builder, self.address = builder, address

    def __getitem__(self, index: ir.Value | int) -> Lanes:
        return load(self.builder, self._at(index))

    def __setitem__(self, index: ir.Value | int, row: Lanes) -> None:
        store(row, self._at(index))

    def _at(self, index: ir.Value | int) -> ir.Value:
        number = integer(index) if isinstance(index, int) else index
        return self.builder.add(self.address, self.builder.mul(number, integer(ROW_BYTES)))


class Register:
    """A vector that lives through a loop: LLVM makes a register of the stack slot."""

    def __init__(self, first: Lanes) -> None:
        self.builder = first.builder
        self.slot = cgutils.alloca_once_value(self.builder, first.value)

    def get(self) -> Lanes:
        return Lanes(self.builder, self.builder.load(self.slot))

    def set(self, row: Lanes) -> None:
        self.builder.store(row.value, self.slot)


def load(builder: ir.IRBuilder, address: ir.Value) -> Lanes:
    """The row at this address."""
    value = builder.load(builder.inttoptr(address, _VECTOR.as_pointer()))
    value.align = 4
    return Lanes(builder, value)


def store(row: Lanes, address: ir.Value) -> None:
    """Write a row to this address."""
    row.builder.store(row.value, row.builder.inttoptr(address, _VECTOR.as_pointer())).align = 4


def store_first(row: Lanes, count: int, address: ir.Value) -> None:
    """Store the first lanes only."""
    first = row.builder.shuffle_vector(row.value, row.value, ir.Constant(ir.VectorType(_INT32, count), [*range(count)]))
    row.builder.store(first, row.builder.inttoptr(address, first.type.as_pointer())).align = 4


def broadcast(builder: ir.IRBuilder, address: ir.Value) -> Lanes:
    """One float32 in every lane."""
    number = builder.load(builder.inttoptr(address, _FLOAT.as_pointer()))
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    vector = builder.insert_element(nothing, number, ir.Constant(_INT32, 0))
    return Lanes(builder, builder.shuffle_vector(vector, nothing, ir.Constant(_INTEGERS, [0] * LANES)))


def prefetch(builder: ir.IRBuilder, address: ir.Value) -> None:
    """Bring the cache line at this address near."""
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, _INT32, _INT32, _INT32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    to_read, into_every_level, data = (ir.Constant(_INT32, number) for number in (0, 3, 1))
    builder.call(function, [builder.inttoptr(address, byte), to_read, into_every_level, data])


def routine(emit: Callable[..., Any], result: Any = types.void) -> Any:
    """Make `emit(builder, *arguments)` callable from compiled code, as `name((argument, ...))`. Every argument is an
    integer, or a tuple of such, and reaches `emit` as an LLVM int64, or a list. `result` is void or an int64."""

    @intrinsic
    def call(typing_context: Any, arguments: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
            def integers(value: ir.Value, kind: Any) -> Any:
                if not isinstance(kind, types.Tuple | types.UniTuple):
                    return context.cast(builder, value, kind, types.int64)
                parts = cgutils.unpack_tuple(builder, value, len(kind))
                return [integers(part, part_kind) for part, part_kind in zip(parts, kind.types, strict=True)]

            # By itself LLVM stops at 256 bits on most CPUs that have 512. The set's own `add` knows bare words only.
            for attribute in ("prefer-vector-width", "min-legal-vector-width"):
                set.add(builder.function.attributes, f'"{attribute}"="{32 * LANES}"')
            returned = emit(builder, *integers(values[0], signature.args[0]))
            return context.get_dummy_value() if result == types.void else returned

        return result(arguments), codegen

    return call


def pointwise(function: Callable[..., Lanes | tuple[Lanes, ...]], prefetched: int = 0) -> Any:
    """Compile a function on Lanes into `name((steps, ahead, sources, targets))`, sources and targets being tuples of
    (address, pitch). The first `prefetched` sources are prefetched from the chunk that lies `ahead` (-1: the one
    before): the rows of a (L, E) tensor lie kilobytes apart, where hardware does not foresee the next."""

    @routine
    def loop(builder: ir.IRBuilder, steps: ir.Value, ahead: ir.Value, sources: Addresses, targets: Addresses) -> None:
        with cgutils.for_range(builder, steps, intp=_INT64) as step:
            read, write = (
                [builder.add(first, builder.mul(step.index, pitch)) for first, pitch in rows]
                for rows in (sources, targets)
            )
            for address, (_, pitch) in list(zip(read, sources, strict=True))[:prefetched]:
                distance = builder.mul(builder.mul(pitch, ahead), integer(CHUNK))
                prefetch(builder, builder.add(address, distance))
            results = function(*(load(builder, address) for address in read))
            for result, address in zip(results if isinstance(results, tuple) else (results,), write, strict=True):
                store(result, address)

    return loop
