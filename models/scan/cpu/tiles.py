"""The arithmetic of one tile, CHUNK tokens by LANES channels: discretisation, recurrence, read-out and their adjoints.

The pointwise routines are called as `name((steps, ahead, sources, targets))`, see `lanes.pointwise`.
"""

from collections.abc import Callable
from functools import partial

from llvmlite import ir
from numba.core import cgutils

from models.scan.cpu.lanes import (
    LN_2,
    Lanes,
    Register,
    Rows,
    broadcast,
    exp2,
    integer,
    pointwise,
    routine,
    sigmoid,
    softplus,
    store_first,
    sum_each,
)

GROUP = 4  # states that go through a tile together: so few that in the adjoint all they need stays in cache


# ---- Token by token: before the recurrence and after it --------------------------------------------------------------


def _discretise(
    activation: Callable[[Lanes], Lanes], delta: Lanes, u: Lanes, bias: Lanes, D: Lanes
) -> tuple[Lanes, Lanes, Lanes]:
    """dt, x = dt u, and the skip D u, to which the read-out is added."""
    dt = activation(delta + bias)
    return dt, dt * u, D * u


def _gate(z: Lanes, y: Lanes) -> Lanes:
    """y silu(z). The backward calls it with dout for y: dy = dout silu(z)."""
    return y * z * sigmoid(z)


def _gate_gradient(z: Lanes, dout: Lanes, y: Lanes) -> Lanes:
    """dz: silu'(z) = s (1 + z (1 - s)), s = sigmoid(z)."""
    s = sigmoid(z)
    return dout * y * s * (z - z * s + 1.0)


def _input_gradients(slope: Callable[[Lanes], Lanes | float], *operands: Lanes) -> tuple[Lanes, Lanes, Lanes, Lanes]:
    """du, ddelta, and the running sums dD and dbias.

    dx is the gradient of x = dt u; ddt the one that reaches dt through the decays 2^(dt A / ln 2), still to be
    multiplied by ln 2.
    """
    delta, u, bias, D, dt, dy, dx, ddt, dD, dbias = operands
    ddelta = (ddt * LN_2 + dx * u) * slope(delta + bias)
    return dx * dt + D * dy, ddelta, dD + dy * u, dbias + ddelta


discretise = pointwise(partial(_discretise, lambda raw: raw), prefetched=2)
discretise_softplus = pointwise(partial(_discretise, softplus), prefetched=2)
copy = pointwise(lambda row: row, prefetched=1)
gate = pointwise(_gate, prefetched=2)
gate_gradient = pointwise(_gate_gradient)
input_gradients = pointwise(partial(_input_gradients, lambda raw: 1.0))
input_gradients_softplus = pointwise(partial(_input_gradients, sigmoid))


# ---- The recurrence --------------------------------------------------------------------------------------------------


def _state_row(builder: ir.IRBuilder, t: ir.Value, n: int) -> ir.Value:
    """The index of token t and state n among (CHUNK, GROUP) rows."""
    return builder.add(builder.mul(t, integer(GROUP)), integer(n))


def _scalar(builder: ir.IRBuilder, first: ir.Value, t: ir.Value, pitch: ir.Value, n: int) -> Lanes:
    """B or C of token t and state n, the same for all channels."""
    return broadcast(builder, builder.add(first, builder.add(builder.mul(t, pitch), integer(4 * n))))


def _emit_sweep(builder: ir.IRBuilder, arguments: tuple[ir.Value, ...], decay: Rows | None) -> None:
    *addresses, B, C, pitch, steps = arguments
    dt, x, y, A, h = (Rows(builder, address) for address in addresses)
    A_rows = [A[n] for n in range(GROUP)]
    states = [Register(h[n]) for n in range(GROUP)]
    with cgutils.for_range(builder, steps, intp=steps.type) as loop:
        t = loop.index
        dt_t, x_t, y_t = dt[t], x[t], y[t]
        for n, (A_n, state) in enumerate(zip(A_rows, states, strict=True)):
            decay_t = exp2(dt_t * A_n)
            h_t = decay_t * state.get() + x_t * _scalar(builder, B, t, pitch, n)
            state.set(h_t)
            y_t = y_t + h_t * _scalar(builder, C, t, pitch, n)
            if decay is not None:
                decay[_state_row(builder, t, n)] = decay_t
                h[_state_row(builder, t, n + GROUP)] = h_t
        y[t] = y_t
    if decay is None:
        for n, state in enumerate(states):
            h[n] = state.get()


@routine
def sweep(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
    """(dt, x, y, A, h, B, C, pitch, steps): h = 2^(dt A) h + x B; y += h C; token after token, h in registers.

    dt, x, y: rows (CHUNK); A, h: rows (GROUP); B, C: GROUP floats a token, at a pitch."""
    _emit_sweep(builder, arguments, None)


@routine
def sweep_and_keep(builder: ir.IRBuilder, decay: ir.Value, *arguments: ir.Value) -> None:
    """`sweep` that keeps what the adjoint needs: decay of every token, rows (CHUNK, GROUP), and the state before the
    first and after every token, rows (1 + CHUNK, GROUP) at h, of which the first GROUP are given."""
    _emit_sweep(builder, arguments, Rows(builder, decay))


@routine
def adjoint_sweep(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
    """(dt, x, dy, dx, ddt, A, dA, carry, h, decay, dB, dC, B, C, pitch, steps): g = carry + dy C, the gradient of
    the state; carry = 2^(dt A) g; from the last token to the first; and the gradients that follow from g are summed.

    dB, dC: rows (CHUNK, GROUP), still to be summed over their lanes. The rest as in `sweep_and_keep`."""
    *addresses, B, C, pitch, steps = arguments
    dt, x, dy, dx, ddt, A, dA, carry, h, decay, dB, dC = (Rows(builder, address) for address in addresses)
    carries = [Register(carry[n]) for n in range(GROUP)]
    dA_tile = [Register(Lanes.zero(builder)) for _ in range(GROUP)]
    with cgutils.for_range(builder, steps, intp=steps.type) as loop:
        t = builder.sub(builder.sub(steps, loop.index), integer(1))
        dt_t, x_t, dy_t, dx_t, ddt_t = dt[t], x[t], dy[t], dx[t], ddt[t]
        for n in range(GROUP):
            before, after = _state_row(builder, t, n), _state_row(builder, t, n + GROUP)
            g = carries[n].get() + dy_t * _scalar(builder, C, t, pitch, n)
            dC[before] = dC[before] + dy_t * h[after]
            dB[before] = dB[before] + g * x_t
            dx_t = dx_t + g * _scalar(builder, B, t, pitch, n)
            g = g * decay[before]
            carries[n].set(g)
            dexponent = g * h[before]
            dA_tile[n].set(dA_tile[n].get() + dexponent * dt_t)
            ddt_t = ddt_t + dexponent * A[n]
        dx[t], ddt[t] = dx_t, ddt_t
    for n in range(GROUP):
        carry[n] = carries[n].get()
        dA[n] = dA[n] + dA_tile[n].get()


@routine
def sum_lanes(builder: ir.IRBuilder, rows: ir.Value, target: ir.Value, pitch: ir.Value, steps: ir.Value) -> None:
    """(rows, target, pitch, steps): sum rows (CHUNK, GROUP) over their lanes into GROUP floats a token, at a pitch."""
    table = Rows(builder, rows)
    with cgutils.for_range(builder, steps, intp=steps.type) as loop:
        sums = sum_each([table[_state_row(builder, loop.index, n)] for n in range(GROUP)])
        store_first(sums, GROUP, builder.add(target, builder.mul(loop.index, pitch)))
