"""Rebuild the paper's comparison: train what is missing, score it, make every table and figure.

    python -m harness.reproduce --suite digits                     embedded data, a CPU
    python -m harness.reproduce --suite paper --plan               the commands for a cluster, with their cost
    python -m harness.reproduce --suite paper --only table5 --nproc-per-node 8 --data imagenet256=/data/imagenet/train

Each run has a directory named by its settings, each score a record: nothing is done twice, a changed setting is a new
run, and the same command continues wherever it was stopped or killed. Exit codes: 0 done; 1 some run failed, and is
named; 2 bad input; 75 stopped by SIGTERM or SIGINT, to be continued.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from harness import suites
from harness.core import paper, paths
from harness.core.command import FAILED, STOPPED, Parser, folder, run
from harness.core.options import add_options, from_arguments, option
from harness.suites.plan import CARD_GIB

DEVICE_FLOPS = 1e14


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a suite is reproduced; the fields are the flags."""

    suite: str = option("digits", "which comparison", choices=suites.SUITES)
    only: tuple[str, ...] = option(paper.PARTS, "parts of the paper", choices=paper.PARTS)
    plan: bool = option(False, "print the commands and what they cost; run nothing")
    jobs: int = option(1, "runs at a time, sharing the cores", least=1)
    nproc_per_node: int = option(1, "processes a run, under torchrun", least=1)
    card_gib: float = option(CARD_GIB, "memory of a card in GiB: a larger run recomputes activations, and takes its "
                             "batch in parts", least=1)  # fmt: skip
    device_flops: float | None = option(None, f"FLOP/s of a card, for the plan (default: {DEVICE_FLOPS:.0e})", least=1)


def _pair(text: str) -> tuple[str, str]:
    """argparse type: `imagenet256=/data/imagenet/train`."""
    name, equals, where = text.partition("=")
    if not (name and equals and where):
        raise argparse.ArgumentTypeError(f"{text!r} is not PRESET=WHERE")
    return name, where


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse; print the plan, or carry it out."""
    parser = Parser(prog="harness.reproduce", description=__doc__)
    add_options(parser, Options)
    for flag, text in (("--data", "where the data of a preset is"), ("--ref", "its reference for FID")):
        parser.add_argument(flag, nargs="+", type=_pair, default=[], metavar="PRESET=WHERE", help=text)
    for flag, where in (("--runs", paths.runs()), ("--results", paths.home())):
        parser.add_argument(flag, type=folder, default=where, metavar="DIR", help="default: %(default)s")
    args = parser.parse_args(arguments)
    return run(parser, lambda: _reproduce(from_arguments(Options, args), args))


def _reproduce(options: Options, args: argparse.Namespace) -> int:
    where = {"runs": args.runs, "results": args.results, "data": dict(args.data), "references": dict(args.ref)}
    plan = suites.Plan(suite=suites.suite(options.suite), parts=options.only, processes=options.nproc_per_node,
                       card_gib=options.card_gib, **where).renewed()  # fmt: skip
    if options.plan:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it, as there is nothing else to be done
        for line in plan.script(options.device_flops or DEVICE_FLOPS):
            print(line)
        return 0
    if options.device_flops:
        raise ValueError("--device-flops is of --plan")
    try:
        failures = suites.reproduce(plan, options.jobs)
    except suites.StoppedError as stopped:
        print(stopped, flush=True)
        return STOPPED
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return FAILED if failures else 0


if __name__ == "__main__":
    sys.exit(main())
