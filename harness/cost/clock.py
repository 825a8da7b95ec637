"""Timing and memory of one workload in a process of its own: warm-ups apart, raw samples kept, an OOM as a verdict.

`time_apart` starts the process and waits; `python -m harness.cost.clock` is what it starts: a workload comes in as JSON
on its standard input, and what was found goes out as one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from harness.core.paths import CHECKOUT
from harness.core.provenance import Provenance
from harness.core.records import LatencyRecord
from harness.core.workload import Workload
from harness.cost.analytic import analytic
from harness.cost.memory import predict_memory
from harness.cost.step import NETWORK_PASSES, configure, step_of
from harness.cost.sweep import Timing
from models import ModelSpec, create_model, families

OOM_MARKS = ("out of memory", "can't allocate memory", "Unable to allocate")
KILLED = -9  # what the kernel's own out-of-memory killer leaves behind


@dataclass(frozen=True)
class Found:
    """What a run of a workload found. Seconds a step, warm-ups first in time; bytes at the peak; joules a step."""

    verdict: str
    note: str = ""
    warmups: list[float] = field(default_factory=list)
    samples: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    joules: float | None = None
    device: str = ""
    resolved: str = ""  # what the workload's implementation stood for, where its name does not say it


def time_apart(workload: Workload, timing: Timing) -> Found:
    """Run a workload in a fresh process. Whatever becomes of it, the answer is a Found: `ok`, `oom` or `error`.

    On a CPU the memory limit makes an OOM one of the process, not of the machine.
    """
    question = {
        "workload": asdict(workload), "timing": asdict(timing),
        "family": families.reference(families.named(workload.spec.family)), "path": sys.path,
    }  # fmt: skip
    try:
        child = subprocess.run(
            [sys.executable, "-m", "harness.cost.clock"],
            input=json.dumps(question), capture_output=True, text=True, timeout=timing.timeout, check=False,
            cwd=CHECKOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Found("error", f"no answer within {timing.timeout:g} s")
    if child.returncode == KILLED:
        return Found("oom", "killed by the operating system")
    try:
        return Found(**json.loads(child.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        last = (child.stderr.strip().splitlines() or ["no output"])[-1]
        return Found("error", f"exit code {child.returncode}: {last}")


def time_here(workload: Workload, device: str, rounds: int, warmup: int) -> Found:
    """Time `rounds` steps after `warmup`, then watch the memory of one more, in this process."""
    torch.manual_seed(0)
    kept: dict[int, int] = {}

    def keep(tensor: Any, op: str, category: str) -> None:
        if category != "gradients":
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()

    model = create_model(workload.spec, workload.resolution, device=device)
    configure(model, workload)
    for tensor in (*model.parameters(), *model.buffers()):
        keep(tensor, "weights", "weights")
    step = step_of(workload, model, device, keep)
    timed = _cuda_seconds if device == "cuda" else _seconds
    warmups = [timed(step) for _ in range(warmup)]
    with _energy(device) as joules:
        samples = [timed(step) for _ in range(rounds)]
    peak = _cuda_peak(step) if device == "cuda" else sum(kept.values()) + _cpu_peak(step)
    ways = families.named(workload.spec.family).implementations
    resolved = ways.resolve(workload.implementation, device) if ways and ways.resolve else ""
    spent = joules()
    per_step = None if spent is None else spent / rounds
    return Found("ok", "", warmups, samples, peak, per_step, describe(device), resolved)


def _seconds(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _cuda_seconds(step: Callable[[], Any]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    step()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def _cuda_peak(step: Callable[[], Any]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def _cpu_peak(step: Callable[[], Any]) -> int:
    """The most that a step holds, beyond what was there, in torch's CPU allocator."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    held = peak = 0
    assert profile.profiler is not None
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


@contextlib.contextmanager
def _energy(device: str) -> Iterator[Callable[[], float | None]]:
    """Joules that the GPU spends, where NVML tells."""
    try:
        import pynvml

        if device != "cuda":
            raise ImportError
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        before = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # no NVML, or a GPU that does not meter
        yield lambda: None
        return
    after: list[int] = []
    yield lambda: (after[0] - before) / 1e3 if after else None
    after.append(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))


def device_name(device: str) -> str:
    """What runs the workloads, in words. Raises ValueError where there is no such device."""
    if device == "cpu":
        return Provenance.here("cpu").device
    name = _nvidia_smi("name")
    if not name:
        raise ValueError("no CUDA device: nvidia-smi finds none; use --device cpu, or --predict")
    return name


def latency_record(workload: Workload, found: Found, settings: dict[str, object]) -> LatencyRecord:
    """A run as a record: the median latency of a step, raw samples, the memory beside its prediction."""
    parts: dict[str, float] = {}
    if found.peak_bytes is not None:
        flops = analytic(workload.spec, workload.resolution, workload.batch).macs * 2 * NETWORK_PASSES[workload.action]
        predicted = predict_memory(workload).nbytes
        parts = {"peak_bytes": found.peak_bytes, "predicted_bytes": predicted, "flops": flops}
    if found.joules is not None:
        parts["joules"] = found.joules
    ways = families.named(workload.spec.family).implementations
    resolved = f"; {ways.field}: {found.resolved}" if ways and found.resolved else ""
    return LatencyRecord(
        quantity="latency",
        value=statistics.median(found.samples) if found.samples else None,
        unit="s",
        method="CUDA events" if found.device.startswith("cuda") else "wall clock",
        verdict=found.verdict,
        workload={**workload.settings(), **settings},
        parts=parts,
        samples=found.samples,
        warmups=found.warmups,
        seed=0,
        note=found.note or f"{found.device}{resolved}",
        provenance=Provenance.here(str(settings["device"])),
    )


def describe(device: str) -> str:
    """The state of the device: threads of a CPU; driver, clocks and power limit of a GPU, read and never set."""
    if device == "cpu":
        return f"cpu, {torch.get_num_threads()} threads"
    state = _nvidia_smi("driver_version,clocks.sm,clocks.mem,power.limit")
    return f"cuda; driver, SM clock, memory clock, power limit: {state}"


def _nvidia_smi(query: str) -> str:
    """What nvidia-smi says of the first GPU; nothing where there is none. It makes no CUDA context, as torch would."""
    if not shutil.which("nvidia-smi"):
        return ""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "--id=0"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _main() -> None:
    question = json.load(sys.stdin)
    timing = Timing(**question["timing"])
    if timing.memory_limit:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (timing.memory_limit, timing.memory_limit))
    sys.path += [entry for entry in question["path"] if entry not in sys.path]  # a family may be of a user's module
    families.load(question["family"])
    fields = question["workload"]
    workload = Workload(**{**fields, "spec": ModelSpec(**fields["spec"])})
    try:
        found = time_here(workload, timing.device, timing.rounds, timing.warmup)
    except (RuntimeError, MemoryError) as error:  # torch.cuda.OutOfMemoryError is a RuntimeError
        line = (str(error).splitlines() or [""])[0]
        oom = isinstance(error, MemoryError) or any(mark in str(error) for mark in OOM_MARKS)
        found = Found("oom" if oom else "error", f"{type(error).__name__}: {line}")
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    _main()
