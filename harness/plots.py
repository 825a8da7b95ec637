"""`python -m harness.plots`: figures from the records, as SVG and PNG.

    python -m harness.plots                             # all that can be drawn
    python -m harness.plots --suite digits              # of quality alone
    python -m harness.plots --figure cost               # counted again, and recorded in output/measurements
    python -m harness.plots --figure memory latency --own        # with your own records of harness.bench
    python -m harness.plots --figure frontier --include mine.jsonl      # your scores, where they follow the protocol

A figure without records is not drawn. If you name one, the error names the command that makes its records.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness import report, suites
from harness.core import paper, paths, store
from harness.core.command import Parser, folder, require_folder, run
from harness.core.options import add_options, from_arguments


def main(argv: list[str] | None = None) -> int:
    """Parse, count, record, draw."""
    parser = Parser(prog="harness.plots", description=__doc__)
    parser.add_argument("--figure", nargs="+", choices=report.FIGURES, metavar="NAME",
                        help=f"of {', '.join(report.FIGURES)} (default: all that can be drawn)")  # fmt: skip
    parser.add_argument("--suite", choices=suites.SUITES, metavar="NAME", help="whose quality and samples: "
                        f"{', '.join(suites.SUITES)} (default: fashion)")  # fmt: skip
    parser.add_argument("--include", nargs="+", default=[], metavar="WHAT",
                        help="mark scores of yours, as in harness.tables, in "
                        f"{', '.join(report.WITH_OWN)}")  # fmt: skip
    add_options(parser, report.Recorded)
    parser.add_argument("--samples", type=Path, default=report.SAMPLES, metavar="DIR",
                        help="grids that Figure 3 shows (default: the project's)")  # fmt: skip
    parser.add_argument("--output", type=folder, default=paths.home() / "figures", metavar="DIR",
                        help="default: %(default)s")  # fmt: skip
    args = parser.parse_args(argv)
    return run(parser, lambda: _draw(args))


def _draw(args: argparse.Namespace) -> None:
    """Draw the figures that are named, or all for which there are records; of a suite that is named, its own."""
    names = args.figure or [name for name, spec in report.FIGURES.items() if spec.of_suite or not args.suite]
    if args.suite and not any(report.FIGURES[name].of_suite for name in names):
        raise ValueError(f"--suite is of figures of quality, and none is among {', '.join(names)}")
    if args.include and not set(report.WITH_OWN) & set(names):
        raise ValueError(f"--include is of {', '.join(report.WITH_OWN)}, and none is among {', '.join(names)}")
    require_folder(paths.measurements())
    require_folder(args.output)
    recorded = from_arguments(report.Recorded, args)
    records, own = recorded.load(), recorded.included(args.include)
    suite = suites.suite(args.suite or paper.SUITES[0], records)
    yours, left_out = report.own_rows(records, own, suite) if own else ([], [])
    counts = report.count_figures(names)
    store.append(paths.measurements() / "flops.jsonl", counts, repeat=False)
    draw = report.figure if args.figure else report.drawn
    for name in names:
        drawing = draw(name, [*records, *counts], suite, args.samples, yours)
        if isinstance(drawing, str):
            print(drawing)
        else:
            report.save(drawing, args.output / name)
            print(f"drawn: {name}")
    for line in left_out:
        print(line, file=sys.stderr)
    print(f"written to {args.output}")


if __name__ == "__main__":
    sys.exit(main())
