"""`python -m harness.tables`: the paper's tables rebuilt beside the printed ones, and those of memory and latency.

    python -m harness.tables                                     # all, of the suite `digits` and `moving-digits`
    python -m harness.tables --table 4 5 6                       # the efficiency columns are counted anew, and recorded
    python -m harness.tables --table 2 7 --suite paper --include mine.jsonl        # your checkpoint's scores as rows
    python -m harness.tables --table memory latency              # from the records of harness.bench

Writes CSV (every digit), Markdown and LaTeX (rounded) under results/tables/. What has no record is `missing`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from harness import report, suites
from harness.core import paths, store
from harness.core.command import Parser
from harness.cost import CONVENTIONS

OUTPUT = paths.home() / "tables"
MEASUREMENTS = paths.measurements()
SUITES = {3: "moving-digits"}  # of the tables that are not of `digits`
HARDWARE = {"memory": report.memory_table, "latency": report.latency_table}
TABLES = (*map(str, sorted({*report.QUALITY_TABLES, *report.COST_TABLES})), *HARDWARE)


def main(argv: list[str] | None = None) -> None:
    """Parse, count, record, write."""
    parser = Parser(prog="harness.tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", nargs="+", choices=TABLES, default=TABLES, metavar="NAME",
                        help=f"of {', '.join(TABLES)}; default: all")  # fmt: skip
    parser.add_argument("--suite", choices=suites.SUITES, help="whose rows are measured (default: digits; "
                        "Table 3: moving-digits)")  # fmt: skip
    parser.add_argument("--include", nargs="+", default=[], metavar="WHAT",
                        help="records of harness.eval (a .jsonl), or a model or source among the records")  # fmt: skip
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="DIR", help="default: results/tables")
    parser.add_argument("--measurements", type=Path, default=MEASUREMENTS, metavar="DIR", help="default: in results/")
    args = parser.parse_args(argv)
    try:
        args.measurements.mkdir(parents=True, exist_ok=True)
        for table in _tables(args):
            print(f"{table.markdown()}\nwritten to {', '.join(map(str, table.write(args.output)))}\n")
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"cannot write {error.filename}: {error.strerror}")


def _tables(args: argparse.Namespace) -> Iterator[report.Table]:
    """The tables asked for. Whatever is refused is refused before the first."""
    chosen = {number: suites.suite(args.suite or SUITES.get(number, "digits")) for number in report.QUALITY_TABLES}
    chosen = {number: suite for number, suite in chosen.items() if str(number) in args.table}
    records = store.load(args.measurements)
    own = report.included(args.include, records)
    made = [report.quality_table(number, suite, records, own) for number, suite in chosen.items()]
    made += [make(records) for name, make in HARDWARE.items() if name in args.table]
    yield from made
    numbers = [number for number in report.COST_TABLES if str(number) in args.table]
    if numbers:
        from harness.cost.records import measure, workloads_of_tables

        counts = measure(workloads_of_tables(numbers), list(CONVENTIONS.values()))
        store.append(args.measurements / "flops.jsonl", counts, repeat=False)
        yield from (report.cost_table(number, counts) for number in numbers)


if __name__ == "__main__":
    main()
