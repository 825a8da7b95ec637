"""What is requested of a model: the Workload, sweeps of them, and those that have a name."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.records import TASK
from models import ModelSpec, spec
from models.families import named


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One question: this model, at this resolution in pixels, on a batch of so many. Its fields key a record.

    `implementation` is one of the family's ways of running its mixer (`--attention` of DiT, `--scan` of DiM), its
    default if not given. Whether this machine has it is checked where the network is built. Raises ValueError, naming
    the field and the choices, for what no model can do.
    """

    spec: ModelSpec
    resolution: int
    batch: int = 1
    action: str = "forward"
    dtype: str = "float32"
    implementation: str = ""
    weights: str = "float32"  # as they are stored; those of linear layers and convolutions also in bfloat16
    checkpointing: bool = False
    operands: str = "recomputed"  # of the mixer, in training: made again in the backward, or kept for it
    joint_images: int = 0  # single frames beside each clip, in training

    def __post_init__(self) -> None:
        self.spec.grid(self.resolution)
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(f"unknown {field} {getattr(self, field)!r}; choose from {', '.join(choices)}")
        ways = named(self.spec.family).implementations
        if ways and not self.implementation:
            object.__setattr__(self, "implementation", ways.default)
        if self.implementation and not ways:
            raise ValueError(f"{self.spec.family} has one implementation only, not {self.implementation!r}")
        if self.weights == "bfloat16" and not _half_weights(self.action, self.dtype):
            raise ValueError(
                f"weights in bfloat16 are of forward and sample in bfloat16, not of {self.action} in {self.dtype}; "
                "training updates weights in float32"
            )
        if self.operands == "kept" and not _recomputes(self.spec, self.action):
            raise ValueError(f"{self.action} of {self.spec.name} recomputes no operands, which could be kept")
        if self.batch < 1:
            raise ValueError(f"batch must be a positive integer, not {self.batch!r}")
        if self.largest_bytes >= 2**63:
            raise ValueError(
                f"{self.spec.name} at {self.resolution} px, batch {self.batch}, has tensors of more than 2^63 bytes; "
                "choose a smaller resolution or batch"
            )
        if self.joint_images and (self.action != "train" or not self.spec.frames):
            raise ValueError(f"joint images are trained beside clips, not in {self.action} of {self.spec.name}")

    @property
    def largest_bytes(self) -> int:
        """At least the size of the largest tensor in a pass: scores of attention, or what is inside an MLP or mixer."""
        tokens = self.batch * max(1, self.spec.frames) * self.spec.tokens(self.resolution)
        widest = max(self.spec.heads * self.spec.tokens(self.resolution), 8 * self.spec.inner * self.spec.state)
        return 8 * tokens * widest

    @property
    def unit(self) -> str:
        """What the batch counts: image or clip."""
        return "clip" if self.spec.frames else "image"

    @property
    def mixer(self) -> str:
        """How the mixer is run, in words: "sdpa attention", "auto scan"; empty where there is one way."""
        ways = named(self.spec.family).implementations
        return ways.words(self.implementation) if ways else ""

    def key(self) -> dict[str, object]:
        """What a count depends on, as it stands in a record."""
        clip = {"frames": self.spec.frames} if self.spec.frames else {}
        clip |= {"joint_images": self.joint_images} if self.joint_images else {}
        usual = {field.name: field.default for field in dataclasses.fields(ModelSpec)}
        task = {name: getattr(self.spec, name) for name in TASK if getattr(self.spec, name) != usual[name]}
        return {
            "model": self.spec.name,
            "resolution": self.resolution,
            **clip,
            **task,
            "batch": self.batch,
            "action": self.action,
        }

    def settings(self) -> dict[str, object]:
        """What a measurement of time or memory depends on: the key, and how the network is run."""
        ways = named(self.spec.family).implementations
        mixer = {ways.field: self.implementation} if ways else {}
        changed = {name: getattr(self, name) for name in ("weights", "operands") if getattr(self, name) != USUAL[name]}
        return {**self.key(), "dtype": self.dtype, **mixer, "checkpointing": self.checkpointing, **changed}


def _half_weights(action: str, dtype: str) -> bool:
    """Whether weights may be stored in bfloat16."""
    return action != "train" and dtype == "bfloat16"


def _recomputes(model: ModelSpec, action: str) -> bool:
    """Whether there are operands that may be kept."""
    return action == "train" and named(model.family).recomputes


CHOICES = {
    "action": ("forward", "sample", "train"),
    "dtype": ("float32", "bfloat16"),
    "weights": ("float32", "bfloat16"),
    "operands": ("recomputed", "kept"),
}
USUAL = {name: choices[0] for name, choices in CHOICES.items()}
"""What a workload is where it does not state it."""

PAIRS = {size: [f"DiT-{size}/2", f"DiM-{size}/2", f"DiM-{size}/2-matched"] for size in ("S", "B", "XL")}
"""DiT, DiM of its depth, and DiM of its parameters."""

