"""What a device did beside the step that was timed: a sample taken while it throttled or served others is rejected."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

LEAST_CLOCK = 0.75
"""Of the maximum clock, which nvbench calls the default; it discards a sample below it."""

MOST_ELSEWHERE = 0.05
"""Of all cores' time during a sample, used by other processes or taken by the hypervisor."""

TICK = 0.01
"""Seconds: the resolution of the kernel's own counters; a share below a few ticks says nothing."""


class Conditions(Protocol):
    """Looks at a device before and after a sample."""

    def begin(self) -> None:
        """Just before the step."""

    def fault(self) -> str:
        """Just after the step: why the sample does not count, in a few words; nothing if it does."""


@dataclass(frozen=True)
class CpuTimes:
    """Counters of a machine, in seconds: the clock, the busy time of all cores, and this process's own."""

    wall: float
    busy: float
    own: float


class CpuConditions:
    """Rejects a sample during which the cores were shared. `elsewhere` keeps the share that others used, by sample."""

    def __init__(self, read: Callable[[], CpuTimes] | None = None, cores: int | None = None) -> None:
        self.read = read or cpu_times
        self.cores = cores or os.cpu_count() or 1
        self.elsewhere: list[float] = []

    def begin(self) -> None:
        self.before = self.read()

    def fault(self) -> str:
        after, before = self.read(), self.before
        wall = after.wall - before.wall
        others = max(0.0, (after.busy - before.busy) - (after.own - before.own))
        self.elsewhere.append(others / (wall * self.cores))
        if others > MOST_ELSEWHERE * wall * self.cores + 3 * TICK:
            return "other processes used the cores"
        return ""


def cpu_times() -> CpuTimes:
    """The counters of Linux; where there are none, those that make every sample good."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        user, nice, system, _idle, _iowait, irq, softirq, steal = ticks
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return CpuTimes(time.perf_counter(), 0.0, 0.0)
    return CpuTimes(time.perf_counter(), busy, time.process_time())


class GpuConditions:
    """Rejects a sample after which the clock of the multiprocessors was below three quarters of the maximum clock.

    `read` gives the clock in MHz just after the step. Where NVML does not tell, every sample counts.
    """

    def __init__(self, read: Callable[[], float | None] | None = None, maximum_mhz: float | None = None) -> None:
        self.read, self.maximum_mhz = (read, maximum_mhz) if read else _nvml_clocks()

    def begin(self) -> None:
        """There is nothing to note before a step."""

    def fault(self) -> str:
        mhz = self.read()
        if mhz is None or not self.maximum_mhz or mhz >= LEAST_CLOCK * self.maximum_mhz:
            return ""
        return f"the clock was below {LEAST_CLOCK:.0%} of {self.maximum_mhz:.0f} MHz"


def _nvml_clocks() -> tuple[Callable[[], float | None], float | None]:
    """A reading of the clock of the first GPU's multiprocessors, and their maximum, in MHz, from NVML."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        maximum = pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM)
    except Exception:  # no NVML, or a GPU that does not tell
        return (lambda: None), None
    return (lambda: float(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM))), float(maximum)


def conditions_of(device: str) -> Conditions:
    """What watches a device."""
    return CpuConditions() if device == "cpu" else GpuConditions()
