"""The selective scan: its reference against closed forms, and every backend against the reference."""

import numpy as np
import pytest
import torch
from scans import (
    ALL,
    BARE,
    assert_close,
    assert_equal,
    here,
    needs_numba,
    operands,
    run,
    tested,
    truth,
)
from torch.utils.checkpoint import checkpoint

from models.scan import selective_scan

pytestmark = pytest.mark.usefixtures("one_thread")

# ---- The reference against arithmetic --------------------------------------------------------------------------------


def constant(length, rate, dt):
    """One channel, one state, u = B = C = 1."""
    ones = torch.ones(1, length, 1, dtype=torch.float64)
    return {"u": ones, "delta": dt * ones, "A": torch.tensor([[-rate]], dtype=torch.float64), "B": ones, "C": ones}


@pytest.mark.parametrize("reverse", [False, True])
def test_constant_input_sums_a_geometric_series(reverse):
    rate, dt, length = 0.7, 0.3, 50
    y = selective_scan(**constant(length, rate, dt), reverse=reverse, backend="reference").flatten()
    ratio, seen = np.exp(-rate * dt), np.arange(1, length + 1)
    expected = dt * (1 - ratio**seen) / (1 - ratio)
    np.testing.assert_allclose(y, expected[::-1] if reverse else expected, rtol=1e-13)


def test_an_impulse_decays_exponentially_with_the_time_passed():
    given = constant(6, 2.0, 0.0)
    given["delta"] = torch.tensor([0.5, 0.1, 0.2, 0.3, 0.4, 0.5], dtype=torch.float64).view(1, 6, 1)
    given["u"] = torch.tensor([3.0, 0, 0, 0, 0, 0], dtype=torch.float64).view(1, 6, 1)
    passed = np.array([0, 0.1, 0.3, 0.6, 1.0, 1.5])
    y = selective_scan(**given, backend="reference").flatten()
    np.testing.assert_allclose(y, 0.5 * 3 * np.exp(-2 * passed), rtol=1e-14)


def test_skip_gate_bias_and_softplus_by_hand():
    given = operands((1, 1, 1, 2), dtype=torch.float64)
    u, delta, _, B, C, D, z, bias = (tensor.flatten().numpy() for tensor in given.values())
    dt = np.log1p(np.exp(delta + bias))
    expected = (dt * u * (B @ C) + D * u) * z / (1 + np.exp(-z))
    y = selective_scan(**given, delta_softplus=True, backend="reference").flatten()
    np.testing.assert_allclose(y, expected, rtol=1e-14)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("present", "softplus"), [(ALL, True), (BARE, False)])
def test_reference_gradients_are_those_of_finite_differences(present, softplus, reverse):
    given = operands((1, 17, 2, 2), present, torch.float64, softplus=softplus)
    leaves = [None if tensor is None else tensor.requires_grad_() for tensor in given.values()]
    torch.autograd.gradcheck(
        lambda *tensors: selective_scan(*tensors, delta_softplus=softplus, reverse=reverse, backend="reference"), leaves
    )


# ---- Every backend against the reference -----------------------------------------------------------------------------

SIZES = {
    "one token": (1, 1, 5, 3),
    "ragged": (2, 37, 20, 16),  # no whole number of tiles, of vectors
    "two blocks": (2, 21, 144, 4),  # more channels than a block has
    "long chunks": (3, 530, 16, 5),  # chunks of 32, the last ragged
    "whole": (1, 64, 128, 8),
}
OPTIONS = {
    "everything": (ALL, True),
    "bare": (BARE, False),
    "no skip": (ALL - {"D"}, True),
    "no gate": (ALL - {"z"}, False),
    "no bias": (ALL - {"delta_bias"}, True),
}


@pytest.mark.parametrize("backend", tested)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("sizes", "options"),
    [(sizes, "everything") for sizes in SIZES]
    + [("ragged", options) for options in OPTIONS if options != "everything"],
)
def test_values_and_gradients_match_the_reference(backend, sizes, options, reverse):
    present, softplus = OPTIONS[options]
    given = operands(SIZES[sizes], present, softplus=softplus)
    how = {"delta_softplus": softplus, "reverse": reverse}
    assert_close(run(given, backend=backend, **how), truth(given, **how), 2e-6)


@pytest.mark.parametrize("backend", tested)
@pytest.mark.parametrize("reverse", [False, True])
def test_strong_decay_underflows_to_no_memory(backend, reverse):
    given = operands((2, 40, 20, 4), softplus=False)
    given["delta"] = 30 * given["delta"] + 10
    given["A"] = 40 * given["A"]  # exp(-400) and less: below the smallest float32
    found = run(given, backend=backend, reverse=reverse)
    assert_close(found, truth(given, reverse=reverse), 2e-6)
    assert found["dA"].abs().max() < 1e-30


@pytest.mark.parametrize("backend", tested)
def test_growing_states_are_followed_and_overflow_to_infinity(backend):
    given = operands((1, 40, 20, 4), BARE, softplus=False)
    given["A"] = -given["A"]
    assert_close(run(given, backend=backend), truth(given), 5e-6)
    assert selective_scan(**{**given, "A": 1e4 * given["A"]}, backend=backend).isfinite().logical_not().any()


