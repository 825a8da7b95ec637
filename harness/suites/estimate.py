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

from harness.core.cards import card, card_of, figures
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
SCORED_IN = ARITHMETIC["fp32"]
"""What samples of a score are drawn in, whatever the training was in (harness.suites.score)."""
MFU = 0.4
"""A share of the peak that is assumed where none is given or measured."""
MEASURED, ASSUMED = "measured", "assumed"
"""Where a share of the peak is from."""
ALIKE = ("model", "depth", "resolution", "frames", "joint_images", "batch", "precision")
"""Settings in which a measured run is like one that is estimated."""
GIGA = 1e9


@dataclass(frozen=True, kw_only=True)
class Speed:
    """FLOP/s of a card in training and in scoring. `origin` says where the share of the peak is from, if it is one."""

    training: float
    scoring: float
    share: float | None = None
    origin: str = ""

    @property
    def measured(self) -> bool:
        """Whether training is as fast as measured steps were, with all that was in them."""
        return self.origin == MEASURED


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

    def speed(self, run: Run, runs: Path) -> Speed:
        """What a card achieves in a run's arithmetic and in that of its scores; `runs` may hold measured ones."""
        if not self.card:
            rate = self.device_flops or DEVICE_FLOPS
            return Speed(training=rate, scoring=rate)
        peaks, share, origin = card(self.card).flop_per_s, self.mfu or MFU, ASSUMED
        scoring = share * peaks[SCORED_IN]
        if not self.mfu and (mfu := measured_mfu(run, runs, self.card)):
            share, origin = mfu, MEASURED
        training = share * peaks[ARITHMETIC[run.config.precision]]
        return Speed(training=training, scoring=scoring, share=share, origin=origin)

    @property
    def text(self) -> str:
        """In a line."""
        ring = f"{self.network_gb_per_s:g} GB/s around a ring, {self.storage_gb_per_s:g} GB/s to storage"
        one = "" if self.card else "; training and scores, which are in float32, at the same FLOP/s"
        return f"{ring}; nothing overlaps; without data, starts, queues and failures{one}"


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
    run: Run, train: bool, scores: Iterable[Score], launch: Launch, fitting: Fitting, speed: Speed,
    assumed: Assumptions,
) -> Estimate:  # fmt: skip
    """A run on the processes of a launch, each of that speed.

    A measured share of the peak is of whole steps: what was recomputed, and gradients on their way, are in it.
    """
    scoring = 2 * sum(map(scoring_macs, scores)) / (launch.world * speed.scoring)
    if not train:
        return Estimate(score=scoring)
    recomputed = fitting.checkpointing and not speed.measured
    steps, parameters = run.config.steps, exact_cost(run).params
    reduced = 0.0 if speed.measured else reduced_bytes(parameters, launch.world, fitting)
    written = len({*range(CHECKPOINT_EVERY, steps + 1, CHECKPOINT_EVERY), *run.milestones, steps})
    return Estimate(
        compute=2 * training_macs(run, recomputed=recomputed) / (launch.world * speed.training),
        reduce=steps * reduced / (GIGA * assumed.network_gb_per_s),
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


def measured_mfu(run: Run, runs: Path, card: str) -> float | None:
    """The median MFU that such runs on such a card have logged in a folder of runs; None without any.

    Such a run equals this one in the settings ALIKE.
    """
    found: list[float] = []
    for log in sorted(runs.glob("*/throughput.jsonl")):
        try:
            config = json.loads((log.parent / "config.json").read_text())
            same = all(config[name] == getattr(run.config, name) for name in ALIKE)
            if same and card_of(config["provenance"]["device"].partition(": ")[2]) == card:
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
