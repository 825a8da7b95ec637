"""From a workload to records: the exact cost, counted twice, and each convention's figure, by its own tool."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from tqdm import tqdm

from harness.core.provenance import Provenance
from harness.core.records import CostRecord
from harness.core.workload import Workload
from harness.cost import tools
from harness.cost.analytic import analytic, crossover, rivals
from harness.cost.conventions import Convention, thop_params
from harness.cost.operations import Cost, differences
from harness.cost.published import published_costs
from harness.cost.trace import count
from models import ModelSpec, counterpart, create_model, spec


def inputs_of(
    model_spec: ModelSpec, resolution: int, batch: int, device: str, joint_images: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, of images or of clips and images beside them, timesteps and labels for a forward pass."""
    side = model_spec.grid(resolution) * model_spec.patch
    frames = (model_spec.frames + joint_images,) if model_spec.frames else ()
    labels = (1 + joint_images,) if joint_images else ()
    x = torch.zeros(batch, *frames, model_spec.channels, side, side, device=device)
    return x, torch.zeros(batch, device=device), torch.zeros(batch, *labels, dtype=torch.long, device=device)


def measure(workload: Workload, conventions: list[Convention]) -> Iterator[CostRecord]:
    """Records of one workload: its parameters, then its cost under each convention.

    The closed form is checked against the traced count, to the last multiply-add and parameter, before anything is
    recorded; a tool's figure against the prediction from the same operations. Raises ValueError that names the
    operations in which the two counts differ.
    """
    model_spec, resolution = workload.spec, workload.resolution
    here = Provenance.here("meta")
    model = create_model(model_spec, resolution, device="meta").eval()
    cost = analytic(model_spec, resolution, workload.batch)
    traced = count(model, *inputs_of(model_spec, resolution, workload.batch, "meta"))
    if found := differences(cost, traced):
        raise ValueError(f"the two counts of {model_spec.name} differ: {'; '.join(found)}")

    key = workload.key()
    yield CostRecord(
        quantity="params",
        value=cost.params,
        unit="parameter",
        method="analytic = traced",
        workload={**key, "convention": "exact"},
        parts={"trainable": cost.params, "frozen": sum(b.numel() for b in model.buffers())},
        provenance=here,
    )
    yield CostRecord(
        quantity="elementwise",
        value=cost.elementwise,
        unit="result",
        method="analytic = traced",
        workload={**key, "convention": "exact"},
        parts={kind: float(n) for kind, n in cost.elementwise_by_kind().items()},
        provenance=here,
    )
    for convention in conventions:
        yield from _under(convention, workload, model, here)


def _under(convention: Convention, workload: Workload, model: nn.Module, here: Provenance) -> Iterator[CostRecord]:
    model_spec, resolution = workload.spec, workload.resolution
    batch = convention.batch or workload.batch
    cost = analytic(model_spec, resolution, batch)
    key = {**workload.key(), "batch": batch, "convention": convention.name}
    predicted = convention.total(cost)
    method, verdict, params = "analytic = traced", "ok", None
    if convention.tool:
        reading = _read(convention.tool, model_spec, resolution, batch, model, cost)
        if reading is None:
            method, verdict = f"{convention.tool}'s rule, predicted (it would have to run the model)", "estimated"
        else:
            assert reading.count == predicted, f"{reading.tool}: {reading.count} of {model_spec.name}, not {predicted}"
            method, params = reading.tool, reading.params
    yield CostRecord(
        quantity="cost",
        value=predicted,
        unit=convention.unit,
        method=method,
        verdict=verdict,
        workload=key,
        parts={kind: float(n) for kind, n in cost.by_kind().items()} if convention.name == "exact" else {},
        omitted=convention.omitted(cost),
        provenance=here,
    )
    if params is not None:
        assert params == thop_params(cost), f"{method}: {params} parameters of {model_spec.name}"
        yield CostRecord(
            quantity="params", value=params, unit="parameter", method=method, workload=key, provenance=here
        )


def _read(
    tool: str, model_spec: ModelSpec, resolution: int, batch: int, model: nn.Module, cost: Cost
) -> tools.Reading | None:
    """The tool's own figure, or None where it would have to execute a model that is too large."""
    if tool != "fvcore":
        return tools.run(tool, model, *inputs_of(model_spec, resolution, batch, "meta"))
    if cost.macs > tools.EXECUTION_LIMIT_MACS:
        return None
    real = create_model(model_spec, resolution).eval()
    return tools.run(tool, real, *inputs_of(model_spec, resolution, batch, "cpu"))


def measure_module(
    name: str, model: nn.Module, inputs: list[Tensor], conventions: list[Convention]
) -> Iterator[CostRecord]:
    """Records of any module on given inputs: traced, and by each tool. Raises ValueError as `count` does."""
    if any(convention.batch for convention in conventions):
        raise ValueError("the paper convention fixes a batch, which your inputs already have: ask for thop")
    here = Provenance.here("meta")
    cost = count(model, *inputs)
    shapes = " ".join("x".join(map(str, x.shape)) for x in inputs)
    key: dict[str, object] = {"model": name, "input": shapes, "action": "forward"}
    yield CostRecord(
        quantity="params", value=cost.params, unit="parameter", method="traced",
        workload={**key, "convention": "exact"}, provenance=here,
    )  # fmt: skip
    yield CostRecord(
        quantity="elementwise", value=cost.elementwise, unit="result", method="traced",
        workload={**key, "convention": "exact"},
        parts={kind: float(n) for kind, n in cost.elementwise_by_kind().items()}, provenance=here,
    )  # fmt: skip
    for convention in conventions:
        value, method = convention.total(cost), "traced"
        if convention.tool:
            reading = tools.run(convention.tool, model, *inputs)
            value, method = reading.count, reading.tool
        yield CostRecord(
            quantity="cost", value=value, unit=convention.unit, method=method,
            workload={**key, "convention": convention.name},
            parts={kind: float(n) for kind, n in cost.by_kind().items()} if convention.name == "exact" else {},
            note=_uncounted(cost) if convention.name == "exact" else "", provenance=here,
        )  # fmt: skip


def _uncounted(cost: Cost) -> str:
    calls = ", ".join(f"{name} ({n} calls)" for name, n in cost.uncounted.items())
    return f"NOT counted, no rule: {calls}" if calls else ""


def crossovers(specs: Iterable[ModelSpec]) -> list[CostRecord]:
    """For each model beside one of its counterpart's: the resolution above which it costs less (None: nowhere)."""
    chosen = list(dict.fromkeys(specs))
    return [
        CostRecord(
            quantity="crossover",
            value=crossover(one, other),
            unit="px",
            method="analytic",
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


def measure_all(workloads: list[Workload], conventions: list[Convention]) -> list[CostRecord]:
    """`measure` over a sweep, with a progress bar on a terminal."""
    records: list[CostRecord] = []
    gc.disable()  # building modules by the thousand would set the collector walking all that torch has imported
    try:
        for workload in tqdm(workloads, desc="counting", unit="model", disable=None, leave=False):
            records += measure(workload, conventions)
    finally:
        gc.enable()
    return records
