"""Rebuild the paper's comparison: train what is missing, score it, make every table and figure.

    python -m harness.reproduce --suite digits                     small data, on a CPU
    python -m harness.reproduce --suite paper --plan               the commands for a cluster, with their cost
    python -m harness.reproduce --suite paper --rehearse           the same at smallest sizes, on synthetic data
    python -m harness.reproduce --suite paper --only table5 --nproc-per-node 8 --data imagenet256=/data/imagenet/train
    python -m harness.reproduce --suite paper --submit slurm --gpus-per-node 8 --time 12:00:00

Each run has a folder named after its settings, each score is a record: nothing is done twice, a changed setting is a
new run. The same command continues after a stop or a kill. With --submit slurm it shows which jobs wait, run or have
failed, and submits failed ones again (exit code 75). Exit codes: 0: done; 1: a local run failed, and is named; 2: bad
input; 75: stopped by SIGTERM, SIGUSR1 or SIGINT, or waiting in Slurm's queue: run the same command again.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from harness import suites
from harness.core import paths
from harness.core.command import FAILED, STOPPED, Parser, folder, only_with, require_folder, run
from harness.core.options import add_options, from_arguments
from harness.suites.plan import REPORT


def _pair(text: str) -> tuple[str, str]:
    """argparse type: `imagenet256=/data/imagenet/train`."""
    name, equals, where = text.partition("=")
    if not (name and equals and where):
        raise argparse.ArgumentTypeError(f"{text!r} is not PRESET=WHERE")
    return name, where


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse; print the plan, submit it, or carry it out."""
    parser = Parser(prog="harness.reproduce", description=__doc__)
    add_options(parser, suites.Request)
    for flag, text in (("--data", "where the data of a preset is"), ("--ref", "its reference for FID")):
        parser.add_argument(flag, nargs="+", type=_pair, default=[], metavar="PRESET=WHERE", help=text)
    parser.add_argument("--vae", metavar="WHERE", help="directory or hub name of the autoencoder, if not the preset's")
    for flag, where in (("--runs", paths.runs()), ("--results", paths.home())):
        parser.add_argument(flag, type=folder, default=where, metavar="DIR", help="default: %(default)s")
    add_options(parser.add_argument_group("with --submit slurm"), suites.Allocation)
    add_options(parser.add_argument_group("what the times of --plan rest on"), suites.Assumptions)
    args, given = parser.parse_args(arguments), parser.given(arguments)
    return run(parser, lambda: _reproduce(args, given))


def _reproduce(args: argparse.Namespace, given: set[str]) -> int:
    request, allocation = from_arguments(suites.Request, args), from_arguments(suites.Allocation, args)
    if request.submit != "slurm":
        only_with("--submit slurm", given & {"--time", "--partition", "--sbatch", "--dry-run"})
    if not request.printed:
        only_with("--plan", given & {"--device-flops", "--card", "--mfu", "--network-gb-per-s", "--storage-gb-per-s"})
    if not request.printed and not request.rehearse:
        require_folder(args.runs)
        require_folder(args.results)
    plan = request.plan(
        runs=args.runs, results=args.results, data=dict(args.data), references=dict(args.ref), vae=args.vae
    )
    if request.printed:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it, as there is nothing else to be done
        for line in suites.script(plan, from_arguments(suites.Assumptions, args), request.max_jobs or 1):
            print(line)
        return 0
    if request.submit == "slurm":
        lines, done = suites.submit(plan, allocation, request.max_jobs)
        print("\n".join(lines))
        return 0 if done or allocation.dry_run else STOPPED
    if not (request.rehearse or plan.work()):
        print(f"nothing is left to train or to score of {plan.suite.name}: {plan.records} has all of it", flush=True)
    try:
        failures = (suites.rehearse if request.rehearse else suites.reproduce)(plan, request.max_jobs or 1)
    except suites.StoppedError as stopped:
        print(stopped, flush=True)
        suites.give_back()
        return STOPPED
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    if request.rehearse and not failures:
        print(f"all commands of suite {plan.suite.name} were rehearsed, and ended well")
    elif REPORT in plan.stages and not failures:
        print(f"tables and figures: {plan.results / 'tables'}, {plan.results / 'figures'}")
    return FAILED if failures else 0


if __name__ == "__main__":
    sys.exit(main())
