"""The selective scan's memory, and its threads."""

import multiprocessing
import subprocess
import sys
import threading
import types

import pytest
import torch
from scans import (
    assert_close,
    assert_equal,
    lean,
    needs_numba,
    operands,
    run,
    truth,
)
from torch.utils._python_dispatch import TorchDispatchMode

from models.scan import selective_scan
from models.scan.cpu import backend, threads
from models.scan.operands import ScanOperands

pytestmark = pytest.mark.usefixtures("one_thread")

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


@pytest.fixture
def torch_threads():
    yield torch.set_num_threads
    torch.set_num_threads(1)


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
        assert backend._Job(ScanOperands(*given.values(), True, False), backward=True).blocks == blocks
        results.append(run(given, backend="numba", delta_softplus=True))
    assert torch.equal(results[0]["out"], results[1]["out"])
    assert_close(results[1], truth(given, delta_softplus=True), 2e-6)


@needs_numba
@pytest.mark.parametrize(
    ("batch", "channels", "threads", "blocks"),
    [
        (1, 2304, 2, 6),  # 384 channels an item, three items a thread
        (1, 2304, 4, 8),  # 288, two each: with six items two threads would do the work of three
        (1, 768, 2, 2),
        (4, 768, 2, 2),
        (1, 768, 64, 48),  # no more items than strips of 16 channels
        (1, 100, 2, 2),
    ],
)
def test_blocks_of_the_forward_are_wide_and_end_together(torch_threads, batch, channels, threads, blocks):
    torch_threads(threads)
    given = ScanOperands(*operands((batch, 512, channels, 16)).values(), True, False)
    assert backend._Plan(given, backward=False).blocks == blocks


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
    given = ScanOperands(*operands((1, 64, 128, 16)).values(), True, False)
    expected, _ = backend.forward(given, False)  # torch's threads exist now, and will not in the child

    def child():
        assert backend._Job(given, backward=False).threads == 2
        out, _ = backend.forward(given, False)
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
    from models.scan.cpu import kernels

    def cfunc(signature, cache=False):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: types.SimpleNamespace(ctypes=function)

    monkeypatch.setattr(kernels, "cfunc", cfunc)
    assert kernels._compile(len) is len
