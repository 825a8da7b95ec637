"""The selective scan as an operator of torch, the choice of its backend, and its errors."""

import sys
import types

import numpy as np
import pytest
import torch
from scans import (
    ALL,
    BARE,
    NAMES,
    assert_close,
    here,
    needs_numba,
    operands,
    run,
    truth,
)
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from harness.cost.trace import count
from models.scan import available, bidirectional_scan, mamba_ssm, resolve, selective_scan
from models.scan.cpu import backend as cpu
from models.scan.operands import ScanOperands
from models.scan.portable import reference

pytestmark = pytest.mark.usefixtures("one_thread")

ONE_DIRECTION = (None,) * 7  # the operator's arguments for the operands of a second one

# ---- The operator ----------------------------------------------------------------------------------------------------


def on_meta(sizes, present=ALL):
    batch, length, channels, states = sizes
    long, short = (batch, length, channels), (batch, length, states)
    shapes = (long, long, (channels, states), short, short, (channels,), long, (channels,))
    named = zip(NAMES, shapes, strict=True)
    return {
        name: torch.empty(shape, device="meta", requires_grad=True) if name in present else None
        for name, shape in named
    }


@pytest.mark.parametrize("present", [ALL, BARE])
def test_meta_tensors_are_scanned_and_counted_without_running(present):
    sizes = (3, 16384, 2304, 16)
    given = on_meta(sizes, present)
    with FlopCounterMode(display=False) as counter:
        out = selective_scan(**given)
        out.sum().backward()
    cells = np.prod(sizes, dtype=np.int64)
    assert out.shape == sizes[:3]
    assert out.device.type == "meta"
    assert all(tensor.grad.shape == tensor.shape for tensor in given.values() if tensor is not None)
    counts = counter.get_flop_counts()["Global"]
    assert counts[torch.ops.dim.selective_scan] == 2 * 4 * cells
    assert counts[torch.ops.dim.selective_scan_backward] == 2 * 12 * cells


@pytest.mark.parametrize("backend", here)
def test_running_is_counted_like_meta_whatever_the_backend(backend):
    sizes = (2, 40, 16, 4)
    with FlopCounterMode(display=False) as counter:
        run(operands(sizes), backend=backend)
    assert counter.get_total_flops() == 2 * (4 + 12) * np.prod(sizes)


@pytest.mark.parametrize(("backend", "present"), [(backend, ALL) for backend in here] + [(here[0], BARE)])
def test_operator_passes_torchs_own_checks(backend, present):
    given = [None if t is None else t.requires_grad_() for t in operands((2, 37, 20, 4), present).values()]
    arguments = (*given, *ONE_DIRECTION, True, True, backend, True)
    torch.library.opcheck(torch.ops.dim.selective_scan.default, arguments)
    _, states = torch.ops.dim.selective_scan(*arguments)
    detached = [None if t is None else t.detach() for t in given]
    arguments = (torch.randn(2, 37, 20), states.detach(), *detached, *ONE_DIRECTION, True, True, backend)
    torch.library.opcheck(torch.ops.dim.selective_scan_backward.default, arguments)


def test_compiled_code_contains_the_operator_and_agrees():
    given = operands((2, 37, 20, 4))

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(*tensors):
        return selective_scan(*tensors[:-1], delta_softplus=True, reverse=True) * tensors[-1]

    leaves = [tensor.clone().requires_grad_() for tensor in given.values()]
    weight = torch.randn(2, 37, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64).float()
    compiled(*leaves, weight).sum().backward()
    expected = run(given, delta_softplus=True, reverse=True)
    for name, leaf in zip(NAMES, leaves, strict=True):
        torch.testing.assert_close(leaf.grad, expected[f"d{name}"])


def test_fake_tensors_keep_the_device_and_shapes():
    with FakeTensorMode():
        long, short = torch.empty(1, 99, 8), torch.empty(1, 99, 4)
        out = selective_scan(long, long, torch.empty(8, 4), short, short)
    assert out.shape == (1, 99, 8)
    assert out.device.type == "cpu"


# ---- Two directions --------------------------------------------------------------------------------------------------


