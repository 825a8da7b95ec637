"""The flags that choose a sweep of workloads: models, resolutions, and the ways of running them."""

from __future__ import annotations

import argparse

from harness.core.command import add_model_flags, sweep
from harness.core.workload import CHOICES, PRESETS, Workload, runs
from harness.cost.sweep import with_equal_macs
from models.families import FAMILIES, implementations, named

MODELS = ["DiT-XL/2", "DiM-XL/2"]
RESOLUTIONS = [256, 512, 1024, 2048]


def add_sweep_flags(parser: argparse.ArgumentParser) -> None:
    """Models and resolutions, actions, dtypes, implementations of each mixer, and presets of all those."""
    add_model_flags(parser, MODELS, RESOLUTIONS)
    parser.add_argument("--action", nargs="+", choices=CHOICES["action"], default=["forward"])
    parser.add_argument("--dtype", nargs="+", choices=CHOICES["dtype"], default=["float32"])
    for field, ways in implementations().items():
        names = [family.name for family in FAMILIES if family.implementations is ways]
        how = f"of {', '.join(names)} (default: {' '.join(ways.usual)})"
        parser.add_argument(f"--{field}", nargs="+", default=list(ways.usual), metavar="BACKEND", help=how)
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations in the backward pass")
    parser.add_argument("--operands", nargs="+", choices=CHOICES["operands"], default=["recomputed"],
                        help="of DiM's scans, in training (default: %(default)s)")  # fmt: skip
    parser.add_argument("--equal-macs", action="store_true", help="add models of their counterpart's multiply-adds")
    parser.add_argument("--preset", choices=list(PRESETS), help="defaults for the flags not given")


def workloads_of(args: argparse.Namespace, given: set[str]) -> list[Workload]:
    """The sweep, in order of models and resolutions, each in the implementations of its family's mixer.

    Raises ValueError for what no model can do, and for a flag among those `given` that changes nothing.
    """
    base = sweep(args)
    used = {ways.field for w in base if (ways := named(w.spec.family).implementations)}
    chosen = {field: getattr(args, field) for field in implementations()}
    for field, ways in implementations().items():
        if f"--{field}" in given and field not in used:
            raise ValueError(f"--{field} is of none of the models {', '.join(args.model)}")
        for name in chosen[field]:
            ways.check(name)
    if args.checkpointing and "train" not in args.action:
        raise ValueError("--checkpointing is of --action train: only training has a backward pass")
    base = with_equal_macs(base) if args.equal_macs else base
    found = runs(base, args.action, args.dtype, chosen, args.checkpointing, args.operands)
    if "kept" in args.operands and not any(w.operands == "kept" for w in found):
        raise ValueError("--operands kept is of --action train of a DiM: nothing else recomputes operands")
    return found
