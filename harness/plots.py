"""`python -m harness.plots`: figures from the records, as SVG and PNG under results/figures/.

    python -m harness.plots                             # all that can be drawn
    python -m harness.plots --figure figure1 guidance --suite digits
    python -m harness.plots --figure cost               # counted anew, and recorded
    python -m harness.plots --figure memory latency     # from the records of harness.bench

A figure without records is not drawn: asked for by name, that is an error, which names the command that makes them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import report, suites
from harness.core import paths, store
from harness.core.command import Parser
from harness.core.records import LatencyRecord, Record, of_kind
from harness.core.workload import Workload
from harness.cost import CONVENTIONS
from models import spec
from models.spec import catalogue

OUTPUT = paths.home() / "figures"
MEASUREMENTS = paths.measurements()
RESOLUTIONS = (256, 384, 512, 768, 1024, 1536, 2048)


def main(argv: list[str] | None = None) -> None:
    """Parse, count what the figures need, record, draw."""
    parser = Parser(prog="harness.plots", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", nargs="+", choices=report.FIGURES, help="default: all that can be drawn")
    parser.add_argument("--suite", choices=suites.SUITES, default="digits", help="whose quality (default: digits)")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="DIR", help="default: results/figures")
    parser.add_argument("--measurements", type=Path, default=MEASUREMENTS, metavar="DIR", help="default: in results/")
    args = parser.parse_args(argv)
    try:
        args.measurements.mkdir(parents=True, exist_ok=True)
        records = _records(args)
        args.output.mkdir(parents=True, exist_ok=True)
        for name in args.figure or report.FIGURES:
            draw = report.figure if args.figure else report.drawn
            drawing = draw(name, records, suites.suite(args.suite))
            if isinstance(drawing, str):
                print(drawing)
            else:
                report.save(drawing, args.output / name, lambda path: print(f"written {path}"))
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"cannot write {error.filename}: {error.strerror}")


def _records(args: argparse.Namespace) -> list[Record]:
    """What is recorded, and the counts that figures need, made anew."""
    from harness.cost.records import crossovers, measure

    chosen = args.figure or list(report.FIGURES)
    specs = [spec(name) for name in report.COST_MODELS]
    if "cost" in chosen:
        workloads = [Workload(spec=s, resolution=r) for s in specs for r in RESOLUTIONS]
        counts = measure(workloads, [CONVENTIONS["exact"], CONVENTIONS["paper"]]) + crossovers(specs)
        store.append(args.measurements / "flops.jsonl", counts, repeat=False)
    records = store.load(args.measurements)
    timed = {record.get("model") for record in of_kind(records, LatencyRecord)}
    return [*records, *crossovers([spec(name) for name in catalogue() if name in timed])]


if __name__ == "__main__":
    main()
