"""Sweeps of workloads over memory and time: predicted on any machine, measured on the one at hand."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from harness.core import store
from harness.core.options import check, option
from harness.core.records import LatencyRecord, Record, of_kind
from harness.core.workload import Workload
from harness.cost.analytic import equal_macs_depth, rivals

if TYPE_CHECKING:
    from harness.cost.memory import Peak

DEVICES = ("cpu", "cuda")
ANSWERS = ("ok", "oom")
"""Verdicts that settle a question; what failed is tried again."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How workloads are measured; the fields are flags of harness.bench.

    `memory_limit` bounds the bytes of each process, on a CPU. Raises ValueError for a value out of its bounds.
    """

    device: str = option("cpu", "what is measured", choices=DEVICES)
    rounds: int = option(10, "timed steps", least=1, most=1_000_000)
    warmup: int = option(3, "steps before them", least=1, most=1_000_000)
    timeout: float = option(600.0, "seconds for each workload", least=1, most=1e6, metavar="S")
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        check(self)
        if self.memory_limit is not None and self.device != "cpu":
            raise ValueError(f"a memory limit is of processes on a CPU, not on {self.device}")


def predict_sweep(workloads: Iterable[Workload], path: Path | None = None) -> list[tuple[Workload, Peak]]:
    """The predicted peak of each workload; with `path` they are recorded there."""
    from harness.cost import memory

    bar = tqdm(list(workloads), desc="predicting", unit="workload", disable=None, leave=False)
    peaks = [(w, memory.predict_memory(w)) for w in bar]
    if path:
        store.append(path, [memory.memory_record(w, peak) for w, peak in peaks], repeat=False)
    return peaks


def measure_latency(
    workloads: Iterable[Workload], timing: Timing | None = None, path: Path | None = None
) -> list[LatencyRecord]:
    """Time and memory of each workload, in a process of its own; an OOM and a failure are records, too.

    With `path` each record is appended there as soon as it is made, and what that file already answers is not measured
    again. The answers come in the order of the workloads; a KeyboardInterrupt ends the measuring, and those that there
    are come back. Raises ValueError where there is no such device.
    """
    from harness.cost import clock

    timing = timing or Timing()
    workloads = list(workloads)
    settings = {"device": clock.device_name(timing.device), "rounds": timing.rounds, "warmup": timing.warmup}
    known: list[Record] = store.load(path) if path and path.exists() else []
    todo = [w for w in workloads if not answers(known, w, settings)]
    try:
        for w in tqdm(todo, desc="measuring", unit="workload", disable=None):
            found = clock.time_apart(w, timing)
            known.append(clock.latency_record(w, found, settings))
            if path:
                store.append(path, known[-1:])
    except KeyboardInterrupt:
        tqdm.write("stopped: what is measured is recorded, and the same command continues")
    latest = [(answers(known, w, settings) or answers(known, w, settings, "error"))[-1:] for w in workloads]
    return [record for several in latest for record in several]


def answers(
    records: Iterable[Record], workload: Workload, settings: dict[str, object], *verdicts: str
) -> list[LatencyRecord]:
    """The records of a workload, on a device, with settings of a Timing, of these verdicts (default: ok or oom)."""
    question = {**workload.settings(), **settings}
    return [
        record
        for record in of_kind(records, LatencyRecord)
        if record.verdict in (verdicts or ANSWERS)
        and record.answers(question)
        and all(record.get(name) == question[name] for name in record.PROTOCOL)
    ]


def with_equal_macs(workloads: Sequence[Workload]) -> list[Workload]:
    """Workloads, and for each that stands beside its counterpart one of the depth that costs as much.

    Raises ValueError where none does.
    """
    added = list(_equal_macs(workloads))
    if not added:
        raise ValueError("no model here stands beside its counterpart at the same resolution")
    return [*workloads, *added]


def _equal_macs(workloads: Sequence[Workload]) -> Iterator[Workload]:
    for one, other in itertools.product(workloads, workloads):
        if rivals(one.spec, other.spec) and one.resolution == other.resolution and not one.spec.variant:
            depth = equal_macs_depth(one.spec, other.spec, one.resolution)
            yield dataclasses.replace(one, spec=dataclasses.replace(one.spec, depth=depth))
