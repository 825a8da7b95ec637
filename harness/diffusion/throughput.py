"""How fast a run is: step time, items and floating-point operations a second, their share of the device's peak, memory.

MFU, model FLOPs utilisation, is the exact operations of the steps (two a multiply-add; recomputed ones do not count)
over what the devices could have done meanwhile (PaLM, arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from harness.core.cards import peak_flops
from harness.core.distributed import Ranks

SPENT = ("seconds", "cpu_seconds")
"""What the steps of a run took, which checkpoints keep: on the clock, and of all threads of the first process."""
ARITHMETIC = {"fp32": "float32", "tf32": "tf32", "bf16": "bfloat16"}
"""What the data sheets call a precision."""


@dataclass(frozen=True)
class Lap:
    """Some steps in a row, up to `step`; over all processes, but of memory, which is this one's."""

    step: int
    step_ms: float
    samples_per_s: float
    flop_per_s: float | None
    mfu: float | None
    peak_memory_bytes: int

    def postfix(self) -> dict[str, str]:
        """For the progress bar."""
        shown = {"ms": f"{self.step_ms:.1f}", "samples/s": f"{self.samples_per_s:.1f}"}
        if self.mfu is not None:
            shown["MFU"] = f"{100 * self.mfu:.1f}%"
        elif self.flop_per_s is not None:
            shown["FLOP/s"] = f"{self.flop_per_s:.2e}"
        return {**shown, "GiB": f"{self.peak_memory_bytes / 2**30:.2f}"}


class Throughput:
    """A stopwatch for steps of `batch` items: `start`, then `lap(step)` at the end of some steps.

    `flops_per_item` is the exact cost of one item's part in a step; without it there is no FLOP/s. `spent` sums the
    laps, with what `before` holds of them: `seconds` on the clock, and `cpu_seconds` of all threads of this process.
    """

    def __init__(
        self,
        ranks: Ranks,
        batch: int,
        precision: str,
        flops_per_item: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
        before: Mapping[str, float] | None = None,
    ) -> None:
        self.ranks, self.batch, self.flops_per_item, self.clock = ranks, batch, flops_per_item, clock
        name = torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else "CPU"
        peak = peak_flops(name, ARITHMETIC[precision])
        self.peak = peak * ranks.world if peak else None
        self.spent = {name: float((before or {}).get(name, 0)) for name in SPENT}

    def start(self, step: int) -> None:
        """From here: what came before, such as a checkpoint, is not counted."""
        self.step, self.began, self.worked = step, self.clock(), time.process_time()

    def lap(self, step: int) -> Lap:
        """The steps since the last `start` or `lap`; the accelerator must have done them."""
        now, steps = self.clock(), step - self.step
        seconds = now - self.began
        self.step, self.began = step, now
        worked, self.worked = time.process_time() - self.worked, time.process_time()
        self.spent["seconds"] += seconds
        self.spent["cpu_seconds"] += worked
        items_per_s = steps * self.batch / seconds
        rate = items_per_s * self.flops_per_item if self.flops_per_item else None
        mfu = rate / self.peak if rate and self.peak else None
        return Lap(step, 1000 * seconds / steps, items_per_s, rate, mfu, peak_memory_bytes(self.ranks.device))


def peak_memory_bytes(device: torch.device) -> int:
    """The most that torch has held on an accelerator, or this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def log(path: Path, lap: Lap) -> None:
    """Add a line to a run's `throughput.jsonl`: for the eyes, and no part of what a run is compared by."""
    with open(path, "a") as file:
        file.write(json.dumps(asdict(lap), allow_nan=False) + "\n")
