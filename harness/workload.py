"""What is asked of a model: the Workload, the sweep over list-valued flags, and the parser that every door shares."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

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

    def __post_init__(self) -> None:
        self.spec.grid(self.resolution)
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(f"unknown {field} {getattr(self, field)!r}; choose from {', '.join(choices)}")
        if self.batch < 1:
            raise ValueError(f"batch must be a positive integer, not {self.batch!r}")

    def key(self) -> dict[str, object]:
        """What a count depends on, as it stands in a record."""
        return {
            "model": self.spec.name,
            "resolution": self.resolution,
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
    parser.add_argument("--batch", type=positive, default=1, help="images a forward pass (default 1)")
    parser.add_argument("--depth", type=positive, help="blocks, instead of the catalogue's")
    parser.add_argument("--merge", choices=MERGES, help="how DiM joins its two directions (default mean)")
    parser.add_argument("--no-mlp", action="store_true", help="blocks without their MLP (adaLN of 3 chunks)")


def sweep(args: argparse.Namespace) -> list[Workload]:
    """The product of `--model` and `--res`, models first. Raises ValueError for what no model can do."""
    overrides: dict[str, object] = {}
    if args.depth is not None:
        overrides["depth"] = args.depth
    if args.merge is not None:
        overrides["merge"] = args.merge
    if args.no_mlp:
        overrides["mlp"] = False
    specs = [spec(name, **overrides) for name in args.model]
    return [Workload(spec=s, resolution=r, batch=args.batch) for s, r in itertools.product(specs, args.res)]
