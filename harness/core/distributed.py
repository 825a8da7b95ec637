"""One process or many: `python -m` and `torchrun -m` are the same program.

Under torchrun the environment says so, and the group is gloo for CPU tensors beside NCCL for CUDA tensors; alone, every
function here is the identity.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """Who this process is. `rows(n)` is its share of n items in order."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def rows(self, count: int) -> range:
        """A contiguous share of `count` items. Raises ValueError when they do not divide evenly."""
        if count % self.world:
            raise ValueError(f"{count} do not divide evenly among {self.world} processes")
        share = count // self.world
        return range(self.rank * share, (self.rank + 1) * share)


def choose_device(name: str | None = None) -> torch.device:
    """CUDA when there is one, else the CPU; or the device asked for. Raises ValueError when it is not to be had."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}; choose cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} asked for, but torch sees no CUDA device here")
    return device


@contextmanager
def ranks(device: torch.device) -> Iterator[Ranks]:
    """Join the process group that torchrun describes, if any; leave it at the end."""
    if "RANK" not in os.environ:
        yield Ranks(0, 1, device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


@contextmanager
def processes(device: str | None = None, threads: int | None = None) -> Iterator[Ranks]:
    """`ranks` on the device of this name, with so many CPU threads a process (torch's own number, if not given)."""
    from threadpoolctl import threadpool_limits

    if threads:
        torch.set_num_threads(threads)
    with threadpool_limits(threads), ranks(choose_device(device)) as here:
        yield here


def barrier() -> None:
    """Wait for all. A reduction of a CPU tensor, so that it needs no accelerator."""
    if dist.is_initialized():
        dist.all_reduce(torch.zeros(1))


def mean(values: Tensor) -> Tensor:
    """The mean over processes, in float64 on the CPU."""
    values = values.detach().double().cpu()
    if dist.is_initialized():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


class Agreement:
    """A yes or no that all processes reach at the same step, without ever waiting for the accelerator.

    Each `ask(vote)` answers whether anyone had voted yes at the previous call; the reduction runs meanwhile.
    """

    def __init__(self) -> None:
        self._votes = torch.zeros(1)
        self._work: dist.Work | None = None

    def ask(self, vote: bool) -> bool:
        if not dist.is_initialized():
            return vote
        if self._work is not None:
            self._work.wait()
        agreed = bool(self._votes)
        self._votes = torch.tensor([float(vote)])
        self._work = dist.all_reduce(self._votes, async_op=True)
        return agreed
