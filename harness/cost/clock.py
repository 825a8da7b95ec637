"""Timing and memory of workloads in processes of their own and interleaved rounds: raw samples, an OOM as a verdict.

What is compared is timed together: one step of each in turn, the order reversed in every second round, so that a device
that slows down slows all of them. `harness.cost.worker` is the process that runs a workload.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from harness.core.paths import CHECKOUT
from harness.core.provenance import Provenance
from harness.core.records import LatencyRecord
from harness.core.workload import Workload
from harness.cost.analytic import step_macs
from harness.cost.memory import Peak, predict_memory
from harness.cost.timing import LEAST_ROUNDS, Series, Timing
from harness.cost.worker import Station
from models import families

KILLED = -9  # what the kernel's own out-of-memory killer leaves behind
ALLOCATOR = ("LD_PRELOAD", "MALLOC_MMAP_THRESHOLD_", "THP_MEM_ALLOC_ENABLE")
"""Environment variables that change how a CPU's memory is given out, and with it times and what fits."""


@dataclass(frozen=True)
class Found:
    """What a run of a workload found. Seconds a step, warm-ups first in time; bytes at the peak; joules a step."""

    verdict: str
    note: str = ""
    warmups: list[float] = field(default_factory=list)
    samples: list[float] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)  # why samples were left out
    ended: str = ""  # the rule that ended the rounds
    peak_bytes: int | None = None
    joules: float | None = None
    elsewhere: float | None = None  # the largest share of the cores that others used during a sample
    device: str = ""
    resolved: str = ""  # what the workload's implementation stood for, where its name does not say it
    beside: list[str] = field(default_factory=list)  # what was timed in the same rounds


class FailureError(Exception):
    """A process that runs a workload gave no answer; holds the verdict and the note of its record."""

    def __init__(self, verdict: str, note: str) -> None:
        super().__init__(note)
        self.verdict, self.note = verdict, note


class Worker:
    """The process of one workload. On a CPU the memory limit makes an OOM one of the process, not of the machine."""

    def __init__(self, workload: Workload, timing: Timing) -> None:
        self.workload, self.timing = workload, timing
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "harness.cost.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, cwd=CHECKOUT,
        )  # fmt: skip

    def start(self) -> dict[str, Any]:
        """Build the model and its step."""
        question = {
            "workload": asdict(self.workload), "device": self.timing.device, "memory_limit": self.timing.memory_limit,
            "cache": self.timing.cache, "cuda_graph": self.timing.cuda_graph, "path": sys.path,
            "family": families.reference(families.named(self.workload.spec.family)),
        }  # fmt: skip
        return self.answer(json.dumps(question))

    def answer(self, command: str) -> dict[str, Any]:
        """The answer to one line. Raises FailureError where the process has none, within the time that there is."""
        assert self.process.stdin
        assert self.process.stdout
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(self.timing.timeout, give_up)
        timer.start()
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        finally:
            timer.cancel()
        if late.is_set():
            raise FailureError("error", f"no answer within {self.timing.timeout:g} s")
        try:
            found: dict[str, Any] = json.loads(line)
        except ValueError:
            raise self._failure() from None
        if "verdict" in found:
            raise FailureError(found["verdict"], found["note"])
        return found

    def _failure(self) -> FailureError:
        code = self.process.wait()
        if code == KILLED:  # within a limit that holds, others have the memory, and the workload may still fit
            limited = self.timing.memory_limit and sys.platform.startswith("linux")
            return FailureError("error" if limited else "oom", "killed by the operating system")
        self.errors.seek(0)
        last = (self.errors.read().strip().splitlines() or ["no output"])[-1]
        return FailureError("error", f"exit code {code}: {last}")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.errors.close()


class Run:
    """A workload on its way: its process, its series of samples, and the answer once there is one."""

    def __init__(self, workload: Workload, timing: Timing, beside: list[str]) -> None:
        self.series, self.beside, self.timing = Series(timing), beside, timing
        self.found: Found | None = None
        self.elsewhere: list[float] = []
        self.peak_bytes: int | None = None
        self.resolved = ""
        self.worker = Worker(workload, timing)

    def prepare(self) -> None:
        """Build, and warm up; the first step is watched for its memory."""
        self._attempt(self._prepare)

    def _prepare(self) -> None:
        self.resolved = self.worker.start()["resolved"]
        first = self.worker.answer("watched")
        self.peak_bytes = first["peak_bytes"]
        self.series.warmups.append(first["seconds"])
        while not self.series.warm:
            self.series.warmups.append(self.worker.answer("warm")["seconds"])

    def round(self) -> None:
        """One sample more; the last one gives the answer."""
        self._attempt(self._round)

    def _round(self) -> None:
        answer = self.worker.answer("sample")
        self.series.add(answer["seconds"], answer["fault"])
        if "elsewhere" in answer and not answer["fault"]:
            self.elsewhere.append(answer["elsewhere"])
        if self.series.ended:
            self._finish(self.worker.answer("joules")["joules"])

    def _finish(self, joules: float | None) -> None:
        series = self.series
        ok = len(series.samples) >= min(LEAST_ROUNDS, self.timing.rounds)
        self.found = Found(
            verdict="ok" if ok else "error",
            note="" if ok else f"{len(series.rejected)} samples were rejected: {series.rejected[-1]}",
            warmups=series.warmups, samples=series.samples, rejected=series.rejected, ended=series.ended,
            peak_bytes=self.peak_bytes, joules=joules, elsewhere=max(self.elsewhere, default=None),
            device=describe(self.timing.device), resolved=self.resolved, beside=self.beside,
        )  # fmt: skip

    def _attempt(self, work: Any) -> None:
        try:
            work()
        except FailureError as failure:
            self.found = Found(
                failure.verdict, failure.note, self.series.warmups, self.series.samples,
                device=describe(self.timing.device),
            )  # fmt: skip
            self.worker.close()