def test_two_directions_are_counted_as_twice_one():
    sizes = (2, 40, 16, 4)
    cells = np.prod(sizes)
    first, second = on_meta(sizes), on_meta(sizes)
    second.pop("z")
    for given, directions in (((*first.values(), *ONE_DIRECTION), 1), ((*first.values(), *second.values()), 2)):
        with FlopCounterMode(display=False) as counter:
            out, _ = torch.ops.dim.selective_scan(*given, True, False, "auto", True)
            out.sum().backward()
        counts = counter.get_flop_counts()["Global"]
        assert counts[torch.ops.dim.selective_scan] == directions * 2 * 4 * cells
        assert counts[torch.ops.dim.selective_scan_backward] == directions * 2 * 12 * cells
        assert out.shape == sizes[:3]
        assert all(t.grad.shape == t.shape for t in given if t is not None)


def test_two_directions_are_traced_as_twice_one():
    class Scans(torch.nn.Module):
        def forward(self, *tensors):
            return torch.ops.dim.selective_scan(*tensors, True, False, "auto", False)[0]

    sizes = (2, 40, 16, 4)
    first, second = operands(sizes), operands(sizes)
    second.pop("z")
    both = count(Scans(), *first.values(), *second.values())
    assert (both.by_kind()["scan"], both.elementwise) == (2 * 4 * np.prod(sizes), 2 * np.prod(sizes))
    assert not both.uncounted


@pytest.mark.parametrize("backend", here)
@pytest.mark.parametrize("present", [ALL, BARE])
def test_two_directions_are_the_sum_of_two_scans_bit_for_bit(backend, present):
    first, second = operands((2, 37, 20, 16), present, seed=5), operands((2, 37, 20, 16), present, seed=6)
    z = second["z"] = first["z"]

    how = {"delta_softplus": True, "backend": backend}
    forwards, backwards = run(first, **how), run(second, reverse=True, **how)
    own = [name for name in NAMES if name != "z" and first[name] is not None]
    leaves = {name: [g[name].detach().requires_grad_() for g in (first, second)] for name in own}
    gate = None if z is None else z.detach().requires_grad_()

    out = bidirectional_scan(**{**dict.fromkeys(("D", "delta_bias")), **leaves}, z=gate, **how)
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).float())
    assert torch.equal(out, forwards["out"] + backwards["out"])
    for name in own:
        assert torch.equal(leaves[name][0].grad, forwards[f"d{name}"]), name
        assert torch.equal(leaves[name][1].grad, backwards[f"d{name}"]), name
    if gate is not None:
        assert torch.equal(gate.grad, forwards["dz"] + backwards["dz"])


@pytest.mark.parametrize("backend", [name for name in here if name != "triton"])
def test_a_backend_for_one_direction_a_call_refuses_two(backend):
    first, second = operands((1, 4, 4, 4)), operands((1, 4, 4, 4))
    second.pop("z")
    with pytest.raises(ValueError, match=f"'{backend}' takes one direction a call; two: triton"):
        torch.ops.dim.selective_scan(*first.values(), *second.values(), True, False, backend, False)


# ---- The choice of a backend, and errors -----------------------------------------------------------------------------


def test_every_backend_runs_or_says_why_not():
    assert {"mamba_ssm", "numba"} < available().keys()
    assert all(isinstance(reason, str) and "\n" not in reason for reason in available().values())
    assert not available()["chunked"]
    assert not available()["reference"]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.float32, "numba"), (torch.bfloat16, "numba"), (torch.float16, "numba"), (torch.float64, "chunked")],
)
@needs_numba
def test_auto_is_the_fastest_that_keeps_the_semantics(dtype, expected):
    assert resolve("auto", "cpu", dtype) == expected


def test_on_meta_no_backend_runs():
    assert resolve("auto", "meta", torch.float32) == resolve("numba", torch.device("meta"), torch.float64) == "meta"


def test_auto_without_numba_is_the_portable_backend(monkeypatch):
    monkeypatch.setattr(cpu, "missing", lambda: "no numba")
    assert resolve("auto", "cpu", torch.float32) == "chunked"


