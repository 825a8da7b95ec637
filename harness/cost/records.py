"""From workloads to records: the exact cost, counted twice, and each convention's figure, by its own tool."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from harness.core.provenance import Provenance
from harness.core.records import CostRecord
from harness.core.workload import Workload
from harness.cost.analytic import analytic, crossover, rivals
from harness.cost.conventions import CONVENTIONS, Convention, thop_params
from harness.cost.operations import Cost
from harness.cost.published import published_costs
from models import ModelSpec, spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.cost.extension import Counts

CLOSED_FORM = "analytic"
CHECKED = f"{CLOSED_FORM} = traced"
"""Methods of exact figures; behind the second stands what was traced, where that was not the whole model."""


def exact(workload: Workload, method: str = CLOSED_FORM, frozen: int | None = None) -> list[CostRecord]:
    """Parameters, elementwise results and multiply-adds by the closed form; imports no torch.

    `frozen` is the number of values in buffers, which the closed form does not know.
    """
    cost, here = analytic(workload.spec, workload.resolution, workload.batch), Provenance.here("meta")
    key = {**workload.key(), "convention": "exact"}
    parts: dict[str, float] = {} if frozen is None else {"trainable": cost.params, "frozen": frozen}
    return [
        _params(cost.params, method, key, here, parts),
        _elementwise(cost, method, key, here),
        _cost(cost, CONVENTIONS["exact"], method, key, here),
    ]


def measure(
    workloads: Iterable[Workload], conventions: Sequence[Convention], *, full: bool = False
) -> list[CostRecord]:
    """Records of each workload: its parameters and elementwise results, then its cost under each convention.

    The closed form is compared with the traced count, and a tool's figure with its rule for the same operations, both
    to the last unit; a difference is an AssertionError. Traces and tools see models of few blocks, and their totals
    are extended exactly (harness.cost.extension); with `full` they see the whole model.
    Shows a progress bar on a terminal.
    """
    from tqdm import tqdm

    from harness.cost.extension import Counts

    counts = Counts(full)
    records: list[CostRecord] = []
    collecting = gc.isenabled()
    gc.disable()  # building modules would set the collector walking all that torch has imported
    try:
        for workload in tqdm(list(workloads), desc="counting", unit="model", disable=None, leave=False):
            records += _measured(workload, conventions, counts)
    finally:
        if collecting:
            gc.enable()
    return records


def _measured(workload: Workload, conventions: Sequence[Convention], counts: Counts) -> Iterator[CostRecord]:
    cost = analytic(workload.spec, workload.resolution, workload.batch)
    traced = counts.trace(workload.spec, workload.resolution, workload.batch)
    seen = traced.cost
    same = (cost.by_module(), cost.elementwise_by_kind(), cost.params) == (
        seen.by_module(), seen.elementwise_by_kind(), seen.params
    )  # fmt: skip
    assert same, f"the closed form of {workload.spec.name} differs from its traced count"
    assert not seen.uncounted, f"{workload.spec.name} has operators without a rule: {', '.join(seen.uncounted)}"
    method = f"{CHECKED}{traced.extension}"
    yield from exact(workload, method, traced.buffers)[:2]
    for convention in conventions:
        yield from _under(convention, workload, method, counts)


def _under(convention: Convention, workload: Workload, method: str, counts: Counts) -> Iterator[CostRecord]:
    from harness.cost import tools

    here = Provenance.here("meta")
    batch = convention.batch or workload.batch
    cost = analytic(workload.spec, workload.resolution, batch)
    key = {**workload.key(), "batch": batch, "convention": convention.name}
    verdict, reading = "ok", None
    if convention.tool in tools.EXECUTING and cost.macs > tools.EXECUTION_LIMIT_MACS:
        method, verdict = f"{convention.tool}'s rule, predicted (it would have to run the model)", "estimated"
    elif convention.tool:
        reading = counts.read(convention.tool, workload.spec, workload.resolution, batch)
        method, predicted = reading.tool, convention.total(cost)
        assert reading.count == predicted, f"{method}: {reading.count} of {workload.spec.name}, not {predicted}"
    yield _cost(cost, convention, method, key, here, verdict=verdict)
    if reading and reading.params is not None:
        assert reading.params == thop_params(cost), f"{method}: {reading.params} parameters of {workload.spec.name}"
        yield _params(reading.params, method, key, here)


def measure_module(
    name: str, model: nn.Module, inputs: Sequence[Tensor], conventions: Sequence[Convention]
) -> list[CostRecord]:
    """Records of any module on given inputs: traced, and by each tool; what has no rule is named in a note.

    Raises ValueError as `count` does, and for a tool that cannot count the module.
    """
    from harness.cost import tools
    from harness.cost.trace import count

    require_own_batch(conventions)
    here, cost = Provenance.here("meta"), count(model, *inputs)
    shapes = " ".join("x".join(map(str, x.shape)) for x in inputs)
    question: dict[str, object] = {"model": name, "input": shapes, "action": "forward"}
    key = {**question, "convention": "exact"}
    records = [_params(cost.params, "traced", key, here), _elementwise(cost, "traced", key, here)]
    for convention in conventions:
        key = {**question, "convention": convention.name}
        if convention.tool:
            reading = tools.run(convention.tool, model, *inputs)
            records.append(_cost(cost, convention, reading.tool, key, here, value=reading.count))
        else:
            records.append(_cost(cost, convention, "traced", key, here))
    return records


def require_own_batch(conventions: Sequence[Convention]) -> None:
    """Raise ValueError for a convention that fixes a batch, where given inputs have theirs."""
    for convention in conventions:
        if convention.batch:
            raise ValueError(
                f"the {convention.name} convention fixes a batch, which your inputs already have: ask for thop"
            )


def _params(
    value: int, method: str, key: dict[str, object], here: Provenance, parts: dict[str, float] | None = None
) -> CostRecord:
    return CostRecord(
        quantity="params", value=value, unit="parameter", method=method, workload=key, parts=parts or {},
        provenance=here,
    )  # fmt: skip


def _elementwise(cost: Cost, method: str, key: dict[str, object], here: Provenance) -> CostRecord:
    return CostRecord(
        quantity="elementwise", value=cost.elementwise, unit="result", method=method, workload=key,
        parts={kind: float(n) for kind, n in cost.elementwise_by_kind().items()}, provenance=here,
    )  # fmt: skip


def _cost(
    cost: Cost,
    convention: Convention,
    method: str,
    key: dict[str, object],
    here: Provenance,
    *,
    value: int | None = None,
    verdict: str = "ok",
) -> CostRecord:
    """The cost under a convention; `value` where a tool of its own says another than its rule makes of the cost."""
    is_exact = convention.name == "exact"
    uncounted = ", ".join(f"{name} ({calls} calls)" for name, calls in cost.uncounted.items())
    return CostRecord(
        quantity="cost", value=convention.total(cost) if value is None else value, unit=convention.unit,
        method=method, verdict=verdict, workload=key,
        parts={kind: float(n) for kind, n in cost.by_kind().items()} if is_exact else {},
        omitted=convention.omitted(cost) if cost.method != "traced" else {},
        note=f"NOT counted, no rule: {uncounted}" if is_exact and uncounted else "", provenance=here,
    )  # fmt: skip


def crossovers(specs: Iterable[ModelSpec]) -> list[CostRecord]:
    """For each DiM beside its rival: the resolution above which it costs less (None: nowhere)."""
    chosen = list(dict.fromkeys(specs))
    return [
        CostRecord(
            quantity="crossover",
            value=crossover(dim, dit),
            unit="px",
            method="analytic",
            workload={"model": dim.name, "against": dit.name},
            provenance=Provenance.here("none"),
        )
        for dim, dit in itertools.product(chosen, chosen)
        if rivals(dim, dit)
    ]


def workloads_of_tables(tables: Iterable[int]) -> list[Workload]:
    """The cells of the paper's efficiency tables, and of the DiT of the same size and patch beside each DiM."""
    cells = published_costs(*tables)
    names = [(name, resolution) for model, resolution in cells for name in (model.replace("DiM", "DiT"), model)]
    return [Workload(spec=spec(name), resolution=resolution) for name, resolution in dict.fromkeys(names)]
