"""`python -m harness.tables --table 4 5 6`: the paper's efficiency columns, rebuilt beside the printed ones.

Counts every cell anew, records it, and writes CSV (every digit) and Markdown (rounded) under results/tables/.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import report, store
from harness.cost import CONVENTIONS
from harness.workload import Parser

OUTPUT = store.RESULTS / "tables"
RECORDS = store.RESULTS / "measurements" / "flops.jsonl"


def main(argv: list[str] | None = None) -> None:
    """Parse, count, record, write."""
    parser = Parser(prog="harness.tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choices = list(report.COST_TABLES)
    parser.add_argument("--table", type=int, nargs="+", choices=choices, default=choices, help="default: all")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="DIR", help="default: results/tables")
    parser.add_argument("--records", type=Path, default=RECORDS, metavar="FILE", help="default: in results/")
    args = parser.parse_args(argv)

    from harness.cost.measure import measure_all, workloads_of_tables

    records = measure_all(workloads_of_tables(args.table), list(CONVENTIONS.values()))
    frame = store.frame(records)
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        for number in args.table:
            table = report.table(number, frame)
            name = args.output / f"table{number}_cost"
            notes = "\n".join(f"- {note}" for note in report.table_notes(number))
            text = f"# {report.COST_TABLES[number]}\n\n{report.render(table, 'markdown')}\n\n{notes}\n"
            name.with_suffix(".csv").write_text(report.render(table, "csv") + "\n", encoding="utf-8")
            name.with_suffix(".md").write_text(text, encoding="utf-8")
            print(f"{text}\nwritten to {name}.csv and .md\n")
        store.append(args.records, records, repeat=False)
    except OSError as error:
        parser.error(f"cannot write {error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
