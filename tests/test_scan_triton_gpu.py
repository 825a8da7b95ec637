"""The scan's Triton kernels on a GPU: large shapes, 16-bit inputs, and what no interpreter shows, which is races, how
the exponential unit rounds, and offsets beyond 2^31."""

import numpy as np
import pytest
import torch
from scans import ALL, BARE, assert_close, assert_equal, operands, run, truth
from test_scan_triton import both_directions, run_both

from models.scan import available, bidirectional_scan, selective_scan

reason = available()["triton"] or ("" if torch.cuda.is_available() else "torch sees no CUDA device")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(reason), reason=reason)]

LARGE = {
    "cut into segments": (1, 1000, 1152, 16),
    "one segment": (32, 40, 1152, 16),
    "ragged": (3, 301, 77, 5),
}


def on_gpu(tensors):
    return {name: None if t is None else t.cuda() for name, t in tensors.items()}


def on_cpu(results):
    return {name: t.cpu() for name, t in results.items()}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", LARGE)
def test_values_and_gradients_match_float64_on_cpu(size, dtype, reverse):
    tensors = operands(LARGE[size], dtype=dtype)
    how = {"delta_softplus": True, "reverse": reverse}
    found = on_cpu(run(on_gpu(tensors), backend="triton", **how))
    assert_close(found, truth(tensors, **how), 1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps)


@pytest.mark.parametrize("present", [ALL, BARE])
def test_both_directions_match_float64_on_cpu(present):
    sizes = (2, 500, 384, 16)
    found = on_cpu(run_both(both_directions(present, sizes, device="cuda")))
    assert_close(found, run_both(both_directions(present, sizes), torch.float64, "reference"), 1e-5)


def test_results_are_the_same_bytes_every_time():
    pair = both_directions(ALL, (4, 700, 640, 16), torch.bfloat16, "cuda")
    first = run_both(pair)
    for _ in range(5):
        assert_equal(run_both(pair), first)


@pytest.mark.parametrize("reverse", [False, True])
def test_long_memory_errs_no_more_than_the_exponential_unit_may(reverse):
    tensors = operands((1, 4096, 16, 16), seed=3)
    tensors["delta"], tensors["delta_bias"] = 0.3 * tensors["delta"], torch.full((16,), np.log(np.expm1(1e-3)))
    how = {"delta_softplus": True, "reverse": reverse}
    found = on_cpu(run(on_gpu(tensors), backend="triton", **how))
    # ex2.approx errs by 2^-22 of its result, which a thousand tokens remember, and as many on the way back
    assert_close(found, truth(tensors, **how), 2 * 1000 * 2**-22)


def test_offsets_beyond_32_bits():
    length, channels, tail = 2**20, 2304, 512
    if torch.cuda.mem_get_info()[0] < 20 * 2**30:
        pytest.skip("needs 20 GiB of free GPU memory")
    u = torch.randn(1, length, channels, device="cuda", dtype=torch.bfloat16)
    delta = torch.full_like(u, 0.5)
    A = -torch.arange(1.0, 3.0, device="cuda").repeat(channels, 1)  # nothing is left after a hundred tokens
    B = torch.randn(1, length, 2, device="cuda")
    out = selective_scan(u, delta, A, B, B, backend="triton")[:, -tail // 2 :]
    end = slice(length - tail, length)
    expected = selective_scan(u[:, end], delta[:, end], A, B[:, end], B[:, end], backend="triton")[:, -tail // 2 :]
    torch.testing.assert_close(out, expected)


def test_memory_is_at_most_eight_tensors_of_the_inputs_size():
    tensors = on_gpu(operands((32, 512, 1152, 16)))  # one segment on up to 144 processors
    run(tensors, backend="triton")
    torch.cuda.synchronize()
    leaves = [t.requires_grad_() for t in tensors.values()]
    dout = torch.randn_like(leaves[0])
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    selective_scan(*leaves, backend="triton").backward(dout)
    assert (torch.cuda.max_memory_allocated() - before) / dout.nbytes <= 8


def test_compiled_code_agrees():
    first, second = both_directions(ALL, (2, 70, 64, 16), device="cuda")
    z = first.pop("z")
    pairs = {name: (first[name], second[name]) for name in first}

    def call(z):
        return bidirectional_scan(**pairs, z=z, delta_softplus=True)

    torch.testing.assert_close(torch.compile(call, fullgraph=True)(z), call(z))
