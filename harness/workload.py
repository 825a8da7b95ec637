"""What is asked of a model: the Workload, sweeps of them, those that have a name, and the parser that doors share."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from models import ModelSpec, spec
from models.spec import MERGES


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


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line on stderr and exit code 2."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {message}", file=sys.stderr)
        raise SystemExit(2)


def positive(text: str) -> int:
    """argparse type: an integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, not {text!r}")
    return value


def writable(text: str) -> Path:
    """argparse type: a file that can be written, or created in a directory that is there."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot write {text!r}")
    return path


def add_model_flags(parser: argparse.ArgumentParser, models: list[str], resolutions: list[int]) -> None:
    """The flags that choose models, their resolutions, and departures from the paper's architecture."""
    parser.add_argument("--model", nargs="+", default=models, metavar="NAME", help="default: %(default)s")
    parser.add_argument(
        "--res", nargs="+", type=positive, default=resolutions, metavar="PX", help="default: %(default)s"
    )
    parser.add_argument("--batch", type=positive, default=1, help="images or clips a forward pass (default 1)")
    parser.add_argument("--frames", type=positive, help="of a clip, for models of video (default 16)")
    parser.add_argument("--depth", type=positive, help="blocks, instead of the catalogue's")
    parser.add_argument("--merge", choices=MERGES, help="how DiM joins its two directions (default mean)")
    parser.add_argument("--no-mlp", action="store_true", help="blocks without their MLP (adaLN of 3 chunks)")


def sweep(args: argparse.Namespace) -> list[Workload]:
    """The product of `--model` and `--res`, models first. Raises ValueError for what no model can do."""
    overrides: dict[str, object] = {}
    if args.frames is not None:
        overrides["frames"] = args.frames
    if args.depth is not None:
        overrides["depth"] = args.depth
    if args.merge is not None:
        overrides["merge"] = args.merge
    if args.no_mlp:
        overrides["mlp"] = False
    specs = [spec(name, **overrides) for name in args.model]
    return [Workload(spec=s, resolution=r, batch=args.batch) for s, r in itertools.product(specs, args.res)]


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
