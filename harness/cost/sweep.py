"""Sweeps of workloads over memory and time: predicted on any machine, measured on this one."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from harness.core import store
from harness.core.progress import progress_bar
from harness.core.records import LatencyRecord, Record, of_kind
from harness.core.workload import Workload
from harness.cost.analytic import equal_macs_depth, rivals, step_macs
from harness.cost.timing import Timing

if TYPE_CHECKING:
    from harness.cost.memory import Peak

ANSWERS = ("ok", "oom")
"""Verdicts that settle a question; what failed is tried again."""

RESERVE_BYTES = 2**30
"""Of a machine's memory, left to its operating system where no limit is given."""


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

    What is compared is timed in the same rounds, as far as the device's memory holds it at once. With `path` records
    are appended there as soon as they are made, and what that file already answers is not measured again. The answers
    come in the order of the workloads; a KeyboardInterrupt ends the measuring, and those that there are come back.
    Raises ValueError where there is no such device.
    """
    from harness.cost import clock
    from harness.cost.memory import predict_memory

    timing = timing or Timing()
    workloads = list(workloads)
    settings = {"device": clock.device_name(timing.device), **timing.settings()}
    budget = timing.memory_limit or clock.memory_bytes(timing.device)
    if timing.device == "cpu" and budget and not timing.memory_limit:
        budget -= RESERVE_BYTES
        timing = dataclasses.replace(timing, memory_limit=budget)
    known: list[Record] = store.load(path) if path and path.exists() else []
    todo = [w for w in workloads if not answers(known, w, settings)]
    bar = progress_bar(len(todo), "workload", "measuring")
    try:
        for group in comparable(todo):
            predicted = {w: predict_memory(w, timing.device) for w in group}
            for together in held_at_once(predicted, budget, timing.device):
                found = clock.time_together(together, timing)
                made = [
                    clock.latency_record(w, one, settings, predicted[w], budget)
                    for w, one in zip(together, found, strict=True)
                ]
                known += made
                if path:
                    store.append(path, made)
                bar.update(len(made))
    except KeyboardInterrupt:
        tqdm.write("stopped: what is measured is recorded, and the same command continues", file=sys.stderr)
    bar.close()
    latest = [(answers(known, w, settings) or answers(known, w, settings, "error"))[-1:] for w in workloads]
    return [record for several in latest for record in several]


def comparable(workloads: Iterable[Workload]) -> list[list[Workload]]:
    """Workloads in groups that differ in the network alone, the cheapest group first."""
    groups: dict[tuple[object, ...], list[Workload]] = {}
    for w in workloads:
        same = (w.spec.width, w.spec.patch, w.spec.frames, w.resolution, w.batch, w.action, w.dtype, w.checkpointing)
        groups.setdefault(same, []).append(w)
    return sorted(groups.values(), key=lambda group: sum(map(step_macs, group)))


def held_at_once(predicted: Mapping[Workload, Peak], budget: int | None, device: str) -> Iterator[list[Workload]]:
    """A group in parts that a device's memory of `budget` bytes holds at once, in order.

    A process on a CPU returns its activations after a step, so that one peak at a time stands beside what the others
    keep; one on a GPU keeps its whole peak.
    """
    part: list[Workload] = []
    for w in predicted:
        if part and budget and _bytes_at_once([predicted[one] for one in [*part, w]], device) > budget:
            yield part
            part = []
        part.append(w)
    if part:
        yield part


def _bytes_at_once(peaks: Sequence[Peak], device: str) -> int:
    if device != "cpu":
        return sum(peak.nbytes for peak in peaks)
    kept = [peak.parts["weights"] + peak.parts["optimizer and EMA"] for peak in peaks]
    return sum(kept) + max(peak.nbytes - own for peak, own in zip(peaks, kept, strict=True))


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
        and record.protocol_of(record.workload) == record.protocol_of(question)
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
