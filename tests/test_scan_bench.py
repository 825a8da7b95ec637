"""How fast the selective scan is on this machine, beside what it stands in for. Not part of the normal test run:

    python -m pytest tests/test_scan_bench.py --benchmark-only

takes some three minutes on an idle machine and, if every case has run, writes results/benchmarks/scan.md and scan.json.
All implementations get the same operands in one process, each in its own layout. They take turns, so that whatever else
the machine does hits all of them; each after a matrix product, as a scan stands between torch operators, whose threads
are awake then.
"""

import json
import os
import platform
import statistics
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu, softplus

from harness.core.provenance import Provenance
from models.scan import available, selective_scan

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"
COMMAND = "python -m pytest tests/test_scan_bench.py --benchmark-only"
STATES = 16
SHAPES = [(1, 768, 256), (4, 768, 256), (1, 2304, 1024), (1, 2304, 4096)]  # batch, channels, tokens
SECONDS_A_CASE, ROUNDS = 15.0, (5, 40)  # as many rounds as fit into the time, within bounds


def operands(batch: int, channels: int, length: int) -> list[Tensor]:
    """u, delta, A, B, C, D, z, delta_bias as a freshly initialised Mamba layer has them."""
    torch.manual_seed(0)
    long, short = (batch, length, channels), (batch, length, STATES)
    A = -torch.arange(1.0, STATES + 1).expand(channels, STATES).contiguous()
    dt = torch.empty(channels).uniform_(-6.9, -2.3).exp()  # 1e-3 to 1e-1
    bias = dt + torch.log(-torch.expm1(-dt))  # the inverse of softplus
    u, delta, z = torch.randn(long), 0.5 * torch.randn(long), torch.randn(long)
    return [u, delta, A, torch.randn(short), torch.randn(short), torch.ones(channels), z, bias]


def channel_first(tensors: list[Tensor]) -> list[Tensor]:
    return [t.transpose(1, 2).contiguous() if t.dim() == 3 else t for t in tensors]


# ---- What is compared ------------------------------------------------------------------------------------------------


