"""What commands share: the parser, argument types, and the flags that choose models."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from pathlib import Path
from typing import NoReturn

from harness.core.workload import Workload
from models import spec
from models.spec import MERGES


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
