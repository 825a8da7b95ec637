"""The training steps of a suite's models, as workloads that are timed side by side, and how long each takes.

A run's own record has the CPU seconds that it took, on whatever machine and beside whatever else it was trained. Models
that are compared at equal time need times of one machine and one hour.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.core.records import Key, LatencyRecord, Record, of_kind
from harness.core.workload import Workload
from harness.suites.catalogue import suite
from harness.suites.run import Run
from models.families import named

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


def training_step(run: Run) -> Workload:
    """A step as the plan of a suite of small data takes it: all activations kept.

    Raises ValueError for a precision that is not timed.
    """
    config, model = run.config, run.spec
    if config.precision not in DTYPES:
        raise ValueError(f"steps in {config.precision} are not timed; choose from {', '.join(DTYPES)}")
    return Workload(
        spec=model, resolution=config.resolution, batch=config.batch, action="train", dtype=DTYPES[config.precision],
        operands="kept" if named(model.family).recomputes else "recomputed", joint_images=config.joint_images,
    )  # fmt: skip


def training_steps(name: str, records: Iterable[Record] | None = None) -> list[Workload]:
    """A step of each model of a suite, once. Raises ValueError for a suite whose steps are spread over GPUs."""
    found = list(suite(name, records).runs())
    if not all(run.small for run in found):
        raise ValueError(f"suite {name} is not of small data: how a step runs depends on the GPUs")
    return list(dict.fromkeys(training_step(run) for run in found))


def step_seconds(runs: Iterable[Run], records: Iterable[Record]) -> dict[Run, float]:
    """Seconds of a training step of each run, on the device that was timed last of those that all were timed on.

    Empty where there is none, since times of two devices are not compared, and where a run is not of small data.
    """
    runs = list(runs)
    if not all(run.small for run in runs):
        return {}
    keys = {run: _key(training_step(run).settings()) for run in runs}
    by_device: dict[str, dict[Key, float]] = {}
    for record in of_kind(records, LatencyRecord):
        if record.get("action") == "train" and record.verdict == "ok" and record.value is not None:
            device = by_device.pop(record.workload["device"], {})
            by_device[record.workload["device"]] = {**device, _key(record.workload): float(record.value)}
    for timed in reversed(by_device.values()):
        if all(key in timed for key in keys.values()):
            return {run: timed[key] for run, key in keys.items()}
    return {}


def _key(workload: dict[str, object]) -> Key:
    """What was run, whatever it was run on."""
    return LatencyRecord.key_of("latency", {**workload, "device": None})
