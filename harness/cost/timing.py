"""How a step is timed: warm-ups, rounds, the rule that ends them, and what a device may do while a sample is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.core.options import check, option

DEVICES = ("cpu", "cuda")
CACHES = ("warm", "cold")
LEAST_ROUNDS = 2
CONFIDENCE = 0.95
LEAST_SAMPLES = 6
"""Fewer do not bound a median at 95 % (`median_interval`), and decide nothing."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How workloads are measured; the fields are flags of harness.bench.

    A workload has had enough rounds when the median is known to within `spread`, when `seconds` were spent on samples
    and there are two, or after `rounds`. `memory_limit` bounds the bytes of each process, on a CPU. Raises ValueError
    for a value out of its bounds.
    """

    device: str = option("cpu", "what is measured", choices=DEVICES)
    rounds: int = option(30, "largest number of timed steps of a workload", least=1, most=1_000_000)
    warmup: int = option(3, "warm-up steps before the timed ones", least=1, most=1_000_000)
    spread: float = option(0.02, "stop when the relative error of the median is this small", least=0, most=1)
    seconds: float = option(60.0, "stop after so many timed seconds", least=0, most=1e6, metavar="S")
    timeout: float = option(600.0, "most seconds for one step", least=1, most=1e6, metavar="S")
    cache: str = option("warm", "state of the last-level cache before a sample", choices=CACHES)
    cuda_graph: bool = option(False, "replay the step as one CUDA graph")
    keep_all: bool = option(False, "keep all samples, even if the device was disturbed")
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        check(self)
        if self.memory_limit is not None and self.device != "cpu":
            raise ValueError(f"a memory limit is of processes on a CPU, not on {self.device}")
        if self.cuda_graph and self.device != "cuda":
            raise ValueError(f"a CUDA graph is of --device cuda, not of {self.device}")

    def settings(self) -> dict[str, object]:
        """What a record of a latency states of it."""
        stated: dict[str, object] = {"cache": self.cache} if self.cache != "warm" else {}
        stated |= {name: True for name in ("cuda_graph", "keep_all") if getattr(self, name)}
        return {"rounds": self.rounds, "warmup": self.warmup, "spread": self.spread, "seconds": self.seconds, **stated}


@dataclass
class Series:
    """The samples of one workload, in seconds, as they come, and the reasons of those that were rejected."""

    timing: Timing
    warmups: list[float] = field(default_factory=list)
    samples: list[float] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)

    @property
    def warm(self) -> bool:
        """Whether the warm-up is over: after so many steps, or once they took the time that is for the samples."""
        return len(self.warmups) >= self.timing.warmup or sum(self.warmups) >= max(self.timing.seconds, 1e-9)

    def add(self, seconds: float, fault: str = "") -> None:
        """One more sample; one with a fault is counted and left out."""
        if fault and not self.timing.keep_all:
            self.rejected.append(fault)
        else:
            self.samples.append(seconds)

    @property
    def ended(self) -> str:
        """The rule that ends the rounds, or nothing while they go on: rounds, spread, seconds or rejections.

        Rejected samples are taken again, up to as many as there may be rounds.
        """
        if len(self.samples) >= self.timing.rounds:
            return "rounds"
        known = relative_spread(self.samples)
        if known is not None and known <= self.timing.spread:
            return "spread"
        if len(self.samples) >= LEAST_ROUNDS and sum(self.samples) >= self.timing.seconds:
            return "seconds"
        return "rejections" if len(self.rejected) >= max(self.timing.rounds, LEAST_ROUNDS) else ""


def median_interval(samples: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """An interval of the median that holds whatever the distribution; None for too few samples (under 6 for 95 %).

    Of n independent samples in order, the k-th from either end encloses the median unless fewer than k fall on one
    side of it, which has the probability 2 P(Binomial(n, 1/2) < k). The largest k that keeps it within the confidence
    is taken (David and Nagaraja, Order Statistics, section 7.1).
    """
    ordered, n = sorted(samples), len(samples)
    k, below = 0, 0.0
    while k < n // 2:
        below += math.comb(n, k) / 2**n
        if 2 * below > 1 - confidence:
            break
        k += 1
    return (ordered[k - 1], ordered[n - k]) if k else None


def relative_spread(samples: Sequence[float]) -> float | None:
    """Half the interval of the median over the median; None for too few samples."""
    interval = median_interval(samples)
    if interval is None:
        return None
    ordered, half = sorted(samples), len(samples) // 2
    median = (ordered[half] + ordered[-half - 1]) / 2
    return (interval[1] - interval[0]) / 2 / median if median else 0.0
