"""`python -m harness.tables`: the paper's tables, printed and measured, and tables of memory and latency.

    python -m harness.tables                                     # all, of the suites `fashion` and `clips`
    python -m harness.tables --table 4 5 6                       # the efficiency columns, counted again
    python -m harness.tables --table 2 7 --include mine.jsonl    # your scores as rows, where they follow the protocol
    python -m harness.tables --table memory latency --own        # with your own records of harness.bench
    python -m harness.tables --table families                    # DiG, DiS and DiffuSSM beside DiT and DiM

Prints them, and writes CSV (every digit), Markdown (with notes and protocol) and LaTeX. What has no record is
`missing`; what is counted is recorded in output/measurements.
"""

from __future__ import annotations

import argparse
import sys

from harness import report, suites
from harness.core import paths, store
from harness.core.command import Parser, folder, require_folder, run
from harness.core.options import add_options, from_arguments
from harness.report.contents import cost_numbers, quality_tables, tables_of


def main(argv: list[str] | None = None) -> int:
    """Parse, count, record, write."""
    parser = Parser(prog="harness.tables", description=__doc__)
    parser.add_argument("--table", nargs="+", choices=report.TABLES, metavar="NAME",
                        help=f"of {', '.join(report.TABLES)} (default: all)")  # fmt: skip
    parser.add_argument("--suite", choices=suites.SUITES, metavar="NAME", help="whose rows stand in tables of quality: "
                        f"{', '.join(suites.SUITES)} (default: fashion; Table 3: clips)")  # fmt: skip
    parser.add_argument("--include", nargs="+", default=[], metavar="WHAT",
                        help="add scores of yours as rows: a .jsonl of harness.eval, or a model or source that it has "
                        "scored")  # fmt: skip
    add_options(parser, report.Recorded)
    parser.add_argument("--output", type=folder, default=paths.home() / "tables", metavar="DIR",
                        help="default: %(default)s")  # fmt: skip
    args = parser.parse_args(argv)
    return run(parser, lambda: _write(args))


def _write(args: argparse.Namespace) -> None:
    """Make all tables before the first is written."""
    recorded = from_arguments(report.Recorded, args)
    records = recorded.load()
    suite = suites.suite(args.suite, records) if args.suite else None
    names = args.table or tables_of(suite)
    for flag, given in (("--suite", args.suite), ("--include", args.include)):
        if given and not (quality_tables(names, suite) or report.TUNING in names):
            raise ValueError(f"{flag} is of tables of quality, and none is among {', '.join(names)}")
    numbers = cost_numbers(names)
    if numbers:
        require_folder(paths.measurements())
    require_folder(args.output)
    own = recorded.included(args.include)
    counts = report.count_tables(numbers)
    store.append(paths.measurements() / "flops.jsonl", counts, repeat=False)
    for table in report.tables(names, [*records, *counts], suite, own):
        table.write(args.output)
        print(f"{table.terminal()}\n")
        for line in table.left_out:
            print(f"{table.name}: {line}", file=sys.stderr)
    print("every digit is in the .csv files, notes and protocols are in the .md files")
    print(f"written to {args.output}")


if __name__ == "__main__":
    sys.exit(main())
