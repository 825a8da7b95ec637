"""`python -m harness.flops --res 256 512 1024 2048`: what DiT and DiM cost, exactly, and what other tools say of them.

    python -m harness.flops                                                # who is cheaper, where, by how much
    python -m harness.flops --details                                      # and what thop, fvcore, torch count
    python -m harness.flops --model DiM-B/4 DiT-B/4 --res 256 --by-op      # every operation, by module
    python -m harness.flops --model torchvision.models:resnet18 --input 1x3x224x224       # a network of yours

Prints the exact multiply-adds of a forward pass and the resolution from which a model is cheaper than its counterpart.
Needs no GPU: nothing is computed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from harness.core import paths, store
from harness.core.command import Parser, add_model_flags, require_folder, run, sweep, writable
from harness.core.options import add_options, from_arguments
from harness.core.paper import COST_TABLES
from harness.cost import analytic, closed_form, crossovers, measure, workloads_of_tables
from harness.cost.conventions import NAMES, conventions_of
from harness.cost.multiples import Multiple
from harness.cost.utilisation import MeasuredStep
from harness.report import cost_text, counting, observatory

MODELS = ["DiT-XL/2", "DiM-XL/2", "DiM-XL/2-matched"]
RESOLUTIONS = [256, 512, 1024, 2048]


def main(argv: list[str] | None = None) -> int:
    """Parse, count, record, print."""
    parser = Parser(prog="harness.flops", description=__doc__)
    add_model_flags(parser, MODELS, RESOLUTIONS)
    parser.add_argument("--input", nargs="+", metavar="SHAPE[:DTYPE]", help="inputs of package.module:factory")
    parser.add_argument("--convention", nargs="+", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--published", nargs="*", metavar="NAME", help="printed costs of these papers or models")
    parser.add_argument("--mfu", metavar="MODEL", help="print the FLOPs utilisation of a measured step of this model")
    add_options(parser, MeasuredStep)
    add_options(parser, Multiple)
    parser.add_argument("--full", action="store_true", help="trace whole models, not small ones that are extended")
    parser.add_argument("--details", action="store_true", help="by kind of operation, and as other tools count")
    parser.add_argument("--by-op", action="store_true", help="one row an operation")
    parser.add_argument("--table", type=int, choices=COST_TABLES, help="the cells of that table")
    parser.add_argument("--format", choices=cost_text.FORMATS, default="table")
    parser.add_argument("--output", type=writable, metavar="FILE", help="write there instead of to the terminal")
    parser.add_argument("--records", type=writable, default=paths.measurements() / "flops.jsonl", metavar="FILE")
    args = parser.parse_args(argv)
    return run(parser, lambda: cost_text.write(_sections(args, parser.given(argv)), args.output))


def _sections(args: argparse.Namespace, given: set[str]) -> Iterator[str]:
    """The text, each part as soon as it is known: that of the closed form before torch is imported."""
    counting.refuse_idle(given)
    args.model = [args.mfu] if args.mfu else args.model
    if args.published is not None:
        yield from observatory.sections(args.published, args.format)
        return
    if any(":" in name for name in args.model):
        require_folder(args.records.parent)
        yield counting.own_model(args.model, args.input, args.convention, args.by_op, args.records, args.format)
        return
    counting.refuse_idle_for_catalogue(given)
    conventions, workloads = conventions_of(args.convention), sweep(args)
    if args.mfu:
        yield counting.utilisation(workloads, from_arguments(MeasuredStep, args), args.format)
    elif "--per" in given:
        yield counting.multiples(workloads, from_arguments(Multiple, args), args.format)
    elif args.table:
        require_folder(args.records.parent)
        records = measure(workloads_of_tables([args.table]), conventions_of(), full=args.full)
        store.append(args.records, records, repeat=False)
        yield cost_text.cells(args.table, records, args.format)
    elif args.by_op:
        named = {f"{w.spec.name} at {w.resolution} px": analytic(w.spec, w.resolution, w.batch) for w in workloads}
        yield cost_text.operations(named, args.format)
    else:
        require_folder(args.records.parent)
        crossed, details = crossovers(w.spec for w in workloads), args.details or bool(args.convention)
        if args.format == "table":
            known = [record for w in workloads for record in closed_form(w, conventions)]
            yield cost_text.closed_form([*known, *crossed], workloads, details)
        records = [*measure(workloads, conventions, full=args.full), *crossed]
        store.append(args.records, records, repeat=False)
        yield cost_text.checked(records, args.convention or NAMES, workloads, args.format, details)


if __name__ == "__main__":
    sys.exit(main())
