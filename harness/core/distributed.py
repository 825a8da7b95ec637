"""One process or many: `python -m` and `torchrun -m` are the same program.

Under torchrun the environment describes the group, which is gloo for CPU tensors beside NCCL for CUDA tensors; alone,
every function here is the identity. When a process fails, the others end at once and in silence: the one that failed
first reports why.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from harness.core.capacity import physical_bytes
from harness.core.command import FAILED, FAILURES, one_line
from harness.core.locks import locked

T = TypeVar("T")

REPORT_S = 1.0
"""What a failed process leaves the one that failed first to report why: torchrun ends all when one has ended."""


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
    """CUDA when there is one, else the CPU; or the device requested. Raises ValueError when it is not to be had."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", name):
        raise ValueError(f"unknown device {name!r}; choose cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} requested, but torch sees no CUDA device here")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r} requested, but torch sees {torch.cuda.device_count()} CUDA devices here")
    return device


def device_name(device: torch.device) -> str:
    """What a record calls a device: `cpu`, or `cuda:0: NVIDIA ...`."""
    return f"{device}: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)


def free_bytes(device: torch.device) -> int:
    """The memory of a device that is free; of a machine's, this process's share among those that torchrun started."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return physical_bytes() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def ranks(device: torch.device) -> Iterator[Ranks]:
    """Join the process group that torchrun describes, if any; leave it at the end.

    An exception ends all processes. The first that raises one keeps it, for its caller to report; if it is not the
    first in rank, it reports a failure in a line on stderr, and raises SystemExit as the others do.
    """
    if "RANK" not in os.environ:
        yield Ranks(0, 1, device)
        return
    if device.type == "cuda":
        index, seen = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if index >= seen:
            raise ValueError(f"process {index + 1} of this machine has no GPU: torch sees {seen} (--nproc-per-node)")
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
    store, rank, world = next(iter(dist.rendezvous("env://")))  # type: ignore[attr-defined]
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", store=store, rank=rank, world_size=world
    )
    try:
        yield Ranks(rank, world, device)
    except Exception as error:
        if not _is_first_to_fail(store):
            time.sleep(REPORT_S)
            raise SystemExit(FAILED) from None
        if rank and isinstance(error, FAILURES):
            print(f"process {rank} of {world}: {one_line(error)}", file=sys.stderr, flush=True)
            raise SystemExit(FAILED) from None
        raise
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


def _is_first_to_fail(store: Any) -> bool:
    try:
        return bool(store.add("failed", 1) == 1)
    except RuntimeError:  # the store's process has ended, hence has failed before
        return False


@contextmanager
def exclusively(directory: Path, here: Ranks) -> Iterator[None]:
    """The right to write into a directory, which the first process holds for all; the others wait until it has it.

    Raises LockedError, in the first process, when someone else works there.
    """
    with locked(directory) if here.first else nullcontext():
        barrier()
        yield


def barrier() -> None:
    """Wait for all. A reduction of a CPU tensor, so that it needs no accelerator."""
    if dist.is_initialized():
        dist.all_reduce(torch.zeros(1))


def from_first(value: T) -> T:
    """The first process's value, for all."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gathered(value: T) -> list[T]:
    """The values of all processes, in their order, for all."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def mean(values: Tensor) -> Tensor:
    """The mean over processes, in float64 on the CPU."""
    values = values.detach().double().cpu()
    if dist.is_initialized():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


class Agreement:
    """A yes or no that all processes reach at the same step, without ever waiting for the accelerator.

    Each `reached(vote)` answers whether anyone had voted yes at the previous call; the reduction runs meanwhile.
    """

    def __init__(self) -> None:
        self._votes = torch.zeros(1)
        self._work: dist.Work | None = None

    def reached(self, vote: bool) -> bool:
        if not dist.is_initialized():
            return vote
        if self._work is not None:
            self._work.wait()
        agreed = bool(self._votes)
        self._votes = torch.tensor([float(vote)])
        self._work = dist.all_reduce(self._votes, async_op=True)
        return agreed
