"""What harness.flops prints besides a forward pass: multiples of it, utilisation, and a model of the user's own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from harness.core import formats, store
from harness.core.command import only_with
from harness.core.workload import Workload
from harness.cost import analytic, build, count, measure_module
from harness.cost.conventions import conventions_of_module, executing
from harness.cost.inputs import parse_shapes
from harness.cost.multiples import Multiple
from harness.cost.utilisation import MeasuredStep, mfu
from harness.report import cost_text
from harness.report.layout import Table, as_block

Fields = dict[str, Any]


OF_MFU = ("--step-seconds", "--peak-tflops", "--card", "--arithmetic", "--action")
OF_PER = ("--guidance", "--sampling-steps", "--training-steps", "--training-batch", "--recompute")
OF_PASSES = ("--convention", "--details", "--full", "--by-op", "--table", "--input", "--records")
"""What a table of forward passes is made by, and what multiples and utilisation do not read."""


def refuse_idle(given: Collection[str]) -> None:
    """Raise ValueError for a flag that changes nothing without another that is not given, or beside one that is."""
    given = set(given)
    for mode, flags in (("--mfu", OF_MFU), ("--per", OF_PER)):
        if mode not in given:
            only_with(mode, given & set(flags))
    if "--card" not in given:
        only_with("--card", given & {"--arithmetic"})
    if "--mfu" in given:
        only_with("--mfu", given & {"--model", "--per", *OF_PASSES}, not_with=True)
    if "--per" in given:
        only_with("--per", given & {"--batch", *OF_PASSES}, not_with=True)
    if "--published" in given:
        only_with("--published", given - {"--published", "--format", "--output", "--records"}, not_with=True)
    if "--table" in given:
        only_with("--table", given - {"--table", "--full", "--format", "--output", "--records"}, not_with=True)


def refuse_idle_for_catalogue(given: Collection[str]) -> None:
    """Raise ValueError for a flag that changes nothing where models are of the catalogue."""
    only_with("--model package.module:factory", set(given) & {"--input"})
    if "--by-op" in given:
        only_with("--by-op", set(given) & {"--convention", "--details", "--full"}, not_with=True)


def multiples(workloads: Sequence[Workload], multiple: Multiple, style: str) -> str:
    """The exact cost of one image or clip, and of all passes that `multiple` is."""
    named = multiple.per.replace("-", "_")
    rows: list[Fields] = []
    for w in workloads:
        macs = analytic(w.spec, w.resolution).macs
        row: Fields = {"model": w.spec.name, "px": w.resolution}
        row |= {"frames": w.spec.frames} if w.spec.frames else {}
        row |= {f"exact_gmacs_per_{w.unit}": macs / 1e9, f"passes_per_{named}": multiple.passes}
        rows.append(row | {f"pmacs_per_{named}": macs * multiple.passes / 1e15,
                           f"pflop_per_{named}": 2 * macs * multiple.passes / 1e15})  # fmt: skip
    return _rendered(rows, style, f"Exact cost per {multiple.per}", f"per {multiple.per}: {multiple}")


def utilisation(workloads: Sequence[Workload], step: MeasuredStep, style: str) -> str:
    """The MFU of one measured step. Raises ValueError for more than one workload, and as `mfu` does."""
    if len(workloads) != 1:
        raise ValueError("--mfu is of one measured step: give one model and one --res")
    found = mfu(workloads[0], step)
    w = found.workload
    row = {"model": w.spec.name, "px": w.resolution, "batch": w.batch, "action": w.action,
           "tflop_per_step": found.flops / 1e12, "step_seconds": step.step_seconds,
           "achieved_tflops": found.flops / found.step_seconds / 1e12, "peak_tflops": step.peak_tflops,
           "mfu": found.mfu}  # fmt: skip
    note = f"{NEEDED[w.action]}; elementwise work is not counted"
    return _rendered([row], style, "Model FLOPs utilisation", note)


NEEDED = {
    "train": "a training step: three forward passes (the backward pass costs two), recomputation is not needed work",
    "sample": "a denoising step: two forward passes, for guidance",
    "forward": "a forward pass",
}


def _rendered(rows: Sequence[Fields], style: str, title: str, note: str) -> str:
    """Rows under a note in a terminal and in LaTeX, alone for another program."""
    if style == "latex":
        import pandas as pd

        return Table("costs", title, pd.DataFrame(), [as_block(rows)], [note]).latex().rstrip("\n")
    grid = formats.render(rows, style)
    return f"{grid}\n\n{note}" if style == "table" else grid


def own_model(
    names: Sequence[str], shapes: Sequence[str] | None, conventions: Sequence[str] | None, by_op: bool, records: Path,
    style: str,
) -> str:  # fmt: skip
    """The cost of a model of the user's own. What is wrong with the flags is found before torch is imported.

    Raises ValueError for more than one model, and as `build`, `count` and `measure_module` do.
    """
    if len(names) > 1 or not shapes:
        raise ValueError("a model of your own is counted alone: --model package.module:factory --input SHAPE[:DTYPE]")
    name, chosen, parsed = names[0], conventions_of_module(conventions), parse_shapes(shapes)
    model, inputs = build(name, meta=not executing(chosen)), [shape.tensor() for shape in parsed]
    if by_op:
        return cost_text.operations({name: count(model, *inputs)}, style)
    found = measure_module(name, model, inputs, chosen)
    store.append(records, found, repeat=False)
    return cost_text.module(found, style)
