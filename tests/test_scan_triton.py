"""The scan's Triton kernels, interpreted on CPU against the reference, and compiled ahead of time. Both directions at
once, with Triton and without."""

import os
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from scans import (
    ALL,
    BARE,
    assert_close,
    assert_equal,
    operands,
    run,
    truth,
)
from torch.utils.flop_counter import FlopCounterMode

from harness.cost.worker import cpu_peak
from models import create_model
from models.scan import available, bidirectional_scan, selective_scan
from models.scan.custom_op import workspace_of
from models.scan.operands import ScanOperands
from models.scan.triton import launch

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.slow,
]

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")

# ---- Interpreted -----------------------------------------------------------------------------------------------------

# Sizes B, L, E, N; operands present; softplus; reverse; dtype; segments that time is cut into.
CASES = {
    "forwards": ((2, 18, 5, 4), ALL, True, False, torch.float32, 1),
    "backwards": ((1, 37, 3, 2), ALL, True, True, torch.float32, 1),
    "one token": ((1, 1, 3, 2), ALL, True, False, torch.float32, 1),
    "states no power of two": ((1, 18, 4, 3), ALL, True, True, torch.float32, 1),
    "several blocks of channels": ((1, 17, 70, 1), ALL, True, False, torch.float32, 1),
    "bare": ((1, 20, 3, 2), BARE, False, True, torch.float32, 1),
    "no skip": ((1, 20, 3, 2), ALL - {"D"}, True, False, torch.float32, 1),
    "no gate": ((1, 20, 3, 2), ALL - {"z"}, True, True, torch.float32, 1),
    "no bias": ((1, 20, 3, 2), ALL - {"delta_bias"}, True, False, torch.float32, 1),
    "segments": ((2, 34, 3, 1), ALL, True, False, torch.float32, 3),
    "segments backwards": ((1, 40, 3, 2), ALL, True, True, torch.float32, 3),
    "bfloat16": ((1, 20, 4, 2), ALL, True, False, torch.bfloat16, 1),
    "float16": ((1, 20, 4, 2), ALL, True, True, torch.float16, 1),
    "strong decay": ((1, 20, 3, 2), ALL, False, False, torch.float32, 2),
    "long memory": ((1, 128, 1, 1), ALL, True, False, torch.float32, 2),
    "mixed dtypes": ((1, 20, 4, 2), ALL, True, False, torch.float32, 1),
    "views": ((2, 10, 4, 2), ALL, True, True, torch.float32, 1),
}
PAIRS = {"both, all operands": ALL, "both, bare": BARE}


def given(name):
    sizes, present, softplus, reverse, dtype, _ = CASES[name]
    tensors = operands(sizes, present, dtype, softplus=softplus)
    batch, _, channels, states = sizes
    if name == "strong decay":
        tensors["delta"], tensors["A"] = 30 * tensors["delta"] + 10, 40 * tensors["A"]
    elif name == "long memory":  # of them all
        tensors["delta"], tensors["delta_bias"] = 0.3 * tensors["delta"], torch.full((1,), np.log(np.expm1(1e-3)))
    elif name == "mixed dtypes":
        tensors |= {operand: tensors[operand].bfloat16() for operand in ("u", "B", "z")}
    elif name == "views":
        both, projected = torch.cat([tensors["u"], tensors["z"]], 2), torch.cat([tensors["B"], tensors["C"]], 2)
        tensors |= {"u": tensors["u"].transpose(1, 2).contiguous().transpose(1, 2), "z": both[..., channels:]}
        tensors |= {"B": projected[..., :states], "C": projected[..., states:]}
        tensors["delta"] = tensors["delta"][:1].expand(batch, -1, -1)
        tensors["A"] = tensors["A"].t().contiguous().t()
    return tensors, {"delta_softplus": softplus, "reverse": reverse}


