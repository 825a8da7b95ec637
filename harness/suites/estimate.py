"""How long a run takes on a cluster, on paper: exact operations over what cards achieve; what travels and is written.

Nothing overlaps here: a step is its operations, then its gradients' way around, and a checkpoint stops them all.
Training that hides one behind the other is faster; late data, starts, queues and failures are not counted.
"""

from __future__ import annotations

import heapq
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from harness.core.cards import card, figures
from harness.core.options import check, option
from harness.suites.budget import exact_cost, scoring_macs, training_macs
from harness.suites.fitting import Fitting
from harness.suites.launch import Launch
from harness.suites.run import Run
from harness.suites.score import Score

DEVICE_FLOPS = 1e14
FLOAT_BYTES = 4
STATES = 4
"""Tensors of every parameter that a checkpoint holds: weight, average, two moments."""
CHECKPOINT_EVERY = 1000
"""harness.train's own."""
ARITHMETIC = {"fp32": "float32", "tf32": "tf32", "bf16": "bfloat16"}
GIGA = 1e9


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What a plan's times rest on; the fields are flags. Raises ValueError, naming the field, for impossible values."""

    device_flops: float | None = option(None, f"FLOP/s that a GPU achieves (default: {DEVICE_FLOPS:.0e})", least=1)
    card: str | None = option(None, "GPU model; it achieves --mfu times its peak FLOP/s", choices=tuple(figures()))
    mfu: float | None = option(None, "share of the peak (default: as measured in --runs, else 0.4)", least=1e-3, most=1)
    network_gb_per_s: float = option(50, "slowest link in a ring of all processes, in GB/s", least=1e-3)
    storage_gb_per_s: float = option(1, "speed of writing a checkpoint, in GB/s", least=1e-3)

    def __post_init__(self) -> None:
        check(self)
        if self.card and self.device_flops:
            raise ValueError("--device-flops is what a GPU achieves: leave out --card")
        if self.mfu and not self.card:
            raise ValueError("--mfu is a share of the peak of a --card")

    def flop_per_s(self, run: Run, measured: float | None) -> float:
        """What a card achieves in a run's arithmetic; `measured` is the MFU of such a run, if there was one."""
        if not self.card:
            return self.device_flops or DEVICE_FLOPS
        return self.share(measured)[0] * card(self.card).flop_per_s[ARITHMETIC[run.config.precision]]

    def share(self, measured: float | None) -> tuple[float, str]:
        """The MFU, and where it is from."""
        if self.mfu:
            return self.mfu, "assumed"
        return (measured, "measured") if measured else (0.4, "assumed")

    @property
    def text(self) -> str:
        """In a line."""
        ring = f"{self.network_gb_per_s:g} GB/s around a ring, {self.storage_gb_per_s:g} GB/s to storage"
        return f"{ring}; nothing overlaps; without data, starts, queues and failures"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds of a run: of its steps' operations, gradients on their way, checkpoints, and of its scores."""

    compute: float = 0.0
    reduce: float = 0.0
    checkpoint: float = 0.0
    score: float = 0.0

    @property
    def total(self) -> float:
        return self.compute + self.reduce + self.checkpoint + self.score

    @property
    def text(self) -> str:
        """In words, by what it is made of."""
        parts = {"computing": self.compute, "gradients": self.reduce, "checkpoints": self.checkpoint}
        parts["scores"] = self.score
        made_of = ", ".join(f"{duration(seconds)} {name}" for name, seconds in parts.items() if seconds)
        return f"{duration(self.total)} ({made_of})" if made_of else duration(0)


def estimate(
    run: Run, train: bool, scores: Iterable[Score], launch: Launch, fitting: Fitting, flop_per_s: float,
    assumed: Assumptions,
) -> Estimate:  # fmt: skip
    """A run on the processes of a launch, each of which achieves `flop_per_s`."""
    speed = launch.world * flop_per_s
    scoring = 2 * sum(map(scoring_macs, scores)) / speed
    if not train:
        return Estimate(score=scoring)
    steps, parameters = run.config.steps, exact_cost(run).params
    written = len({*range(CHECKPOINT_EVERY, steps + 1, CHECKPOINT_EVERY), *run.milestones, steps})
    return Estimate(
        compute=2 * training_macs(run, recomputed=fitting.checkpointing) / speed,
        reduce=steps * reduced_bytes(parameters, launch.world, fitting) / (GIGA * assumed.network_gb_per_s),
        checkpoint=written * STATES * FLOAT_BYTES * parameters / (GIGA * assumed.storage_gb_per_s),
        score=scoring,
    )


def reduced_bytes(parameters: int, world: int, fitting: Fitting) -> float:
    """What passes over each link of a ring in a step, in bytes.

    Of N processes an all-reduce passes 2 (N - 1) / N of the gradients, once a step (Patarasuk and Yuan, JPDC 2009). A
    model that is shared gathers its weights twice, for the passes forward and back, and scatters gradients: three
    times (N - 1) / N, in every part of a batch.
    """
    times = 3 * fitting.parts if fitting.shared else 2
    return times * (world - 1) / world * FLOAT_BYTES * parameters


def measured_mfu(run: Run, runs: Path) -> float | None:
    """The median MFU of what a run of this model and arithmetic has logged in a folder of runs; None without any."""
    found: list[float] = []
    for log in sorted(runs.glob("*/throughput.jsonl")):
        try:
            config = json.loads((log.parent / "config.json").read_text())
            if (config["model"], config["precision"]) == (run.model, run.config.precision):
                found += [lap["mfu"] for lap in map(json.loads, log.read_text().splitlines()) if lap["mfu"]]
        except (OSError, ValueError, KeyError, TypeError):  # being written, or of somebody else
            continue
    return statistics.median(found) if found else None


@dataclass
class Cluster:
    """So many runs at a time, each as soon as nodes are free, in the order in which they are added."""

    at_a_time: int
    ends: list[float] = field(default_factory=list)

    def add(self, seconds: float) -> None:
        """A run."""
        began = heapq.heappop(self.ends) if len(self.ends) == self.at_a_time else 0.0
        heapq.heappush(self.ends, began + seconds)

    @property
    def text(self) -> str:
        """How long until the last has ended."""
        return duration(max(self.ends, default=0.0))


def duration(seconds: float) -> str:
    """In the unit that fits: 3.2 days, 5 h, 12 min, 4 s."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.2g} s"
