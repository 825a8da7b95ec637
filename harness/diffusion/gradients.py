"""Gradients of a batch that is computed in parts, by one process or by many.

On CPUs the parts are summed in the order of their rows, whoever computed them. So W processes that accumulate A parts
each take, bit for bit, the step of one process that accumulates W x A parts (the same kernels and threads provided).
Accelerators sum by DistributedDataParallel, whose order is its own: equal up to rounding. So do processes that share
the model itself (harness.diffusion.sharding), and those whose gradients travel in bfloat16, which has eight bits.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from harness.core.distributed import Ranks
from harness.diffusion.config import Execution

BUCKET_BYTES = 32 << 20
"""Of gradients that travel at once: many small messages are slow, one large one doubles the memory."""


class OneProcess:
    """Parts add up in `.grad` as they come. `network` is what the forward pass calls, `parts` how many a batch has."""

    def __init__(self, model: nn.Module, accumulate: int) -> None:
        self.network, self.parts = model, accumulate
        self.losses: list[Tensor] = []

    def part(self, last: bool) -> AbstractContextManager[object]:
        """Around the passes of one part."""
        return nullcontext()

    def done(self, loss: Tensor) -> None:
        """After the passes of one part."""
        self.losses.append(loss.detach())

    def total(self) -> Tensor:
        """After all parts: the sum of their losses; `.grad` is that of the whole batch, or of this process's share."""
        total = torch.zeros_like(self.losses[0])
        for loss in self.losses:
            total += loss
        self.losses.clear()
        return total


class Reduced(OneProcess):
    """Accelerators: gradients are averaged over processes while the last part is computed, in bfloat16 if `rounded`."""

    def __init__(self, model: nn.Module, accumulate: int, rounded: bool = False) -> None:
        super().__init__(model, accumulate)
        self.network = self.ddp = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
        if rounded:
            self.ddp.register_comm_hook(None, bf16_compress_hook)

    def part(self, last: bool) -> AbstractContextManager[object]:
        return nullcontext() if last else self.ddp.no_sync()


class Ordered(OneProcess):
    """CPUs: each part's gradients are kept apart, then gathered and summed in the order of their rows."""

    def __init__(self, model: nn.Module, accumulate: int, world: int) -> None:
        super().__init__(model, accumulate)
        self.parts, self.world = accumulate * world, world
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.gradients: list[list[Tensor]] = []
        for value in model.state_dict().values():
            dist.broadcast(value, 0)

    def done(self, loss: Tensor) -> None:
        super().done(loss)
        self.gradients.append([_taken(parameter) for parameter in self.parameters])

    def total(self) -> Tensor:
        for members in _buckets(self.parameters):
            local = torch.stack([torch.cat([part[i].flatten() for i in members]) for part in self.gradients])
            pieces = _summed(local, self.world).split([self.parameters[i].numel() for i in members])
            for i, piece in zip(members, pieces, strict=True):
                self.parameters[i].grad = piece.view_as(self.parameters[i])
        self.gradients.clear()
        total = _summed(torch.stack(self.losses), self.world)
        self.losses.clear()
        return total


def gradients_of(model: nn.Module, execution: Execution, ranks: Ranks) -> OneProcess:
    """How the gradients of this run add up.

    A model that is shared reduces its gradients itself, after each part, and is to its caller like one process's.
    """
    rounded = execution.reduce_dtype == "bf16"
    if ranks.world == 1 or execution.fsdp:
        return OneProcess(model, execution.accumulate)
    if ranks.device.type == "cpu" and not rounded:
        return Ordered(model, execution.accumulate, ranks.world)
    return Reduced(model, execution.accumulate, rounded)


def _taken(parameter: nn.Parameter) -> Tensor:
    gradient, parameter.grad = parameter.grad, None
    return torch.zeros_like(parameter) if gradient is None else gradient


def _buckets(parameters: list[nn.Parameter]) -> list[list[int]]:
    """Indices of neighbours that travel together."""
    buckets: list[list[int]] = [[]]
    size = 0
    for index, parameter in enumerate(parameters):
        if buckets[-1] and size + parameter.nbytes > BUCKET_BYTES:
            buckets.append([])
            size = 0
        buckets[-1].append(index)
        size += parameter.nbytes
    return buckets


def _summed(local: Tensor, world: int) -> Tensor:
    """The parts (A, ...) of all processes, added one after the other."""
    gathered = [torch.empty_like(local) for _ in range(world)]
    dist.all_gather(gathered, local)
    first, *rest = (part for parts in gathered for part in parts)
    total: Tensor = first.clone()
    for part in rest:
        total += part
    return total