def both_directions(present, sizes=(1, 18, 3, 2), dtype=torch.float32, device="cpu"):
    """Operands of each direction; z is shared."""
    pair = [operands(sizes, present, dtype, seed) for seed in (5, 6)]
    pair[1]["z"] = pair[0]["z"]
    return [{name: None if t is None else t.to(device) for name, t in tensors.items()} for tensors in pair]


def run_both(pair, dtype=None, backend="triton"):
    """As `run`; the gradients of the second direction have a 2 at their names' end."""
    leaves = [
        {name: None if t is None else t.detach().to(dtype or t.dtype).requires_grad_() for name, t in tensors.items()}
        for tensors in pair
    ]
    first, second = leaves
    z = first.pop("z")
    second.pop("z")
    paired = {name: None if first[name] is None else (first[name], second[name]) for name in first}
    out = bidirectional_scan(**paired, z=z, delta_softplus=True, backend=backend)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    out.backward(direction.to(out))
    gradients = {f"d{name}": t.grad for name, t in first.items() if t is not None}
    gradients |= {f"d{name}2": t.grad for name, t in second.items() if t is not None}
    return {"out": out.detach(), **gradients} | ({} if z is None else {"dz": z.grad})


def stated_over_allocated(step):
    """What the backend states of one call for both directions, over what torch's allocator gives out in it."""
    pair = both_directions(ALL, (1, 20, 64, 8))
    second = [tensor for name, tensor in pair[1].items() if name != "z"]
    call = [*pair[0].values(), *second, True, False, "triton"]
    out, states = torch.ops.dim.selective_scan(*call, True)
    operator, arguments = torch.ops.dim.selective_scan, (*call, True)
    if step == "backward":
        operator, arguments = torch.ops.dim.selective_scan_backward, (out, states, *call)
    buffers = workspace_of(operator.__name__, arguments)
    stated = sum(prod(buffer.shape) * buffer.dtype.itemsize for buffer in buffers)
    return stated / cpu_peak(lambda: operator(*arguments))


def mixer_gradients(keep):
    """Output and gradients of DiM's mixer, its operands kept or recomputed."""
    torch.manual_seed(0)
    mixer = create_model("DiM-P/4", 64, depth=1, state=2).blocks[0].mixer
    mixer.scan_backend, mixer.keeps_operands = "triton", keep
    x = torch.randn(1, 5, 32, requires_grad=True)
    out = mixer(x)
    return dict(enumerate([out.detach(), *torch.autograd.grad(out.sum(), [x, *mixer.parameters()])]))


def interpret(path):
    """In a process of its own, where kernels are interpreted: save the results of all cases."""
    torch.set_num_threads(1)
    results = {}
    for name, (*_, segments) in CASES.items():
        tensors, how = given(name)
        launch.WARPS_PER_PROCESSOR = segments * len(tensors["u"])  # of one processor; a sequence is one warp here
        scan = ScanOperands(*tensors.values(), *how.values())
        assert launch._Launch([scan], 32).segments == segments
        results[name] = run(tensors, backend="triton", **how)
    launch.WARPS_PER_PROCESSOR = 8  # two segments
    with FlopCounterMode(display=False) as counter:
        results |= {name: run_both(both_directions(present)) for name, present in PAIRS.items()}
    results["flops"] = torch.tensor(counter.get_total_flops())
    results["workspace"] = torch.tensor([stated_over_allocated(step) for step in ("forward", "backward")])
    results["recomputed"], results["kept"] = mixer_gradients(keep=False), mixer_gradients(keep=True)
    tensors, how = given("segments")
    tensors["delta"][0, 21] = float("nan")
    results["nan"] = selective_scan(**tensors, backend="triton", **how)
    options = (True, True, "triton", True)
    first, second = both_directions(BARE, (1, 3, 2, 1))
    second.pop("z")
    both = [None if t is None else t.requires_grad_() for t in (*first.values(), *second.values())]
    torch.library.opcheck(torch.ops.dim.selective_scan.default, (*both, *options))
    one = [None if t is None else t.requires_grad_() for t in operands((1, 3, 2, 1), ALL - {"D"}).values()]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.dim.selective_scan.default, (*one, *[None] * 7, *options), test_utils=checks)
    torch.save(results, path)


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    path = tmp_path_factory.mktemp("interpreted") / "results.pt"
    here = Path(__file__).parent
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}
    code = f"import test_scan_triton; test_scan_triton.interpret({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if "only 0-dimensional arrays can be converted" in done.stderr:
        pytest.skip("triton's interpreter is older than numpy 2.4, and cannot work with it")
    assert done.returncode == 0, done.stderr
    return torch.load(path, weights_only=True)


