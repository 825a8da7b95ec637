"""The kinds of record, and the one definition of when two records answer the same question.

A record is a number with its unit, its method and its origin. Its `key()` holds what must agree for two records to be
compared, or for one to replace the other; each kind lists those fields once, in `KEY`, and nothing else decides it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

from harness.core.provenance import Provenance
from models.families import implementations

SCHEMA = 1
VERDICTS = ("ok", "oom", "unsupported", "estimated", "error")
TASK = ("channels", "downsample", "num_classes")
"""Of what is generated; records of the usual task, ImageNet in latents of four channels, do not state them."""
DEFAULTS: Mapping[str, Any] = {
    "frames": 0, "joint_images": 0, "checkpointing": False, "weights": "float32",
    "operands": "recomputed", "cache": "warm", "cuda_graph": False, "keep_all": False,
}  # fmt: skip
"""What a field is in records that do not state it."""

Key = tuple[tuple[str, Any], ...]
R = TypeVar("R", bound="Record")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One number. `value` is None where there is none to give; `verdict` says why.

    `workload` holds the fields of the question; `parts` splits the value; `omitted` names what the method left out, as
    shares of the whole; `samples` and `warmups` are raw. Raises ValueError for an unknown verdict.
    """

    KEY: ClassVar[tuple[str, ...]] = ()

    quantity: str
    value: float | int | None
    unit: str
    method: str
    workload: dict[str, Any]
    provenance: Provenance
    verdict: str = "ok"
    parts: dict[str, float] = field(default_factory=dict)
    omitted: dict[str, float] = field(default_factory=dict)
    samples: list[float] = field(default_factory=list)
    warmups: list[float] = field(default_factory=list)
    seed: int | None = None
    note: str = ""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"unknown verdict {self.verdict!r}; choose from {', '.join(VERDICTS)}")

    @classmethod
    def key_of(cls, quantity: str, workload: Mapping[str, Any]) -> Key:
        """The key of a question that may have no record yet."""
        found = {name: frozen(workload.get(name, DEFAULTS.get(name))) for name in cls.KEY}
        return (("quantity", quantity), *((name, value) for name, value in found.items() if value is not None))

    def key(self) -> Key:
        """The quantity, and those fields of the question that must agree; absent ones are left out."""
        return self.key_of(self.quantity, self.workload)

    def answers(self, workload: Mapping[str, Any]) -> bool:
        """Whether this record is of that question."""
        return self.key() == self.key_of(self.quantity, workload)

    def get(self, name: str, default: Any = None) -> Any:
        """A field of the question."""
        return self.workload.get(name, default)

    def row(self) -> dict[str, Any]:
        """All fields in one flat dictionary, those of the question among them."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**fields.pop("workload"), **fields}

    def identity(self) -> str:
        """The record apart from who made it and when: two runs of the same versions that agree have one identity."""
        fields = dataclasses.asdict(self)
        fields["provenance"] = fields["provenance"]["versions"]
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Self:
        """A record of the dictionary that a line of a file holds. Raises ValueError, naming what is wrong with it."""
        if fields.get("schema") != SCHEMA:
            raise ValueError(f"schema {fields.get('schema')!r}, not {SCHEMA}")
        for name, kinds in TYPES.items():
            if name not in fields:
                raise ValueError(f"it has no {name}")
            if not isinstance(fields[name], kinds) or isinstance(fields[name], bool):
                raise ValueError(f"{name} is {type(fields[name]).__name__}")
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = set(fields) - known
        if unknown:
            raise ValueError(f"unknown field {', '.join(sorted(unknown))}")
        value = fields["value"]
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"value is {value}")
        origin = fields["provenance"]
        names = {f.name for f in dataclasses.fields(Provenance)}
        if set(origin) != names:
            raise ValueError("its provenance is not whole")
        return cls(**{**fields, "provenance": Provenance(**origin)})


@dataclass(frozen=True, kw_only=True)
class CostRecord(Record):
    """Multiply-adds, parameters, elementwise results or a crossover of a network; it does not vary."""

    KEY = (
        "model", "resolution", "input", "frames", "joint_images", *TASK, "batch", "action", "convention", "against",
    )  # fmt: skip
    QUANTITIES: ClassVar = ("cost", "params", "elementwise", "crossover")


@dataclass(frozen=True, kw_only=True)
class RunRecord(Record):
    """What is of a run of a network: of its workload, and of how the mixer of its family is run."""

    KEY: ClassVar[tuple[str, ...]] = (
        "model", "resolution", "frames", "joint_images", *TASK, "batch", "action", "dtype", "checkpointing",
        "weights", "operands",
    )  # fmt: skip

    @classmethod
    def key_of(cls, quantity: str, workload: Mapping[str, Any]) -> Key:
        """The key, and the implementation of the mixer under its family's name for it."""
        ways = {name: workload[name] for name in implementations() if name in workload}
        return super().key_of(quantity, workload) + tuple(ways.items())


