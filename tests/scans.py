"""Operands for the selective scan, what it makes of them, and how two results compare."""

import pytest
import torch

from models.scan import available, resolve, selective_scan


def runs_on_cpu(name):
    try:
        return resolve(name, "cpu", torch.float32) == name
    except ValueError:
        return False


NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
ALL = frozenset(NAMES)
BARE = ALL - {"D", "z", "delta_bias"}
here = [name for name in available() if runs_on_cpu(name)]
tested = [name for name in here if name != "reference"]
lean = [name for name in here if name != "naive"]  # in memory
needs_numba = pytest.mark.skipif("numba" not in here, reason=available()["numba"])


def operands(sizes, present=ALL, dtype=torch.float32, seed=0, softplus=True):
    """Random operands of B, L, E, N = sizes, in the range that a Mamba layer meets; None for the absent."""
    batch, length, channels, states = sizes
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    delta = normal(batch, length, channels)
    everything = {
        "u": normal(batch, length, channels),
        "delta": delta if softplus else 0.2 * delta.abs(),
        "A": -torch.arange(1.0, states + 1).expand(channels, states) * torch.exp(0.1 * normal(channels, states)),
        "B": normal(batch, length, states),
        "C": normal(batch, length, states),
        "D": normal(channels),
        "z": normal(batch, length, channels),
        "delta_bias": normal(channels) - 2 if softplus else 0.2 * normal(channels).abs(),
    }
    return {name: tensor.to(dtype) if name in present else None for name, tensor in everything.items()}


def run(given, dtype=None, seed=1, **options):
    """Output, and the gradient of every operand for a random direction of the output."""
    leaves = {
        name: None if tensor is None else tensor.detach().to(dtype or tensor.dtype).requires_grad_()
        for name, tensor in given.items()
    }
    out = selective_scan(*leaves.values(), **options)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    out.backward(direction.to(out.dtype))
    gradients = {f"d{name}": tensor.grad for name, tensor in leaves.items() if tensor is not None}
    return {"out": out.detach(), **gradients}


def truth(given, **options):
    return run(given, torch.float64, backend="reference", **options)


def assert_close(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        scale = tensor.abs().max().clamp_min(1e-20)  # of what underflows, zero and the smallest float32 are the same
        error = (found[name].double() - tensor).abs().max() / scale
        assert error <= tolerance, f"{name}: {error:.1e}"


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
