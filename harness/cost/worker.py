"""The process that runs one workload: `python -m harness.cost.worker`, one line of JSON in and one out.

The first line in is the question; then `warm`, `sample` and `joules` request one step each, until the input ends. An
answer has the seconds of the step and what was found with it, or the verdict `oom` or `error`, after which the process
ends. The first warm-up is watched: it gives the peak of memory, and where memory ends, the operator that it broke.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.core.workload import Workload
from harness.cost.conditions import CpuConditions, conditions_of
from harness.cost.step import configure, step_of
from models import ModelSpec, create_model, families

OOM_MARKS = ("out of memory", "can't allocate memory", "Unable to allocate")
JOULE_SECONDS = 1.0
"""Steps go on for so long under the energy counter, which NVML refreshes some ten times a second."""

SHORT_SECONDS = 0.1
"""A step below it runs once more, untimed, before a warm sample: others ran since, and threads and caches cooled."""

FLUSH_BYTES = 256 * 2**20
"""Written before a cold sample where the size of the last-level cache is not known."""


class Station:
    """A model and its step on a device, ready to be timed."""

    def __init__(self, workload: Workload, device: str, cache: str = "warm", cuda_graph: bool = False) -> None:
        torch.manual_seed(0)
        self.workload, self.device, self.cuda_graph = workload, device, cuda_graph
        self.watch = Watch()
        self.conditions = conditions_of(device)
        self.timed = _cuda_seconds if device == "cuda" else _seconds
        self.flush = _flush(device) if cache == "cold" else None
        self.kept: dict[int, int] = {}
        self.last_seconds = 0.0
        self.model = create_model(workload.spec, workload.resolution, device=device)
        configure(self.model, workload)
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            self._keep(tensor, "weights", "weights")
        self.watch.operator = "the optimizer"
        self.step = step_of(workload, self.model, device, self._keep)

    def _keep(self, tensor: Any, op: str, category: str) -> None:
        if category != "gradients":
            self.kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()

    def warm(self) -> dict[str, Any]:
        """A warm-up: its seconds."""
        self.last_seconds = self.timed(self.step)
        return {"seconds": self.last_seconds}

    def watched(self) -> dict[str, Any]:
        """The first warm-up: its seconds, and the peak of memory in bytes, of what is kept between steps included."""
        seconds: list[float] = []

        def step() -> None:
            with self.watch.of(self.model):
                seconds.append(self.timed(self.step))

        peak = _cuda_peak(step) if self.device == "cuda" else sum(self.kept.values()) + cpu_peak(step)
        self.last_seconds = seconds[0]
        return {"seconds": seconds[0], "peak_bytes": peak}

    def sample(self) -> dict[str, Any]:
        """A timed step: its seconds, and why it does not count, if so."""
        if self.cuda_graph:
            self._capture()
        if self.flush:
            self.flush()
        elif self.last_seconds < SHORT_SECONDS:
            self.step()
        self.conditions.begin()
        self.last_seconds = seconds = self.timed(self.step)
        found: dict[str, Any] = {"seconds": seconds, "fault": self.conditions.fault()}
        if isinstance(self.conditions, CpuConditions):
            found["elsewhere"] = self.conditions.elsewhere[-1]
        return found

    def _capture(self) -> None:
        """Make the step the replay of a CUDA graph of it."""
        graph, step = torch.cuda.CUDAGraph(), self.step
        with torch.cuda.graph(graph):
            step()
        self.step, self.cuda_graph = graph.replay, False

    def joules(self) -> dict[str, Any]:
        """Joules of a step, over steps of a second at least; None where the device does not meter."""
        meter = _energy_meter() if self.device == "cuda" else None
        if meter is None:
            return {"joules": None}
        torch.cuda.synchronize()
        before, start, steps = meter(), time.perf_counter(), 0
        while time.perf_counter() - start < JOULE_SECONDS:
            self.step()
            torch.cuda.synchronize()
            steps += 1
        return {"joules": (meter() - before) / steps}

    def described(self) -> dict[str, Any]:
        """What the workload's implementation stands for here, where its name does not say it."""
        ways = families.named(self.workload.spec.family).implementations
        return {"resolved": ways.resolve(self.workload.implementation, self.device) if ways and ways.resolve else ""}