def discretise(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """exp(dt A) and dt u B, materialised as (B, E, L, N)."""
    dt = softplus(delta + bias[:, None])
    return torch.exp(dt[..., None] * A[:, None]), (dt * u)[..., None] * B.transpose(1, 2)[:, None]


def slices(u, delta, A, B, C, D, z, bias):
    """What mamba_ssm's selective_scan_ref computes, in its way: channel-first, a slice of each operand per token."""
    decay, x = discretise(u, delta, A, B, bias)
    h, ys = torch.zeros_like(decay[:, :, 0]), []
    for t in range(u.shape[2]):
        h = decay[:, :, t] * h + x[:, :, t]
        ys.append(torch.einsum("ben,bn->be", h, C[:, :, t]))
    return (torch.stack(ys, 2) + D[:, None] * u) * silu(z)


def unbind(u, delta, A, B, C, D, z, bias):
    """The same, with all slices made at once: the backward of one slice writes a whole tensor of zeros."""
    decay, x = discretise(u, delta, A, B, bias)
    h, ys = torch.zeros_like(decay[:, :, 0]), []
    for decay_t, x_t, C_t in zip(decay.unbind(2), x.unbind(2), C.unbind(2), strict=True):
        h = decay_t * h + x_t
        ys.append(torch.einsum("ben,bn->be", h, C_t))
    return (torch.stack(ys, 2) + D[:, None] * u) * silu(z)


def mambapy(u, delta, A, B, C, D, z, bias):
    """The parallel scan of mamba.py (the mambapy package), channel-last."""
    from mambapy.pscan import pscan

    dt = softplus(delta + bias)[..., None]
    h = pscan(torch.exp(dt * A), dt * B[:, :, None] * u[..., None])
    return ((h @ C[..., None]).squeeze(3) + D * u) * silu(z)


def ours(backend):
    def scan(*tensors, reverse=False):
        return selective_scan(*tensors, delta_softplus=True, reverse=reverse, backend=backend)

    return scan


NAMES = {
    "selective_scan_ref": slices,
    "unbind loop": unbind,
    "mamba.py pscan": mambapy,
    "chunked": ours("chunked"),
    "numba": ours("numba"),
}
BASELINES = list(NAMES)[:3]


def forward(name, shape):
    tensors = operands(*shape)
    if name in BASELINES[:2]:
        tensors = channel_first(tensors)

    def call():
        with torch.no_grad():
            return NAMES[name](*tensors)

    return call


def training(name, shape):
    tensors = operands(*shape)
    if name in BASELINES[:2]:
        tensors = channel_first(tensors)
    tensors = [tensor.requires_grad_() for tensor in tensors]
    direction = torch.randn(tensors[0].shape)

    def call():
        return torch.autograd.grad(NAMES[name](*tensors), tensors, direction)

    return call


def bidirectional(name, shape):
    """Both directions of a layer, and their sum."""
    tensors = operands(*shape)
    if name in BASELINES[:2]:
        tensors = channel_first(tensors)
    axis = tensors[0].shape.index(shape[2])

    def call():
        with torch.no_grad():
            if name in BASELINES:
                flipped = [tensor.flip(axis) if tensor.dim() == 3 else tensor for tensor in tensors]
                return NAMES[name](*tensors) + NAMES[name](*flipped).flip(axis)
            return NAMES[name](*tensors) + NAMES[name](*tensors, reverse=True)

    return call


CASES = [*((forward, shape) for shape in SHAPES), (bidirectional, SHAPES[2]), *((training, s) for s in SHAPES[:3])]


def compared(work, shape):
    """The implementations to compare, ours last. The backward of selective_scan_ref is quadratic in the number of
    tokens: one shape is enough to see it."""
    too_slow = ["selective_scan_ref"] if work is training and shape != SHAPES[0] else []
    if version_of("mambapy") == "absent":
        too_slow.append("mamba.py pscan")
    return [name for name in NAMES if name not in too_slow and not available().get(name)]


# ---- Measuring and reporting -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report():
    seconds: dict[tuple[str, tuple[int, int, int]], dict[str, list[float]]] = {}
    load = load_average()
    yield seconds
    if len(seconds) == len(CASES):
        write(seconds, load)


@pytest.mark.parametrize(("work", "shape"), CASES, ids=lambda part: getattr(part, "__name__", str(part)))
def test_speed(benchmark, report, work, shape):
    *others, ours = compared(work, shape)
    calls, matrix = {name: work(name, shape) for name in [*others, ours]}, torch.randn(512, 512)
    seconds = {name: [] for name in calls}

    def timed(name):
        torch.mm(matrix, matrix)
        began = time.perf_counter()
        calls[name]()
        seconds[name].append(time.perf_counter() - began)

    def time_others():
        for name in others:
            timed(name)
        torch.mm(matrix, matrix)

    for name in calls:
        calls[name]()
        timed(name)
    fitting = int(SECONDS_A_CASE / sum(sum(data) for data in seconds.values()))
    for data in seconds.values():
        data.clear()
    benchmark.pedantic(calls[ours], setup=time_others, rounds=min(max(fitting, ROUNDS[0]), ROUNDS[1]))
    seconds[ours] = list(benchmark.stats.stats.data)
    benchmark.extra_info.update({name: statistics.median(data) for name, data in seconds.items()})
    report[work.__name__, shape] = seconds


def write(seconds, load) -> None:
    """The table for readers, and every round for whoever wants to see how much they differ."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    machine = {
        "command": COMMAND,
        "commit": Provenance.here().commit,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": cpu_model(),
        "threads": torch.get_num_threads(),
        "load average before and after": f"{load}, {load_average()}",
        "nice value": nice_value(),
        "python": platform.python_version(),
        **{package: version_of(package) for package in ("torch", "numba", "mambapy")},
    }
    rounds = [
        {"work": work, "shape_bel": [batch, channels, length], "seconds": data}
        for (work, (batch, channels, length)), data in seconds.items()
    ]
    (RESULTS / "scan.json").write_text(json.dumps({**machine, "states": STATES, "rounds": rounds}, indent=1) + "\n")
    (RESULTS / "scan.md").write_text(table(seconds, machine))


def table(seconds, machine) -> str:
    times, ratios = [], []
    for (work, shape), data in seconds.items():
        label = f"| {work} | {', '.join(map(str, shape))} | {len(next(iter(data.values())))} |"
        medians = [f"{1e3 * statistics.median(data[name]):.2f}" if name in data else "" for name in NAMES]
        times.append(f"{label} {' | '.join(medians)} |")
        for backend in [name for name in data if name not in BASELINES]:
            cells = [times_faster(data[backend], data.get(other)) for other in BASELINES]
            ratios.append(f"{label} {backend} | {' | '.join(cells)} |")
    lines = [
        "# The selective scan on a CPU",
        "",
        f"Made by `{COMMAND}`; float32, {STATES} states a channel.",
        "",
        *(f"- {key}: {value}" for key, value in machine.items() if key != "command"),
        "",
        "`selective_scan_ref` is a loop over slices of materialised operands, as mamba_ssm's function of that name is;",
        "`unbind loop` the same with all slices made at once; `mamba.py pscan` the scan of the mambapy package.",
        "`bidirectional` is both directions and their sum, where what cannot run in reverse flips its operands;",
        "`training` is forward and backward. The backward over slices is quadratic in the number of tokens, which",
        "flatters whoever is compared with it: the other two are the baselines there.",
        "",
        "Milliseconds, median over the rounds; in a round each implementation runs once (scan.json has every round):",
        "",
        f"| work | batch, channels, tokens | rounds | {' | '.join(NAMES)} |",
        "|---|---|---:|" + "---:|" * len(NAMES),
        *times,
        "",
        "How many times faster, median over the rounds (smallest of them):",
        "",
        f"| work | batch, channels, tokens | rounds | backend | than {' | than '.join(BASELINES)} |",
        "|---|---|---:|---|" + "---:|" * len(BASELINES),
        *ratios,
    ]
    return "\n".join(lines) + "\n"


def times_faster(ours, theirs) -> str:
    if theirs is None:
        return ""
    ratios = [slow / fast for fast, slow in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.1f} ({min(ratios):.1f})"


def cpu_model() -> str:
    if sys.platform.startswith("linux"):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def load_average() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def nice_value() -> str:
    """Of the scheduling group where Linux has one, which then counts instead of that of the process."""
    group = Path("/proc/self/autogroup")
    return group.read_text().split()[-1] if group.exists() else str(os.nice(0)) if hasattr(os, "nice") else "unknown"


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
