"""`python -m harness.flops --res 256 512 1024 2048`: what DiT and DiM cost, exactly, and what other tools say of them.

Prints the exact multiply-adds of a forward pass beside the figures of thop, fvcore, torch and the paper, names what
each leaves out, and gives the resolution from which DiM is cheaper. Needs no GPU: nothing is computed.
Any other model: `--model package.module:factory --input 1x3x224x224`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from harness.core import paths, store
from harness.core.command import Parser, add_model_flags, run, sweep, writable
from harness.core.paper import COST_TABLES
from harness.cost import analytic, build, closed_form, count, crossovers, measure, measure_module, workloads_of_tables
from harness.cost.conventions import NAMES, conventions_of, conventions_of_module, executing
from harness.cost.inputs import parse_shapes
from harness.report import cost_text

MODELS = ["DiT-XL/2", "DiM-XL/2", "DiM-XL/2-matched"]
RESOLUTIONS = [256, 512, 1024, 2048]


def main(argv: list[str] | None = None) -> int:
    """Parse, count, record, print."""
    parser = Parser(prog="harness.flops", description=__doc__)
    add_model_flags(parser, MODELS, RESOLUTIONS)
    parser.add_argument("--input", nargs="+", metavar="SHAPE[:DTYPE]", help="inputs of package.module:factory")
    parser.add_argument("--convention", nargs="+", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--full", action="store_true", help="trace whole models, not small ones that are extended")
    parser.add_argument("--by-op", action="store_true", help="one row an operation")
    parser.add_argument("--table", type=int, choices=COST_TABLES, help="the cells of that table")
    parser.add_argument("--format", choices=cost_text.FORMATS, default="table")
    parser.add_argument("--output", type=writable, metavar="FILE", help="write there instead of to the terminal")
    parser.add_argument("--records", type=writable, default=paths.measurements() / "flops.jsonl", metavar="FILE")
    args = parser.parse_args(argv)
    return run(parser, lambda: cost_text.write(_sections(args), args.output))


def _sections(args: argparse.Namespace) -> Iterator[str]:
    """The text, each part as soon as it is known: that of the closed form before torch is imported."""
    if any(":" in name for name in args.model):
        yield _own_model(args)
        return
    conventions, workloads = conventions_of(args.convention), sweep(args)
    if args.table:
        records = measure(workloads_of_tables([args.table]), conventions_of(), full=args.full)
        store.append(args.records, records, repeat=False)
        yield cost_text.cells(args.table, records, args.format)
    elif args.by_op:
        named = {f"{w.spec.name} at {w.resolution} px": analytic(w.spec, w.resolution, w.batch) for w in workloads}
        yield cost_text.operations(named, args.format)
    else:
        crossed = crossovers(w.spec for w in workloads)
        if args.format == "table":
            known = [record for w in workloads for record in closed_form(w, conventions)]
            yield cost_text.closed_form([*known, *crossed], workloads)
        records = [*measure(workloads, conventions, full=args.full), *crossed]
        store.append(args.records, records, repeat=False)
        yield cost_text.checked(records, args.convention or NAMES, workloads, args.format)


def _own_model(args: argparse.Namespace) -> str:
    """A model of the user's own. What is wrong with the flags is found before torch is imported."""
    if len(args.model) > 1 or not args.input:
        raise ValueError("a model of your own is counted alone: --model package.module:factory --input SHAPE[:DTYPE]")
    name, conventions, shapes = args.model[0], conventions_of_module(args.convention), parse_shapes(args.input)
    model, inputs = build(name, meta=not executing(conventions)), [shape.tensor() for shape in shapes]
    if args.by_op:
        return cost_text.operations({name: count(model, *inputs)}, args.format)
    records = measure_module(name, model, inputs, conventions)
    store.append(args.records, records, repeat=False)
    return cost_text.module(records, args.format)


if __name__ == "__main__":
    sys.exit(main())
