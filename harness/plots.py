"""`python -m harness.plots --figure cost`: figures from the records, as SVG and PNG under results/figures/."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import report, store
from harness.cost import CONVENTIONS
from harness.workload import Parser, Workload
from models import spec

OUTPUT = store.RESULTS / "figures"
RECORDS = store.RESULTS / "measurements" / "flops.jsonl"
RESOLUTIONS = (256, 384, 512, 768, 1024, 1536, 2048)


def main(argv: list[str] | None = None) -> None:
    """Parse, count what the figure needs, record, draw."""
    parser = Parser(prog="harness.plots", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", nargs="+", choices=list(report.FIGURES), default=list(report.FIGURES))
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="DIR", help="default: results/figures")
    parser.add_argument("--records", type=Path, default=RECORDS, metavar="FILE", help="default: in results/")
    args = parser.parse_args(argv)

    from harness.cost.measure import crossovers, measure_all

    specs = [spec(name) for name in report.COST_COLOURS]
    workloads = [Workload(spec=s, resolution=r) for s in specs for r in RESOLUTIONS]
    records = measure_all(workloads, [CONVENTIONS["exact"], CONVENTIONS["paper"]]) + crossovers(specs)
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        for name in args.figure:
            drawing = report.figure(name, store.frame(records))
            for suffix, metadata in ((".svg", {"Date": None}), (".png", {})):
                path = args.output / (name + suffix)
                drawing.savefig(path, dpi=200, metadata=metadata)
                print(f"written {path}")
        store.append(args.records, records, repeat=False)
    except OSError as error:
        parser.error(f"cannot write {error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
