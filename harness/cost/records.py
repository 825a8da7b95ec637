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
from harness.cost.conventions import EXECUTING, Convention, thop_params
from harness.cost.operations import Cost, differences
from harness.cost.published import published_costs
from models import ModelSpec, counterpart, spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.cost.extension import Counts

CLOSED_FORM = "analytic"
CHECKED = f"{CLOSED_FORM} = traced"
"""Methods of exact figures; behind the second stands what was traced, where that was not the whole model."""


def closed_form(
    workload: Workload, conventions: Sequence[Convention], method: str = CLOSED_FORM, buffers: int | None = None
) -> list[CostRecord]:
    """Parameters, elementwise results, and the cost under those conventions that are no tool's; needs no torch.

    `buffers`, the number of values that are not trained, is known of a model that has been built.
    """
    cost, here = analytic(workload.spec, workload.resolution, workload.batch), Provenance.here("meta")
    key = workload.key()
    parts: dict[str, float] = {} if buffers is None else {"trainable": cost.params, "frozen": buffers}
    return [
        *_sizes(cost, method, {**key, "convention": "exact"}, here, parts),
        *(_cost(cost, convention, method, key, here) for convention in conventions if not convention.tool),
    ]


def measure(
    workloads: Iterable[Workload], conventions: Sequence[Convention], *, full: bool = False
) -> list[CostRecord]:
    """Records of each workload: its parameters and elementwise results, then its cost under each convention.

    The closed form must equal the traced count, and a tool's figure its rule for the same operations, both to the last
    unit. Traces and tools see models of few blocks, and their totals are extended exactly (harness.cost.extension);
    with `full` they see the whole model. Shows a progress bar on a terminal.
    Raises ValueError that names the operations in which the two counts differ, and for a workload that is more than a
    forward pass.
    """
    from tqdm import tqdm

    from harness.cost.extension import Counts

    workloads, counts = list(workloads), Counts(full)
    for workload in workloads:
        if workload.action != "forward":
            raise ValueError(f"a forward pass is counted, not the action {workload.action!r}")
    records: list[CostRecord] = []
    collecting = gc.isenabled()
    gc.disable()  # building modules would set the collector walking all that torch has imported
    try:
        for workload in tqdm(workloads, desc="counting", unit="model", disable=None, leave=False):
            records += _measured(workload, conventions, counts)
    finally:
        if collecting:
            gc.enable()
    return records


def _measured(workload: Workload, conventions: Sequence[Convention], counts: Counts) -> Iterator[CostRecord]:
    cost = analytic(workload.spec, workload.resolution, workload.batch)
    traced = counts.trace(workload.spec, workload.resolution, workload.batch)
    if found := differences(cost, traced.cost):
        raise ValueError(f"the two counts of {workload.spec.name} differ: {'; '.join(found)}")
    yield from closed_form(workload, conventions, f"{CHECKED}{traced.extension}", traced.buffers)
    for convention in conventions:
        if convention.tool:
            yield from _by_tool(convention, convention.tool, workload, counts)


def _by_tool(convention: Convention, tool: str, workload: Workload, counts: Counts) -> Iterator[CostRecord]:
    from harness.cost import tools

    here = Provenance.here("meta")
    batch = convention.batch or workload.batch
    cost = analytic(workload.spec, workload.resolution, batch)
    key = {**workload.key(), "batch": batch}
    if tool in EXECUTING and cost.macs > tools.EXECUTION_LIMIT_MACS:
        method = f"{tool}'s rule, predicted (it would have to run the model)"
        yield _cost(cost, convention, method, key, here, verdict="estimated")
        return
    reading = counts.read(tool, workload.spec, workload.resolution, batch)
    of_rule = (convention.total(cost), reading.params and thop_params(cost))
    assert (reading.count, reading.params) == of_rule, f"{reading} of {workload.spec.name}: its rule gives {of_rule}"
    yield _cost(cost, convention, reading.tool, key, here)
    if reading.params is not None:
        yield _params(reading.params, reading.tool, {**key, "convention": convention.name}, here)


