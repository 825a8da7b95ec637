"""The flags of harness.bench: those that choose a sweep of workloads, and what is to be found out of it."""

from __future__ import annotations

import argparse

from harness.core import cards
from harness.core.command import Parser, add_model_flags, only_with, positive, size, sweep
from harness.core.options import add_options
from harness.core.workload import CHOICES, PRESETS, Workload, runs
from harness.cost.sweep import with_equal_macs
from harness.cost.timing import Timing
from models.families import FAMILIES, implementations, named

MODELS = ["DiT-XL/2", "DiM-XL/2"]
RESOLUTIONS = [256, 512, 1024, 2048]
MEMORIES = ("24GiB", "40GiB", "80GiB", "141GiB")
OF_PREDICTING = ("--device-memory",)
OF_MEASURING = ("--device", "--rounds", "--warmup", "--spread", "--seconds", "--timeout", "--cache", "--cuda-graph",
                "--keep-all", "--memory-limit", "--steps")  # fmt: skip


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
    parser.add_argument("--weights", nargs="+", choices=CHOICES["weights"], default=["float32"],
                        help="stored dtype, with --dtype bfloat16, not in training (default: %(default)s)")  # fmt: skip
    parser.add_argument("--operands", nargs="+", choices=CHOICES["operands"], default=["recomputed"],
                        help="inputs of DiM's scans in training (default: %(default)s)")  # fmt: skip
    parser.add_argument("--equal-macs", action="store_true", help="add models of equal multiply-adds")
    parser.add_argument("--preset", choices=list(PRESETS), help="defaults for the flags not given")


def of_sweeps() -> set[str]:
    """The flags that say what is run."""
    sweeps = Parser(add_help=False)
    add_sweep_flags(sweeps)
    return sweeps.flags()


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """How memory is predicted, and how a step is timed."""
    prediction = parser.add_argument_group("prediction")
    prediction.add_argument("--predict", action="store_true", help="predict peak memory; run nothing")
    prediction.add_argument("--fits", nargs="+", type=size, metavar="SIZE", help="print the largest batch that fits")
    prediction.add_argument("--device-memory", nargs="+", type=size, default=[size(memory) for memory in MEMORIES],
                            metavar="SIZE", help=f"memory of the GPUs (default: {' '.join(MEMORIES)})")  # fmt: skip
    measurement = parser.add_argument_group("measurement")
    add_options(measurement, Timing)
    measurement.add_argument("--memory-limit", type=size, metavar="SIZE", help="memory limit of each process, on a CPU")
    measurement.add_argument("--steps", type=positive, default=250,
                             help="denoising steps of a full sample (default: %(default)s)")  # fmt: skip


def add_floor_flags(parser: argparse.ArgumentParser) -> None:
    """Floors instead of runs, and of which cards."""
    known = list(cards.figures())
    group = parser.add_argument_group("floors")
    group.add_argument("--floor", action="store_true", help="print a lower bound of the time of a step on a GPU")
    group.add_argument("--card", nargs="+", choices=(*known, cards.CPU), default=known, metavar="NAME",
                       help=f"of {', '.join(known)}; {cards.CPU}: this machine (default: all GPUs)")  # fmt: skip


def check_mode_flags(args: argparse.Namespace, given: set[str]) -> None:
    """Raises ValueError for a flag that changes nothing: one of runs with `--floor`, one of floors without it, one of
    measuring with `--predict`, one of predicting without it, and what chooses no question with `--fits`."""
    if args.fits:
        other = {"--predict", "--floor", "--card", "--records", "--batch", *OF_PREDICTING, *OF_MEASURING}
        only_with("--fits", given & other, not_with=True)
    elif args.floor:
        how = {"--predict", "--checkpointing", "--operands", "--weights", "--preset"}
        how |= {f"--{field}" for field in implementations()}
        only_with("--floor", given & {*how, *OF_PREDICTING, *OF_MEASURING}, not_with=True)
        only_with("--card cpu", given & {"--records"} if cards.CPU not in args.card else ())
    else:
        only_with("--floor", given & {"--card"})
        only_with("--predict", given & set(OF_MEASURING if args.predict else OF_PREDICTING), not_with=args.predict)


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
    found = runs(base, args.action, args.dtype, chosen, args.checkpointing, args.operands, args.weights)
    if "bfloat16" in args.weights and not any(w.weights == "bfloat16" for w in found):
        raise ValueError("--weights bfloat16 is of --dtype bfloat16 in --action forward or sample, not train")
    if "kept" in args.operands and not any(w.operands == "kept" for w in found):
        raise ValueError("--operands kept is of --action train of a DiM: nothing else recomputes operands")
    return found