@needs_triton
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_match_the_reference(interpreted, name):
    tensors, how = given(name)
    dtype = min((t.dtype for t in tensors.values() if t is not None), key=lambda dtype: torch.finfo(dtype).bits)
    tolerance = torch.finfo(dtype).eps if dtype != torch.float32 else 2e-6
    assert {k: t.dtype for k, t in interpreted[name].items()} == {
        "out": tensors["u"].dtype, **{f"d{k}": t.dtype for k, t in tensors.items() if t is not None}
    }  # fmt: skip
    assert_close(interpreted[name], truth(tensors, **how), tolerance)


@needs_triton
@pytest.mark.parametrize("name", PAIRS)
def test_both_directions_in_one_launch_are_the_sum_of_two_scans(interpreted, name):
    pair = both_directions(PAIRS[name])
    found = interpreted[name]
    assert_close(found, run_both(pair, torch.float64, "reference"), 2e-6)
    forwards, backwards = (truth(pair[r], delta_softplus=True, reverse=r == 1)["out"] for r in (0, 1))
    assert_close({"out": found["out"]}, {"out": forwards + backwards}, 2e-6)


@needs_triton
def test_both_directions_are_counted_as_two_scans(interpreted):
    assert int(interpreted["flops"]) == len(PAIRS) * 2 * 2 * (4 + 12) * (18 * 3 * 2)


@needs_triton
def test_the_backend_states_what_its_calls_allocate(interpreted):
    assert interpreted["workspace"].tolist() == pytest.approx([1, 1], rel=0.05)


@needs_triton
def test_recomputed_operands_give_the_same_gradients_to_the_last_bit(interpreted):
    assert_equal(interpreted["recomputed"], interpreted["kept"])


@needs_triton
def test_a_nan_reaches_all_later_tokens_of_its_sequence(interpreted):
    lost = interpreted["nan"].isnan()
    assert lost[0, 21:].all()
    assert not lost[0, :21].any()
    assert not lost[1].any()


# ---- Both directions without Triton ----------------------------------------------------------------------------------


@pytest.mark.parametrize("present", [ALL, BARE])
def test_other_backends_scan_both_directions_one_after_the_other(present):
    pair = both_directions(present)
    assert_close(run_both(pair, backend="chunked"), run_both(pair, torch.float64, "reference"), 2e-6)


def test_directions_that_differ_in_shape_or_dtype_are_refused():
    first, second = both_directions(BARE)
    pairs = {name: None if first[name] is None else (first[name], second[name]) for name in first}
    pairs["A"] = (first["A"], second["A"].double())
    with pytest.raises(ValueError, match=r"both A must have one shape, dtype and device, got .*float32.*float64"):
        bidirectional_scan(**pairs)
    with pytest.raises(ValueError, match=r"^B must have shape"):
        bidirectional_scan(**{**pairs, "A": (first["A"], second["A"]), "B": (first["u"], second["u"])})


def test_compilers_see_both_directions():
    first, second = both_directions(BARE)
    pairs = {name: None if first[name] is None else (first[name], second[name]) for name in first}

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled_scan(**operands):
        return bidirectional_scan(**operands, delta_softplus=True)

    torch.testing.assert_close(compiled_scan(**pairs), bidirectional_scan(**pairs, delta_softplus=True))