def measure_module(
    name: str, model: nn.Module, inputs: Sequence[Tensor], conventions: Sequence[Convention]
) -> list[CostRecord]:
    """Records of any module on given inputs: traced, and by each tool; what has no rule is named in a note.

    A tool that computes the module takes zeros for inputs on the meta device. `conventions` are those of
    `conventions_of_module`. Raises ValueError as `count` does, and for a tool that fails.
    """
    from harness.cost import tools
    from harness.cost.trace import count

    here, cost = Provenance.here("meta"), count(model, *inputs)
    shapes = " ".join("x".join(map(str, x.shape)) for x in inputs)
    key: dict[str, object] = {"model": name, "input": shapes, "action": "forward"}
    records = _sizes(cost, "traced", {**key, "convention": "exact"}, here)
    for convention in conventions:
        value, method = convention.total(cost), "traced"
        if convention.tool:
            given = _with_values(inputs) if convention.tool in EXECUTING else inputs
            try:
                reading = tools.run(convention.tool, model, *given)
            except Exception as error:  # whatever the tool, or the module under it, raises
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise ValueError(f"{convention.tool} cannot count {name}: {reason}") from error
            value, method = reading.count, reading.tool
        records.append(_cost(cost, convention, method, key, here, value=value))
    return records


def _with_values(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [x.new_zeros(x.shape, device="cpu") if x.is_meta else x for x in inputs]


def _sizes(
    cost: Cost, method: str, key: dict[str, object], here: Provenance, parts: dict[str, float] | None = None
) -> list[CostRecord]:
    """Parameters and elementwise results."""
    elementwise = CostRecord(
        quantity="elementwise", value=cost.elementwise, unit="result", method=method, workload=key,
        parts={kind: float(n) for kind, n in cost.elementwise_by_kind().items()}, provenance=here,
    )  # fmt: skip
    return [_params(cost.params, method, key, here, parts), elementwise]


def _params(
    value: int, method: str, key: dict[str, object], here: Provenance, parts: dict[str, float] | None = None
) -> CostRecord:
    return CostRecord(
        quantity="params", value=value, unit="parameter", method=method, workload=key, parts=parts or {},
        provenance=here,
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
    """A cost under a convention. `value` is given for a module of which nothing but its operators is known."""
    exact = convention.name == "exact"
    uncounted = ", ".join(f"{name} ({calls} calls)" for name, calls in cost.uncounted.items())
    return CostRecord(
        quantity="cost", value=convention.total(cost) if value is None else value, unit=convention.unit,
        method=method, verdict=verdict, workload={**key, "convention": convention.name},
        parts={kind: float(n) for kind, n in cost.by_kind().items()} if exact else {},
        omitted=convention.omitted(cost) if value is None else {},
        note=f"NOT counted, no rule: {uncounted}" if exact and uncounted else "", provenance=here,
    )  # fmt: skip


def crossovers(specs: Iterable[ModelSpec]) -> list[CostRecord]:
    """For each model beside one of its counterpart's: the resolution above which it costs less (None: nowhere)."""
    chosen = list(dict.fromkeys(specs))
    return [
        CostRecord(
            quantity="crossover",
            value=crossover(one, other),
            unit="px",
            method=CLOSED_FORM,
            workload={"model": one.name, "against": other.name},
            provenance=Provenance.here("none"),
        )
        for one, other in itertools.product(chosen, chosen)
        if rivals(one, other)
    ]


def workloads_of_tables(tables: Iterable[int]) -> list[Workload]:
    """The cells of the paper's efficiency tables, and of its counterpart beside each DiM."""
    cells = [(spec(name), resolution) for name, resolution in published_costs(*tables)]
    beside = [(s, resolution) for one, resolution in cells for s in (counterpart(one) or one, one)]
    return [Workload(spec=s, resolution=resolution) for s, resolution in dict.fromkeys(beside)]
