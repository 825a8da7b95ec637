"""How a training run fits the memory of its cards, by prediction: what is recomputed, computed in parts, or shared."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from harness.core.capacity import GIB
from harness.core.command import first_process
from harness.core.workload import Workload
from models import ModelSpec, create_model

if TYPE_CHECKING:
    from harness.core.distributed import Ranks
    from harness.cost.memory import Peak
    from harness.diffusion.config import Execution, TrainConfig

SPARE = 0.95
"""Of a device's free memory, what a prediction may fill: it sees no allocator, no workspaces of libraries."""


@dataclass(frozen=True)
class Fitting:
    """Choices of an Execution, and the peak that is predicted for each process, in bytes."""

    checkpointing: bool
    parts: int
    shared: bool
    nbytes: int

    @property
    def flags(self) -> list[str]:
        """For harness.train."""
        recomputed = ["--checkpoint-activations"] * self.checkpointing
        return recomputed + ["--accumulate", str(self.parts)] * (self.parts > 1) + ["--fsdp"] * self.shared

    def of(self, execution: Execution) -> Execution:
        """An execution with these choices."""
        chosen = {"activation_checkpointing": self.checkpointing, "accumulate": self.parts, "fsdp": self.shared}
        return dataclasses.replace(execution, **chosen)  # type: ignore[arg-type]


def fit(
    config: TrainConfig, spec: ModelSpec, processes: int, nbytes: float, device: str = "cuda", further_averages: int = 0
) -> Fitting:
    """The first way to train that fits so many bytes a process, or where none does, the last.

    Each of the `further_averages` takes as much as the weights.

    In order: as it is; activations recomputed; the batch in as many parts as it takes; and then, of several processes,
    the same with parameters, gradients and optimizer shared.
    """
    found = None
    for checkpointing, parts, shared in _ways(-(-config.batch // processes), processes):
        step = Workload(
            spec=spec,
            resolution=config.resolution,
            batch=-(-config.batch // processes) // parts,
            joint_images=config.joint_images,
            action="train",
            dtype="bfloat16" if config.precision == "bf16" else "float32",
            checkpointing=checkpointing,
        )
        peak = predicted(step, device)
        taken = shared_bytes(peak, step, processes) if shared else kept_bytes(peak, parts > 1 or processes > 1)
        taken += further_averages * peak.parts["weights"] // (processes if shared else 1)
        found = Fitting(checkpointing, parts, shared, taken)
        if taken <= nbytes:
            break
    assert found
    return found


def _ways(share: int, processes: int) -> Iterator[tuple[bool, int, bool]]:
    """Checkpointing, parts of `share` items, and whether the model is shared."""
    for shared in (False, True)[: 1 + (processes > 1)]:
        yield False, 1, shared
        yield from ((True, parts, shared) for parts in range(1, share + 1) if share % parts == 0)


@cache
def predicted(step: Workload, device: str) -> Peak:
    """The peak of a training step of one process."""
    from harness.cost.memory import predict_memory

    return predict_memory(step, device)


def kept_bytes(peak: Peak, kept: bool) -> int:
    """Of a step whose gradients may be `kept` all along: of several parts, or of processes that reduce in place."""
    return peak.nbytes - peak.parts["gradients"] + peak.parts["weights"] if kept else peak.nbytes


def shared_bytes(peak: Peak, step: Workload, processes: int) -> int:
    """Of a step of a model that processes share: each has a slice of weights, gradients, moments and average.

    Gathered are what lies outside of blocks, all along; the weights of a block, and of the one that comes next; and a
    block's gradients, before they are reduced.
    """
    weights, states = peak.parts["weights"], peak.parts["optimizer and EMA"]
    model = create_model(step.spec, step.resolution, device="meta")
    blocks = [sum(p.nbytes for p in block.parameters()) for block in model.every_block()]
    outside = sum(p.nbytes for p in model.parameters()) - sum(blocks)
    activations = peak.nbytes - weights - states - peak.parts["gradients"]
    return activations + (2 * weights + states) // processes + outside + 3 * max(blocks)


def auto_fit(
    config: TrainConfig, execution: Execution, wanted: bool, card_gib: float | None
) -> Callable[[ModelSpec, Ranks], Execution] | None:
    """A function of a model's specification and the processes that gives an execution which fits, and says so.

    Of `card_gib` GiB, or of what the device has free; None where it is not `wanted`. Raises ValueError where the choice
    has been made already.
    """
    if not wanted:
        if card_gib:
            raise ValueError("--card-gib is of --auto-fit")
        return None
    if execution.fsdp or execution.activation_checkpointing or execution.accumulate > 1:
        raise ValueError("--auto-fit chooses --checkpoint-activations, --accumulate and --fsdp: leave them out")
    if execution.keep_operands:
        raise ValueError("--auto-fit predicts a mixer that recomputes its operands: leave --keep-operands out")

    def chosen(spec: ModelSpec, here: Ranks) -> Execution:
        from harness.core.distributed import free_bytes, from_first

        there = card_gib * GIB if card_gib else SPARE * free_bytes(here.device)
        averages = len(execution.further_ema_decays)
        fitting = from_first(fit(config, spec, here.world, there, here.device.type, averages))
        if first_process():
            how = " ".join(fitting.flags) or "no flag"
            verb = "fits" if fitting.nbytes <= there else "does not fit"
            needed, available = fitting.nbytes / GIB, there / GIB
            takes = f"a process takes {needed:.3g} GiB, predicted, which {verb} {available:.3g}"
            print(f"auto-fit: {how}; {takes}", file=sys.stderr, flush=True)
        return fitting.of(execution)

    return chosen