@dataclass(frozen=True, kw_only=True)
class MemoryRecord(RunRecord):
    """A predicted peak of memory, in bytes."""

    QUANTITIES: ClassVar = ("peak_memory",)


@dataclass(frozen=True, kw_only=True)
class LatencyRecord(RunRecord):
    """The time of a step on a device, in seconds, with its peak of memory among `parts`."""

    KEY = (*RunRecord.KEY, "cache", "cuda_graph", "device")
    QUANTITIES: ClassVar = ("latency",)
    PROTOCOL: ClassVar = ("rounds", "warmup", "spread", "seconds", "keep_all")
    """How it was timed: records of two protocols do not replace each other, and are not compared."""

    @classmethod
    def protocol_of(cls, workload: Mapping[str, Any]) -> dict[str, Any]:
        """How a workload is timed, by the names of PROTOCOL."""
        return {name: workload.get(name, DEFAULTS.get(name)) for name in cls.PROTOCOL}


@dataclass(frozen=True, kw_only=True)
class RateRecord(Record):
    """The best rate of one resource of a device, a second, or the size of its caches; the rates measured are raw."""

    KEY = ("device", "of")
    QUANTITIES: ClassVar = ("peak_rate",)


@dataclass(frozen=True, kw_only=True)
class ScoreRecord(Record):
    """A metric of samples. Its key is its protocol: what the weights, the samples and the score follow from."""

    KEY = (
        "metric", "model", "source", "step", "training", "sampling", "extractor", "resolution", "reference",
        "reference_sha256", "n_samples", "n_reference", "arithmetic", "permute_seed", "split", "stride_real",
        "stride_fake", "real_videos", "covariance",
    )  # fmt: skip

    @classmethod
    def key_of(cls, quantity: str, workload: Mapping[str, Any]) -> Key:
        """The key; where the training is stated, the file that the weights lay in says nothing more."""
        stated = {name: value for name, value in workload.items() if name != "source" or not workload.get("training")}
        return super().key_of(quantity, stated)

    @property
    def weights_sha256(self) -> str | None:
        """The digest of the checkpoint, where the record states one."""
        source = self.get("source_identity")
        return source.get("sha256") if isinstance(source, dict) else None


KINDS: dict[str, type[Record]] = {
    quantity: kind for kind in (CostRecord, MemoryRecord, LatencyRecord, RateRecord) for quantity in kind.QUANTITIES
}
"""Which kind a quantity is of; every other quantity is a score."""

TYPES: dict[str, tuple[type, ...]] = {
    "quantity": (str,), "value": (int, float, type(None)), "unit": (str,), "method": (str,), "workload": (dict,),
    "provenance": (dict,), "verdict": (str,), "parts": (dict,), "omitted": (dict,), "samples": (list,),
    "warmups": (list,), "seed": (int, type(None)), "note": (str,), "schema": (int,),
}  # fmt: skip
"""What a line of a file must hold."""


def of_fields(fields: Mapping[str, Any]) -> Record:
    """A record of its own kind. Raises ValueError for what is none."""
    quantity = fields.get("quantity")
    return KINDS.get(quantity, ScoreRecord).read(fields) if isinstance(quantity, str) else Record.read(fields)


def of_kind(records: Iterable[Record], kind: type[R]) -> list[R]:
    """Those of one kind, in order."""
    return [record for record in records if isinstance(record, kind)]


def of_earlier_weights(
    records: Iterable[Record], run: Callable[[ScoreRecord], object] = lambda record: frozen(record.get("training"))
) -> set[str]:
    """The digests of checkpoints whose run was trained anew, and scored, since.

    One training gives other weights on another machine, and what is compared of one training must be of one file. Files
    are told apart by their digest, so that weights which come out the same count as trained anew, too. `run` tells
    trainings apart: by their settings, each average by itself, or as the caller knows them.
    """
    trained = [
        ((run(record), record.get("step")), record.weights_sha256)
        for record in sorted(of_kind(records, ScoreRecord), key=lambda one: one.provenance.time)
        if record.weights_sha256 and record.get("training")
    ]
    current = dict(trained)
    return {sha256 for training, sha256 in trained if sha256 != current[training]}


def latest(records: Iterable[R]) -> dict[Key, R]:
    """The last record of each question, in order of the first."""
    return {record.key(): record for record in records}


def require_same(one: Record, other: Record) -> None:
    """Raise ValueError, naming the fields, for two records that do not answer the same question."""
    a, b = dict(one.key()), dict(other.key())
    unlike = [name for name in {**a, **b} if a.get(name) != b.get(name)]
    if unlike:
        what = "; ".join(f"{name} is {a.get(name)!r} in one and {b.get(name)!r} in the other" for name in unlike)
        raise ValueError(f"not comparable: {what}")


def frozen(value: Any) -> Any:
    """A value of JSON as one that can be compared and hashed: lists are tuples, dictionaries sorted pairs."""
    if isinstance(value, dict):
        return tuple(sorted((name, frozen(one)) for name, one in value.items()))
    if isinstance(value, list | tuple):
        return tuple(map(frozen, value))
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
