"""`python -m harness.bench`: memory, OOM, latency and throughput, predicted without a GPU and measured on one.

    python -m harness.bench --predict --res 256 512 1024 2048 --device-memory 24GiB 40GiB 80GiB 141GiB
    python -m harness.bench --fits 24GiB --model DiM-XL/2 --res 512 --action train
    python -m harness.bench --preset cpu-sweep
    python -m harness.bench --preset gpu-sweep
    python -m harness.bench --suite fashion               # a training step of each model of a suite, side by side
    python -m harness.bench --compare before.jsonl after.jsonl
    python -m harness.bench --floor --card H100 L4 --action forward train --dtype bfloat16

A prediction runs the real model on fake tensors. A measurement runs each workload in a process of its own; an OOM is a
row, a failure is a row, and the same command continues where it was stopped. A floor needs only a GPU's data sheet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import report, suites
from harness.core import paths
from harness.core.command import STOPPED, Parser, only_with, records_file, run, writable
from harness.core.options import from_arguments
from harness.core.workload import PRESETS, Workload
from harness.cost import flags
from harness.cost.sweep import measure_latency, predict_sweep
from harness.cost.timing import Timing
from harness.report.floors import floors_text
from harness.report.headroom import fits_text, predicted_text
from harness.report.sweep import compared_text, measured_rows
from harness.suites.steps import training_steps


def main(argv: list[str] | None = None) -> int:
    """Predict, measure or compare."""
    parser = Parser(prog="harness.bench", description=__doc__)
    flags.add_sweep_flags(parser)
    parser.add_argument("--suite", choices=suites.SUITES, metavar="NAME", help="a training step of each model of a "
                        f"suite of small data, of {', '.join(suites.SUITES)}")  # fmt: skip
    parser.add_argument("--format", choices=report.FORMATS, default="table")
    parser.add_argument("--records", type=writable, metavar="FILE", help=f"default: in {paths.measurements()}")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="what changed from records A to B")
    flags.add_run_flags(parser)
    flags.add_floor_flags(parser)
    preset = parser.parse_known_args(argv)[0].preset
    parts = [_with_defaults(parser, part, argv) for part in (PRESETS[preset] if preset else [{}])]
    return run(parser, lambda: _work(parts, parser.given(argv)))


def _with_defaults(parser: Parser, part: Mapping[str, object], argv: list[str] | None) -> argparse.Namespace:
    """The flags, with those of a part of a preset where they are not given."""
    parser.set_defaults(**part)
    return parser.parse_args(argv)


def _work(parts: Sequence[argparse.Namespace], given: set[str]) -> int:
    """Find out and print what is requested. A flag that changes nothing is refused by name."""
    args = parts[0]
    if args.compare:
        only_with("--compare", given - {"--compare", "--format"}, not_with=True)
        before, after = args.compare
        print(compared_text(before, after, args.format))
        return 0
    flags.check_mode_flags(args, given)
    if args.suite:
        only_with("--suite", given & {*flags.of_sweeps(), "--floor", "--fits"}, not_with=True)
    if args.floor:
        print(floors_text(flags.workloads_of(args, given), args.card, args.format, args.records))
        return 0
    if args.fits:
        workloads = [w for part in parts for w in flags.workloads_of(part, given)]
        print(fits_text(workloads, args.fits, args.format))
        return 0
    if not any("sample" in part.action for part in parts):
        only_with("--action sample", given & {"--steps"})
    swept = (w for part in parts for w in flags.workloads_of(part, given))
    workloads = list(dict.fromkeys(training_steps(args.suite) if args.suite else swept))
    if args.predict:
        peaks = predict_sweep(workloads, records_file(args.records, "memory.jsonl"))
        print(predicted_text(peaks, args.device_memory, args.format))
        return 0
    return _measure(workloads, args)


def _measure(workloads: Sequence[Workload], args: argparse.Namespace) -> int:
    """Time the workloads; those that an interrupt has left out make the exit code STOPPED."""
    records = measure_latency(workloads, from_arguments(Timing, args), records_file(args.records, "bench.jsonl"))
    if records:
        device = records[0].workload["device"]
        print(f"{device}\n\n{report.render(measured_rows(records, args.steps), args.format)}")
    return 0 if len(records) == len(workloads) else STOPPED


if __name__ == "__main__":
    sys.exit(main())