def test_without_a_gpu_the_backend_says_why():
    if not torch.cuda.is_available():
        assert available()["triton"] == "torch sees no CUDA device"
    assert launch.unsupported(torch.device("cuda"), torch.float64).startswith("its state is float32")
    with pytest.raises(ValueError, match="'triton' cannot run here: it runs on CUDA tensors, not on cpu; choose from"):
        selective_scan(**operands((1, 4, 4, 4)), backend="triton")


# ---- Compiled ahead of time ------------------------------------------------------------------------------------------


def compiled(name, capability, dtype, width, **constants):
    """Resource usage and instructions of a kernel, with 16 states and all operands, compiled for a GPU not here."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from models.scan.triton import backward, forward, tiles

    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("kernels are interpreted")
    direction = tiles.Operands(*[f"*{dtype}"] * 2, "*fp32", *[f"*{dtype}"] * 2, "*fp32", "*fp32")
    gradients = backward.GradientBuffers(*[f"*{dtype}"] * 2, *["*fp32"] * 4, f"*{dtype}", "*fp32")
    pointers = dict.fromkeys(("z", "out", "dout"), f"*{dtype}")
    pointers |= dict.fromkeys(("chunk_states", "token_states", "carries"), "*fp32")
    types = {"first": direction, "second": direction, "gradients": gradients, **pointers}
    types["pitch"] = tiles.Pitches(*["i32"] * len(tiles.Pitches._fields))
    constants |= {"STATES": 16, "CHUNK": launch.CHUNK, "WIDTH": width, "SOFTPLUS": True, "REVERSE": False}
    kernel = getattr(forward if name == "forward" else backward, name)
    signature = {p: "constexpr" if p in constants else types.get(p, "i32") for p in kernel.arg_names}
    source = ASTSource(kernel, signature=signature, constexprs=constants)
    options = {"num_warps": width // 32, "enable_fp_fusion": True}
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["cubin"]
    return _dump(binary, "--dump-resource-usage"), _dump(binary, "-sass")


def _dump(binary, what):
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, what, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def registers_and_stack(usage):
    """Of a thread: registers, and bytes on the stack, which is where spilled registers are."""
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:0", usage)
    assert found, usage
    return int(found[1]), int(found[2])


@needs_triton
@pytest.mark.parametrize(
    ("capability", "dtype", "read_out"), [(80, "fp32", True), (90, "bf16", True), (90, "fp32", False)]
)
def test_forward_keeps_states_in_registers(capability, dtype, read_out):
    usage, code = compiled("forward", capability, dtype, launch.FORWARD_WIDTH, READ_OUT=read_out, KEEP=read_out)
    registers, stack = registers_and_stack(usage)
    assert registers <= 128  # sixteen warps on a processor
    assert stack == 0
    assert len(re.findall(r"\bMUFU\.EX2", code)) >= 16  # the states' decays: the pattern reads this code
    assert not re.findall(r"\b(SHFL|BAR|STS|LDS|STL|LDL)\b", code)


@needs_triton
@pytest.mark.parametrize(("name", "capability", "dtype"), [("adjoint_carry", 80, "bf16"), ("backward", 90, "bf16")])
def test_backward_shuffles_only_to_sum_over_channels(name, capability, dtype):
    usage, code = compiled(name, capability, dtype, launch.BACKWARD_WIDTH)
    registers, stack = registers_and_stack(usage)
    assert registers <= 200  # ten warps on a processor
    assert stack < 16 * 4  # less than one of its rows of states: some versions of the assembler leave a few words there
    assert len(re.findall(r"\bMUFU\.EX2", code)) >= 16
    assert not re.findall(r"\b(BAR|STS|LDS)\b", code)
    sums = 2 * 16 if name == "backward" else 0  # dB and dC of every state, over the 32 threads of a warp
    assert len(re.findall(r"\bSHFL\b", code)) == 5 * sums
