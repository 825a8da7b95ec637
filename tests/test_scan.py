"""The selective scan: its reference against closed forms, every backend against that, the operator against torch."""

import multiprocessing
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from models.scan import available, cpu, mamba, reference, resolve, selective_scan, threads
from models.scan.inputs import ScanInputs


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


@pytest.fixture(autouse=True)
def torch_threads():
    """One thread, unless a test asks for more: on a busy machine, many small parallel operators wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch.set_num_threads
    torch.set_num_threads(before)


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
    """4096 tokens at a timestep of 1e-3: states that remember them all, so that any bias of the decay adds up."""
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


# ---- Memory ----------------------------------------------------------------------------------------------------------

PEAK = """
import sys, torch
from models.scan import selective_scan

def peak_bytes():
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

def operands(length, channels, states=16):
    shapes = [(1, length, channels)] * 2 + [(channels, states)] + [(1, length, states)] * 2
    shapes += [(channels,), (1, length, channels), (channels,)]
    tensors = [torch.rand(shape) for shape in shapes]
    tensors[2].neg_()
    return [tensor.requires_grad_() for tensor in tensors]

def step(tensors, dout):
    selective_scan(*tensors, delta_softplus=True, backend=sys.argv[1]).backward(dout)

torch.set_num_threads(1)
length, channels = 1024, 1152
step(operands(32, channels), torch.rand(1, 32, channels))
tensors, dout = operands(length, channels), torch.rand(1, length, channels)
open("/proc/self/clear_refs", "w").write("5")  # start the high-water mark anew
before = peak_bytes()
step(tensors, dout)
print((peak_bytes() - before) / (4 * length * channels))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("backend", [name for name in lean if name != "reference"])
def test_forward_and_backward_need_at_most_eight_tensors_of_the_inputs_size(backend):
    done = subprocess.run([sys.executable, "-c", PEAK, backend], capture_output=True, text=True, check=False)
    if "clear_refs" in done.stderr:
        pytest.skip("the kernel does not reset the high-water mark")
    assert done.returncode == 0, done.stderr
    assert 4 <= float(done.stdout) <= 8  # the output and three gradients at least: the measure measures


class _Seen(TorchDispatchMode):
    """Elements of the states that the scan returns."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.dim.selective_scan.default:
            self.states = result[1].numel()
        return result


@pytest.mark.parametrize("backend", lean)
def test_states_are_kept_only_for_a_gradient(backend):
    given = operands((1, 40, 16, 4))
    with _Seen() as seen:
        selective_scan(**given, backend=backend)
        assert seen.states == 0
        given["A"].requires_grad_()
        with torch.no_grad():
            selective_scan(**given, backend=backend)
        assert seen.states == 0
        selective_scan(**given, backend=backend)
        assert 0 < seen.states <= 48 * 16 * 4 / 16


# ---- Threads ---------------------------------------------------------------------------------------------------------


BUSY = (2, 70, 300, 16)  # enough work for several threads


@needs_numba
def test_results_do_not_depend_on_the_number_of_threads(torch_threads):
    given, how = operands(BUSY), {"delta_softplus": True, "backend": "numba"}
    torch_threads(1)
    one = run(given, **how)
    for count in (2, 3, 6):
        torch_threads(count)
        assert_equal(run(given, **how), one)


@needs_numba
def test_blocks_shrink_when_there_are_more_threads_than_blocks(torch_threads):
    given = operands((1, 200, 256, 16))
    results = []
    for count, blocks in ((2, 2), (7, 8)):
        torch_threads(count)
        assert cpu._Job(ScanInputs(*given.values(), True, False)).blocks == blocks
        results.append(run(given, backend="numba", delta_softplus=True))
    assert torch.equal(results[0]["out"], results[1]["out"])
    assert_close(results[1], truth(given, delta_softplus=True), 2e-6)


@needs_numba
def test_python_threads_give_what_torchs_threads_give(torch_threads, monkeypatch):
    given, how = operands(BUSY), {"delta_softplus": True, "backend": "numba"}
    torch_threads(3)
    expected = run(given, **how)
    monkeypatch.setattr(threads, "torch_parallel", lambda: None)
    assert_equal(run(given, **how), expected)


@needs_numba
def test_a_python_thread_may_call_it(torch_threads):
    given, how = operands(BUSY), {"delta_softplus": True, "backend": "numba"}
    torch_threads(2)
    found = []
    callers = [threading.Thread(target=lambda: found.append(run(given, **how))) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    expected = run(given, **how)
    assert len(found) == 2
    assert_equal(found[0], expected)
    assert_equal(found[1], expected)


@needs_numba
@pytest.mark.skipif(not hasattr(multiprocessing, "get_context") or sys.platform == "win32", reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_may_call_it(torch_threads):
    torch_threads(2)
    given = ScanInputs(*operands((1, 64, 128, 16)).values(), True, False)
    expected, _ = cpu.forward(given, False)  # torch's threads exist now, and will not in the child

    def child():
        assert cpu._Job(given).threads == 2
        out, _ = cpu.forward(given, False)
        assert torch.equal(out, expected)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    hangs = process.is_alive()
    process.kill()
    assert not hangs
    assert process.exitcode == 0


@needs_numba
def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch):
    from models.scan import kernels

    def cfunc(signature, cache=False):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: types.SimpleNamespace(ctypes=function)

    monkeypatch.setattr(kernels, "cfunc", cfunc)
    assert kernels._compile(len) is len


@needs_numba
def test_the_polynomials_are_exact_where_errors_would_add_up():
    from models.scan import lanes

    def horner(x, coefficients):
        result = np.zeros_like(x)
        for coefficient in reversed(coefficients):
            result = result * x + np.float64(np.float32(coefficient))
        return result

    assert lanes.EXP2[:2] == (1.0, float(np.float32(np.log(2))))
    f, t = np.linspace(-0.5, 0.5, 10001), np.linspace(1e-9, 1, 10001)
    assert np.abs(horner(f, lanes.EXP2) / np.exp2(f) - 1).max() < 1.1e-7
    assert np.abs(horner(t, lanes.LOG1P) * t / np.log1p(t) - 1).max() < 6e-8


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
    torch.library.opcheck(torch.ops.dim.selective_scan.default, (*given, True, True, backend, True))
    _, states = torch.ops.dim.selective_scan(*given, True, True, backend, True)
    detached = [None if t is None else t.detach() for t in given]
    arguments = (torch.randn(2, 37, 20), states.detach(), *detached, True, True, backend)
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
        ctx.scan = ScanInputs(*first_last, False)
        out, ctx.states = reference.forward(ctx.scan, True)
        return out.transpose(1, 2)

    @staticmethod
    def backward(ctx, dout):
        gradients = reference.backward(ctx.scan, ctx.states, dout.transpose(1, 2))
        return *(g.transpose(1, 2) if g is not None and g.dim() == 3 else g for g in gradients), None


@pytest.fixture
def mamba_ssm(monkeypatch):
    interface = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = stand_in
    operators = types.ModuleType("mamba_ssm.ops")
    operators.selective_scan_interface = interface
    for module in (types.ModuleType("mamba_ssm"), operators, interface):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(mamba, "missing", lambda: "")
    monkeypatch.setattr(mamba, "unsupported", lambda device, dtype: "")


@pytest.mark.usefixtures("mamba_ssm")
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