@pytest.mark.parametrize(
    ("backend", "dtype", "message"),
    [
        (
            "fastest",
            torch.float32,
            "unknown scan backend 'fastest'; choose from auto, .*numba, chunked, reference",
        ),
        ("numba", torch.float64, "'numba' cannot run here: .*float64.*; choose from auto"),
        (
            "mamba_ssm",
            torch.float32,
            "'mamba_ssm' cannot run here: it runs on CUDA tensors, not on cpu; choose from auto",
        ),
    ],
)
def test_a_backend_that_cannot_run_is_refused_by_name(backend, dtype, message):
    with pytest.raises(ValueError, match=message):
        resolve(backend, "cpu", dtype)
    with pytest.raises(ValueError, match=message):
        selective_scan(**operands((1, 4, 4, 4), dtype=dtype), backend=backend)


@pytest.mark.parametrize("name", NAMES)
def test_an_operand_of_the_wrong_shape_is_named(name):
    given = operands((2, 5, 4, 3))
    given[name] = torch.zeros(7, 7)
    with pytest.raises(ValueError, match=f"^{name} must"):
        selective_scan(**given)


def test_integers_and_strangers_are_refused():
    given = operands((2, 5, 4, 3))
    with pytest.raises(ValueError, match=r"D must be real floating point, got torch\.int64"):
        selective_scan(**{**given, "D": torch.ones(4, dtype=torch.int64)})
    with pytest.raises(ValueError, match="z is on meta, u on cpu"):
        selective_scan(**{**given, "z": given["z"].to("meta")})


# ---- mamba_ssm -------------------------------------------------------------------------------------------------------


def stand_in(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
    """The public function of mamba_ssm, with its demands on layout, dtype and contiguity."""
    batch, _, length = u.shape
    assert B.shape == C.shape == (batch, A.shape[1], length)
    assert {t.dtype for t in (u, delta, B, C, z) if t is not None} == {u.dtype}
    assert {t.dtype for t in (A, D, delta_bias) if t is not None} == {torch.float32}
    assert all(t.stride(-1) == 1 for t in (u, delta, B, C))
    return _StandIn.apply(u, delta, A, B, C, D, z, delta_bias, delta_softplus)


class _StandIn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *arguments):
        ctx.arguments = arguments
        first_last = [t.transpose(1, 2) if torch.is_tensor(t) and t.dim() == 3 else t for t in arguments]
        ctx.scan = ScanOperands(*first_last, False)
        out, ctx.states = reference.forward(ctx.scan, True)
        return out.transpose(1, 2)

    @staticmethod
    def backward(ctx, dout):
        gradients = reference.backward(ctx.scan, ctx.states, dout.transpose(1, 2))
        return *(g.transpose(1, 2) if g is not None and g.dim() == 3 else g for g in gradients), None


@pytest.fixture
def mamba_ssm_package(monkeypatch):
    interface = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = stand_in
    operators = types.ModuleType("mamba_ssm.ops")
    operators.selective_scan_interface = interface
    for module in (types.ModuleType("mamba_ssm"), operators, interface):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(mamba_ssm, "missing", lambda: "")
    monkeypatch.setattr(mamba_ssm, "unsupported", lambda device, dtype: "")


@pytest.mark.usefixtures("mamba_ssm_package")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("present", [ALL, BARE])
def test_mamba_adapter_translates_layout_and_direction(present, reverse):
    given = operands((2, 19, 6, 4), present, softplus=False)
    assert_close(run(given, backend="mamba_ssm", reverse=reverse), truth(given, reverse=reverse), 2e-6)
    given["B"] = given["B"].bfloat16()
    assert_close(run(given, backend="mamba_ssm", reverse=reverse), truth(given, reverse=reverse), 5e-3)


@pytest.mark.gpu
@pytest.mark.skipif(bool(available()["mamba_ssm"]), reason=available()["mamba_ssm"])
@pytest.mark.parametrize("reverse", [False, True])
def test_mamba_cuda_scan_matches_the_reference(reverse):
    given = {name: tensor.cuda() for name, tensor in operands((2, 70, 64, 16)).items()}
    found = run(given, backend="mamba_ssm", delta_softplus=True, reverse=reverse)
    assert_close(found, truth(given, delta_softplus=True, reverse=reverse), 1e-5)