def time_together(workloads: Sequence[Workload], timing: Timing) -> list[Found]:
    """Time workloads in interleaved rounds, each in a fresh process.

    Whatever becomes of one, its answer is a Found, `ok`, `oom` or `error`, and the others go on.
    """
    names = [w.spec.name for w in workloads]
    runs: list[Run] = []
    try:
        for i, workload in enumerate(workloads):
            runs.append(Run(workload, timing, names[:i] + names[i + 1 :]))
            runs[-1].prepare()
        forth = True
        while any(run.found is None for run in runs):
            for run in runs if forth else reversed(runs):
                if run.found is None:
                    run.round()
            forth = not forth
    finally:
        for run in runs:
            run.worker.close()
    return [run.found for run in runs if run.found]


def time_apart(workload: Workload, timing: Timing) -> Found:
    """Time one workload by itself."""
    (found,) = time_together([workload], timing)
    return found


def time_here(workload: Workload, device: str, rounds: int, warmup: int) -> Found:
    """Time `rounds` steps after `warmup` in this process; the memory is that of one more step."""
    station = Station(workload, device)
    warmups = [station.warm()["seconds"] for _ in range(warmup)]
    samples = [station.sample()["seconds"] for _ in range(rounds)]
    peak = station.watched()["peak_bytes"]
    resolved = station.described()["resolved"]
    return Found("ok", "", warmups, samples, peak_bytes=peak, device=describe(device), resolved=resolved)


def device_name(device: str) -> str:
    """What runs the workloads, in words. Raises ValueError where there is no such device."""
    if device == "cpu":
        return Provenance.here("cpu").device
    name = _nvidia_smi("name")
    if not name:
        raise ValueError("no CUDA device: nvidia-smi finds none; use --device cpu, or --predict")
    return name


def latency_record(
    workload: Workload, found: Found, settings: dict[str, object], peak: Peak | None = None, budget: int | None = None
) -> LatencyRecord:
    """A run as a record: the median latency of a step, raw samples, the memory beside its prediction.

    `peak` is the predicted one (by default it is predicted here), `budget` the bytes that the device has for it.
    """
    peak = peak or predict_memory(workload, "cuda" if found.device.startswith("cuda") else "cpu")
    measured = {"peak_bytes": found.peak_bytes, "joules": found.joules, "elsewhere": found.elsewhere}
    parts: dict[str, float] = {name: value for name, value in measured.items() if value is not None}
    parts |= {"predicted_bytes": peak.nbytes, "flops": 2 * step_macs(workload), "rejected": len(found.rejected)}
    parts |= {"budget_bytes": budget} if budget else {}
    return LatencyRecord(
        quantity="latency",
        value=statistics.median(found.samples) if found.samples and found.verdict == "ok" else None,
        unit="s",
        method="CUDA events" if found.device.startswith("cuda") else "wall clock",
        verdict=found.verdict,
        workload={**workload.settings(), **settings},
        parts=parts,
        samples=found.samples,
        warmups=found.warmups,
        seed=0,
        note=_note(workload, found, peak, budget),
        provenance=Provenance.here(str(settings["device"])),
    )


def _note(workload: Workload, found: Found, peak: Peak, budget: int | None) -> str:
    if found.verdict == "oom":
        broken = peak.breaks(budget) if budget else None
        return f"met: {found.note}; predicted: {broken or f'it fits, {peak.nbytes / 2**30:.2f} GiB'}"
    if found.verdict != "ok":
        return found.note
    ways = families.named(workload.spec.family).implementations
    resolved = f"{ways.field}: {found.resolved}" if ways and found.resolved else ""
    beside = f"in rounds with {', '.join(found.beside)}" if found.beside else ""
    ended = f"ended by {found.ended}" if found.ended else ""
    return "; ".join(filter(None, (found.device, resolved, beside, ended)))


def describe(device: str) -> str:
    """The state of the device: threads of a CPU, and how its allocator is set; driver, clocks and power limit of a GPU.

    All of it is read and never set.
    """
    if device == "cpu":
        allocator = (f"{name}={value}" for name, value in sorted(os.environ.items()) if name in ALLOCATOR)
        return ", ".join(["cpu", f"{torch.get_num_threads()} threads", *allocator])
    state = _nvidia_smi("driver_version,clocks.sm,clocks.mem,power.limit")
    return f"cuda; driver, SM clock, memory clock, power limit: {state}"


def memory_bytes(device: str) -> int | None:
    """The memory that a device has, in bytes; None where it is unknown."""
    if device == "cuda":
        mebibytes = _nvidia_smi("memory.total").split(" ")[0]
        return int(mebibytes) * 2**20 if mebibytes.isdigit() else None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _nvidia_smi(query: str) -> str:
    """What nvidia-smi says of the first GPU; nothing where there is none. It makes no CUDA context, as torch would."""
    if not shutil.which("nvidia-smi"):
        return ""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "--id=0"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else ""