_CPU: dict[str, object] = {
    "dtype": ["float32"], "attention": ["sdpa"],
    "device": "cpu", "rounds": 10, "warmup": 2, "spread": 0.02, "seconds": 45.0, "timeout": 3600.0,
}  # fmt: skip
_SMALL, _LARGE = PAIRS["S"] + PAIRS["B"], PAIRS["XL"]

_MEMORY: dict[str, object] = {
    "model": _LARGE, "res": [256, 512, 1024, 2048], "action": ["train"], "dtype": ["bfloat16", "float32"],
    "attention": ["sdpa"], "scan": ["auto"], "weights": ["float32"], "operands": ["recomputed"],
    "checkpointing": False, "batch": 1, "device": "cuda",
}  # fmt: skip

PRESETS: dict[str, list[dict[str, object]]] = {
    # Both families at the paper's depth and DiM at equal parameters: some ten minutes on one data-centre card.
    "gpu-sweep": [
        {
            "model": _LARGE,
            "res": [256, 512, 1024, 2048],
            "action": ["forward", "train"],
            "dtype": ["bfloat16", "float32"],
            "attention": ["sdpa", "naive"],
            "device": "cuda",
        },
    ],
    # What two cores and 24 GiB answer in about two hours: the largest model and resolution take minutes a step.
    "cpu-sweep": [
        {**_CPU, "model": _SMALL + _LARGE, "res": [256, 512, 1024, 2048], "action": ["forward"],
         "attention": ["sdpa", "naive"]},
        {**_CPU, "model": _SMALL, "res": [256, 512, 1024], "action": ["sample"]},
        {**_CPU, "model": _LARGE, "res": [256, 512], "action": ["sample"]},
        {**_CPU, "model": _SMALL, "res": [256, 512, 1024], "action": ["train"]},
        {**_CPU, "model": _LARGE, "res": [256, 512], "action": ["train"]},
    ],
    # What the table of memory predicts: the GPU sweep, what takes less of it or more, and the paper's batch at 2048.
    "memory": [
        {**_MEMORY, "action": ["forward", "train"], "attention": ["sdpa", "naive"]},
        {**_MEMORY, "action": ["forward"], "dtype": ["bfloat16"], "weights": ["bfloat16"]},
        {**_MEMORY, "checkpointing": True},
        {**_MEMORY, "model": _LARGE[1:], "operands": ["kept"]},
        {**_MEMORY, "model": _LARGE[:2], "res": [2048], "action": ["forward"], "dtype": ["float32"], "batch": 3,
         "attention": ["sdpa", "naive"], "scan": ["auto", "naive"]},
    ],
}  # fmt: skip
"""Sweeps of `harness.bench` by name, in parts, each as defaults of its flags."""


def runs(
    base: Sequence[Workload],
    actions: Sequence[str] = ("forward",),
    dtypes: Sequence[str] = ("float32",),
    implementations: Mapping[str, Sequence[str]] | None = None,
    checkpointing: bool = False,
    operands: Sequence[str] = ("recomputed",),
    weights: Sequence[str] = ("float32",),
) -> list[Workload]:
    """Each workload in every way of running it, once.

    `implementations` gives names by their field, as {"attention": ["sdpa", "naive"], "scan": ["auto"]}; a model varies
    over those of its own family, and runs in the default where there are none. `operands` are of families that
    recompute them, in training; `weights` of what is not trained, in bfloat16.
    """
    found = []
    for w in base:
        ways = named(w.spec.family).implementations
        names = (implementations or {}).get(ways.field, (ways.default,)) if ways else ("",)
        for action, dtype, name, kept, stored in itertools.product(actions, dtypes, names, operands, weights):
            how: dict[str, Any] = {"action": action, "dtype": dtype, "implementation": name}
            how["operands"] = kept if _recomputes(w.spec, action) else USUAL["operands"]
            how["weights"] = stored if _half_weights(action, dtype) else USUAL["weights"]
            found.append(dataclasses.replace(w, **how, checkpointing=checkpointing))
    return list(dict.fromkeys(found))


def preset(name: str) -> list[Workload]:
    """The workloads of a named sweep. Raises ValueError for an unknown name."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; choose from {', '.join(PRESETS)}")
    found: list[Workload] = []
    for part in PRESETS[name]:
        flags: dict[str, Any] = {"batch": 1, "checkpointing": False, "operands": ["recomputed"], "weights": ["float32"]}
        flags |= part
        base = [
            Workload(spec=spec(model), resolution=resolution, batch=flags["batch"])
            for model, resolution in itertools.product(flags["model"], flags["res"])
        ]
        how = (flags[name] for name in ("checkpointing", "operands", "weights"))
        found += runs(base, flags["action"], flags["dtype"], flags, *how)
    return found
