"""What a CPU can do in a second, measured: the best of many rounds, since a virtual machine states no clock to trust.

A ceiling must not be too low, so each rate is the best of any round of any size or kind: products of several sizes;
torch's exponentials and those of the compiled scan; reading, copying and adding arrays far larger than the caches.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.core.provenance import Provenance
from harness.core.records import RateRecord

CACHES = Path("/sys/devices/system/cpu")
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How thoroughly rates are measured: rounds of each kind; sides of products; values whose exponentials are taken,
    few enough for the caches; tokens of the scan, of 1024 channels with 16 states; bytes of an array in memory."""

    rounds: int = 30
    sides: tuple[int, ...] = (512, 1024, 1536, 2048)
    values: tuple[int, ...] = (1 << 15, 1 << 16, 1 << 18)
    tokens: int = 1024
    nbytes: int = 1 << 28


def measure_rates(effort: Effort | None = None) -> list[RateRecord]:
    """The rates of this machine's CPU on torch's threads, a record each, and the size of its caches. Shows a bar."""
    from tqdm import tqdm

    effort = effort or Effort()
    here = Provenance.here("cpu")
    work = [(of, unit, amount, run) for of, unit, kinds in _kinds(effort) for amount, run in kinds]
    samples: dict[tuple[str, str], list[float]] = {}
    for of, unit, amount, run in tqdm(work, desc="measuring rates", unit="kind", disable=None, leave=False):
        run()
        samples.setdefault((of, unit), []).extend(amount / _seconds(run) for _ in range(effort.rounds))
    found = [_record(here, of, max(rates), f"{unit}/s", rates) for (of, unit), rates in samples.items()]
    return [*found, _record(here, "on-chip memory", cache_bytes(), "B", [])]


def _record(here: Provenance, of: str, value: float, unit: str, samples: list[float]) -> RateRecord:
    note = theory() if of == "float32" else ""
    return RateRecord(
        quantity="peak_rate", value=value, unit=unit, method="the best round" if samples else "/sys",
        workload={"device": here.device, "of": of}, samples=samples, note=note, provenance=here,
    )  # fmt: skip


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


Kinds = Iterator[tuple[float, Callable[[], object]]]
"""How much a call does, and the call."""


def _kinds(effort: Effort) -> Iterator[tuple[str, str, Kinds]]:
    """What is measured, in which unit, and its kinds."""
    yield "float32", "FLOP", _products(effort, "float32")
    yield "bfloat16", "FLOP", _products(effort, "bfloat16")
    yield "exponentials", "1", _exponentials(effort)
    yield "memory", "B", _copies(effort)


def _products(effort: Effort, dtype: str) -> Kinds:
    import torch

    for n in effort.sides:
        a, b = (torch.randn(n, n).to(getattr(torch, dtype)) for _ in range(2))
        out = torch.empty_like(a)
        yield 2.0 * n**3, partial(torch.mm, a, b, out=out)


def _exponentials(effort: Effort) -> Kinds:
    import torch

    from models.scan import selective_scan

    for n in effort.values:
        x = -torch.rand(n)
        out = torch.empty_like(x)
        for function in (torch.exp, torch.exp2):
            yield n, partial(function, x, out=out)
    L, E, S = effort.tokens, 1024, 16
    u, delta, A = torch.randn(1, L, E), torch.rand(1, L, E), -torch.rand(E, S)
    B, C = torch.randn(1, L, S), torch.randn(1, L, S)
    yield L * E * S, partial(selective_scan, u, delta, A, B, C)


def _copies(effort: Effort) -> Kinds:
    import torch

    x, y, z = (torch.ones(effort.nbytes // 4) for _ in range(3))  # zeros would be one page, mapped many times
    yield effort.nbytes, x.sum
    yield 2 * effort.nbytes, partial(y.copy_, x)
    yield 3 * effort.nbytes, partial(torch.add, x, y, out=z)


def cache_bytes(root: Path = CACHES) -> int:
    """All caches of data on this machine, each once; 0 where the system does not tell."""
    caches: dict[tuple[str, str], int] = {}
    for index in root.glob("cpu[0-9]*/cache/index[0-9]*"):
        level, kind, size, cpus = (
            (index / name).read_text().strip() for name in ("level", "type", "size", "shared_cpu_list")
        )
        if kind != "Instruction":
            caches[level, cpus] = int(size.removesuffix("K")) * 1024
    return sum(caches.values())


def theory(cpuinfo: Path = CPUINFO) -> str:
    """The peak by arithmetic, for one multiply-add unit a core, in words; empty where the system states no clock.

    How many such units a core has it does not state, and a virtual machine's clock may be none that ever runs.
    """
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    clock = re.search(r"^cpu MHz\s*: ([\d.]+)", text, re.MULTILINE)
    if not clock:
        return ""
    lanes = 16 if " avx512f" in text else 8
    cores, mhz = os.cpu_count() or 1, float(clock[1])
    gflops = cores * lanes * 2 * mhz / 1e3
    return (
        f"stated clock: {cores} cores x {lanes} lanes x 2 FLOP x {mhz:.0f} MHz = {gflops:.0f} GFLOP/s "
        "for each multiply-add unit of a core"
    )
