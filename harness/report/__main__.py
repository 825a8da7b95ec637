"""`python -m harness.report --html report.html`: everything that the records say, as one page that needs no network.

    python -m harness.report                                     # output/report.html, of the project's records
    python -m harness.report --html mine.html --own              # with your own records
    python -m harness.report --include runs/mine                 # with your scores as rows of the tables
    python -m harness.report --documents                         # rebuild the tables inside README.md and docs/

Nothing is counted, trained or timed: the page shows what is recorded, and names the command of what is not. It needs
`pip install "dim-vs-dit[report]"`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness import report
from harness.core import paths
from harness.core.command import Parser, only_with, require_folder, run, writable
from harness.core.files import write_text
from harness.core.options import add_options, from_arguments


def main(argv: list[str] | None = None) -> int:
    """Parse, draw, write."""
    parser = Parser(prog="harness.report", description=__doc__)
    parser.add_argument("--html", type=writable, default=paths.home() / "report.html", metavar="FILE",
                        help="the page (default: %(default)s)")  # fmt: skip
    parser.add_argument("--include", nargs="+", default=[], metavar="WHAT",
                        help="scores of yours as rows of tables, as in harness.tables")  # fmt: skip
    parser.add_argument("--documents", action="store_true", help="make the tables inside README.md and docs/ instead")
    add_options(parser, report.Recorded)
    parser.add_argument("--samples", type=Path, default=report.SAMPLES, metavar="DIR",
                        help="samples that the page shows (default: the project's)")  # fmt: skip
    args, given = parser.parse_args(argv), parser.given(argv)
    return run(parser, lambda: _fill(args, given) if args.documents else _write(args))


def _write(args: argparse.Namespace) -> None:
    """Make the page before anything is written."""
    if not args.samples.is_dir():
        raise ValueError(f"no folder of samples at {args.samples}")
    from harness.report.page import page

    require_folder(args.html.parent)
    recorded = from_arguments(report.Recorded, args)
    text = page(recorded.files(), args.samples, recorded.included(args.include))
    args.html.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.html, text)
    print(f"{args.html}: {len(text.encode()) / 1e6:.1f} MB, open it in any browser")


def _fill(args: argparse.Namespace, given: set[str]) -> None:
    """Write those documents of the checkout whose tables have changed."""
    only_with("--documents", given & {"--html", "--include", "--samples"}, not_with=True)
    from harness.report.documents import documents, filled

    records = from_arguments(report.Recorded, args).load()
    for page in documents(paths.CHECKOUT):
        before = page.read_text(encoding="utf-8")
        after = filled(before, records)
        if after != before:
            write_text(page, after)
        print(f"{page.relative_to(paths.CHECKOUT)}: {'regenerated' if after != before else 'unchanged'}")


if __name__ == "__main__":
    sys.exit(main())
