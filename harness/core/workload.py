"""What is requested of a model: the Workload, sweeps of them, and those that have a name."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models import ModelSpec, spec


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One question: this model, at this resolution in pixels, on a batch of so many. Its fields key a record."""

    spec: ModelSpec
    resolution: int
    batch: int = 1
    action: str = "forward"
    dtype: str = "float32"
    attention: str = "sdpa"
    scan: str = "auto"
    checkpointing: bool = False
    joint_images: int = 0  # single frames beside each clip, in training

    def __post_init__(self) -> None:
        self.spec.grid(self.resolution)
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(f"unknown {field} {getattr(self, field)!r}; choose from {', '.join(choices)}")
        if self.batch < 1:
            raise ValueError(f"batch must be a positive integer, not {self.batch!r}")
        if self.joint_images and (self.action != "train" or not self.spec.frames):
            raise ValueError(f"joint images are learnt beside clips, not in {self.action} of {self.spec.name}")

    @property
    def unit(self) -> str:
        """What the batch counts: image or clip."""
        return "clip" if self.spec.frames else "image"

    def key(self) -> dict[str, object]:
        """What a count depends on, as it stands in a record."""
        frames = {"frames": self.spec.frames} if self.spec.frames else {}
        frames |= {"joint_images": self.joint_images} if self.joint_images else {}
        return {
            "model": self.spec.name,
            "resolution": self.resolution,
            **frames,
            "batch": self.batch,
            "action": self.action,
        }

    def settings(self) -> dict[str, object]:
        """What a measurement of time or memory depends on: the key, and how the network is run."""
        mixer = {"attention": self.attention} if self.spec.family == "DiT" else {"scan": self.scan}
        return {**self.key(), "dtype": self.dtype, **mixer, "checkpointing": self.checkpointing}


CHOICES = {
    "action": ("forward", "sample", "train"),
    "dtype": ("float32", "bfloat16"),
    "attention": ("sdpa", "naive"),
}

PRESETS: dict[str, dict[str, object]] = {
    # Both families at the paper's depth and DiM at equal parameters: some ten minutes on one data-centre card.
    "gpu-sweep": {
        "model": ["DiT-XL/2", "DiM-XL/2", "DiM-XL/2-matched"],
        "res": [256, 512, 1024, 2048],
        "action": ["forward", "train"],
        "dtype": ["bfloat16", "float32"],
        "attention": ["sdpa", "naive"],
        "device": "cuda",
    },
}
"""Sweeps of `harness.bench` by name, as defaults of its flags."""


def runs(
    base: Sequence[Workload],
    actions: Sequence[str] = ("forward",),
    dtypes: Sequence[str] = ("float32",),
    attentions: Sequence[str] = ("sdpa",),
    scans: Sequence[str] = ("auto",),
    checkpointing: bool = False,
) -> list[Workload]:
    """Each workload in every way of running it, once; attention varies for DiT only, the scan for DiM only."""
    found = []
    for w in base:
        mixers = [(a, "auto") for a in attentions] if w.spec.family == "DiT" else [("sdpa", s) for s in scans]
        for action, dtype, (attention, scan) in itertools.product(actions, dtypes, mixers):
            how: dict[str, Any] = {"action": action, "dtype": dtype, "attention": attention, "scan": scan}
            found.append(dataclasses.replace(w, **how, checkpointing=checkpointing))
    return list(dict.fromkeys(found))


def preset(name: str) -> list[Workload]:
    """The workloads of a named sweep, one image each. Raises ValueError for an unknown name."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; choose from {', '.join(PRESETS)}")
    flags: dict[str, Any] = PRESETS[name]
    base = [Workload(spec=spec(m), resolution=r) for m, r in itertools.product(flags["model"], flags["res"])]
    return runs(base, flags["action"], flags["dtype"], flags["attention"])