class Watch(TorchDispatchMode):
    """Knows which operator runs, and in which module."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operator = "the weights"
        self.path: list[str] = []

    @contextlib.contextmanager
    def of(self, model: torch.nn.Module) -> Iterator[None]:
        """Watch one step of a model."""
        hooks: list[torch.utils.hooks.RemovableHandle] = []
        for name, module in model.named_modules():
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self.path.append(name)))
            hooks.append(module.register_forward_hook(lambda *_: self._leave()))
        with self:
            yield
        for hook in hooks:
            hook.remove()

    def _leave(self) -> None:
        self.path.pop()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.operator = func._overloadpacket.__name__
        return func(*args, **(kwargs or {}))

    def __str__(self) -> str:
        where = re.sub(r"\b\d+\b", "*", self.path[-1]) if self.path else ""
        return f"{self.operator} in {where}" if where else self.operator


def refused_bytes(message: str) -> str:
    """How much could not be had, in GiB, from what torch says of it; empty where it does not say."""
    found = re.search(r"[Tt]ried to allocate ([\d.]+) ?(bytes|[KMG]iB|)", message)
    if not found:
        return ""
    unit = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}.get(found[2], 1)
    return f"{float(found[1]) * unit / 2**30:.2f} GiB"


def _seconds(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _cuda_seconds(step: Callable[[], Any]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
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


def cpu_peak(step: Callable[[], Any]) -> int:
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


def _flush(device: str) -> Callable[[], None]:
    """Writes twice the last-level cache, so that the next step finds nothing of its own there."""
    if device == "cuda":
        nbytes = 2 * torch.cuda.get_device_properties(0).L2_cache_size
    else:
        nbytes = 2 * _last_level_cache_bytes() or FLUSH_BYTES
    buffer = torch.empty(nbytes, dtype=torch.uint8, device=device)

    def flush() -> None:
        buffer.random_(256)
        if device == "cuda":
            torch.cuda.synchronize()

    return flush


def _last_level_cache_bytes() -> int:
    """The largest cache of the first core, as Linux states it; 0 where it does not."""
    sizes = [
        int(re.sub(r"\D", "", text)) * 2**10
        for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
        if (text := path.read_text()).strip().endswith("K")
    ]
    return max(sizes, default=0)


def _energy_meter() -> Callable[[], float] | None:
    """The joules that the first GPU has spent, where NVML states it."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # no NVML, or a GPU that does not meter
        return None
    return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3


def _main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a user's module prints is no answer
    question = json.loads(sys.stdin.readline())
    if question["memory_limit"]:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (question["memory_limit"], question["memory_limit"]))
    sys.path += [entry for entry in question["path"] if entry not in sys.path]  # a family may be of a user's module
    families.load(question["family"])
    fields = question["workload"]
    workload = Workload(**{**fields, "spec": ModelSpec(**fields["spec"])})
    station: Station | None = None
    try:
        station = Station(workload, question["device"], question["cache"], question["cuda_graph"])
        commands: dict[str, Callable[[], dict[str, Any]]] = {
            "watched": station.watched, "warm": station.warm, "sample": station.sample, "joules": station.joules,
        }  # fmt: skip
        print(json.dumps(station.described()), file=answers)
        for line in sys.stdin:
            print(json.dumps(commands[line.strip()]()), file=answers)
    except (RuntimeError, MemoryError, ValueError) as error:  # torch.cuda.OutOfMemoryError is a RuntimeError
        print(json.dumps(_failure(error, station)), file=answers)


def _mapped() -> str:
    """What this process had mapped, on Linux: more than its tensors, where the heap between them is torn."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return ""
    found = re.search(r"VmData:\s+(\d+) kB", status)
    return f"beyond {int(found[1]) * 2**10 / 2**30:.2f} GiB" if found and not torch.cuda.is_initialized() else ""


def _failure(error: Exception, station: Station | None) -> dict[str, Any]:
    text = str(error)
    if isinstance(error, MemoryError) or any(mark in text for mark in OOM_MARKS):
        where = str(station.watch) if station else "the weights"
        note = ": ".join(filter(None, (where, refused_bytes(text))))
        return {"verdict": "oom", "note": " ".join(filter(None, (note, _mapped())))}
    return {"verdict": "error", "note": f"{type(error).__name__}: {(text.splitlines() or [''])[0]}"}


if __name__ == "__main__":
    _main()