@pytest.mark.parametrize("backend", here)
@pytest.mark.parametrize("name", ["u", "delta", "B"])
def test_a_nan_reaches_all_later_tokens_and_no_earlier_one(backend, name):
    given = operands((1, 40, 20, 4))
    given[name][0, 21] = float("nan")
    lost = selective_scan(**given, delta_softplus=True, backend=backend).isnan().all(2).flatten()
    assert lost.tolist() == [False] * 21 + [True] * 19


@pytest.mark.parametrize("backend", here)
def test_a_nan_rate_reaches_its_channel(backend):
    given = operands((1, 40, 20, 4))
    given["A"][3, 1] = float("nan")
    out = selective_scan(**given, delta_softplus=True, backend=backend)
    assert out.isnan().any(1).flatten().nonzero().tolist() == [[3]]


@pytest.fixture(scope="module", params=[False, True], ids=["forwards", "backwards"])
def long_memory(request):
    """4096 tokens at a step size of 1e-3: states that remember them all, so that any bias of the decay adds up."""
    given = operands((1, 4096, 16, 16), seed=3)
    given["delta"], given["delta_bias"] = 0.3 * given["delta"], torch.full((16,), np.log(np.expm1(1e-3)))
    how = {"delta_softplus": True, "reverse": request.param}
    return given, how, truth(given, **how)


@pytest.mark.parametrize("backend", tested)
def test_long_memory_stays_exact_to_1e_5(backend, long_memory):
    given, how, expected = long_memory
    assert_close(run(given, backend=backend, **how), expected, 1e-5)


@pytest.mark.parametrize("backend", tested)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_inputs_are_scanned_in_float32(backend, dtype):
    given = operands((2, 37, 20, 16), dtype=dtype)
    found = run(given, backend=backend, delta_softplus=True)
    assert {tensor.dtype for tensor in found.values()} == {dtype}
    assert_close(found, truth(given, delta_softplus=True), torch.finfo(dtype).eps)


@pytest.mark.parametrize("backend", here)
def test_operands_may_differ_in_dtype(backend):
    given = operands((2, 37, 20, 16))
    for name in ("u", "B", "C", "z"):
        given[name] = given[name].bfloat16()
    found = run(given, backend=backend, delta_softplus=True)
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        "out": torch.bfloat16, **{f"d{name}": tensor.dtype for name, tensor in given.items()}
    }  # fmt: skip
    assert_close(found, truth(given, delta_softplus=True), torch.finfo(torch.bfloat16).eps)


@pytest.mark.parametrize("backend", here)
@pytest.mark.parametrize("reverse", [False, True])
def test_views_give_what_their_copies_give(backend, reverse):
    batch, length, channels, states = 2, 37, 32, 8
    projected = torch.randn(batch, length, 3 + 2 * states)
    both = torch.randn(batch, length, 2 * channels)
    views = operands((batch, length, channels, states))
    views["u"] = torch.randn(batch, channels, length).transpose(1, 2)
    views["delta"] = torch.randn(1, length, channels).expand(batch, -1, -1)
    views["B"], views["C"] = projected[..., 3 : 3 + states], projected[..., 3 + states :]
    views["z"] = both[..., channels:]
    views["A"] = -torch.rand(states, channels).t()
    copies = {name: tensor.contiguous() for name, tensor in views.items()}
    how = {"delta_softplus": True, "reverse": reverse, "backend": backend}
    assert_close(run(views, **how), run(copies, **how), 1e-6)


@pytest.mark.parametrize("backend", here)
def test_reverse_is_the_scan_of_the_flipped_sequence(backend):
    given = operands((2, 37, 20, 4))
    flipped = {name: t.flip(1) if t.dim() == 3 else t for name, t in given.items()}
    back = selective_scan(**flipped, delta_softplus=True, backend=backend).flip(1)
    torch.testing.assert_close(selective_scan(**given, delta_softplus=True, reverse=True, backend=backend), back)


@pytest.mark.parametrize("backend", here)
def test_checkpointing_gives_the_same_gradients(backend):
    given = operands((2, 37, 20, 4))
    leaves = [tensor.requires_grad_() for tensor in given.values()]
    out = checkpoint(
        lambda *tensors: selective_scan(*tensors, delta_softplus=True, backend=backend), *leaves, use_reentrant=False
    )
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    out.backward(direction.float())
    found = {"out": out.detach(), **{f"d{name}": tensor.grad for name, tensor in given.items()}}
    assert_equal(found, run(given, backend=backend, delta_softplus=True))


@needs_numba
def test_the_polynomials_are_exact_where_errors_would_add_up():
    from models.scan.cpu import lanes

    def horner(x, coefficients):
        result = np.zeros_like(x)
        for coefficient in reversed(coefficients):
            result = result * x + np.float64(np.float32(coefficient))
        return result

    assert lanes.EXP2[:2] == (1.0, float(np.float32(np.log(2))))
    f, t = np.linspace(-0.5, 0.5, 10001), np.linspace(1e-9, 1, 10001)
    assert np.abs(horner(f, lanes.EXP2) / np.exp2(f) - 1).max() < 1.1e-7
    assert np.abs(horner(t, lanes.LOG1P) * t / np.log1p(t) - 1).max() < 6e-8
