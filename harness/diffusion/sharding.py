"""Parameters, gradients and optimizer states shared among processes (FSDP2), for models that no card holds whole.

Each process keeps a slice of every parameter; a block's are gathered while it computes, forward and backward. What is
computed is what every process alone would compute; what differs is where it lies.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from harness.core.distributed import Ranks
from models.denoiser import Denoiser


def shard(model: Denoiser, ranks: Ranks, reduce_dtype: torch.dtype | None) -> None:
    """Share a model's parameters among all processes, block by block, from now on.

    Gradients travel as `reduce_dtype`, or as they are. Raises ValueError where there is one process.
    """
    if ranks.world == 1:
        raise ValueError("--fsdp shares a model among processes, and there is one: torchrun --nproc-per-node N -m ...")
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")  # outputs are views, and nobody writes into them
    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    policy = MixedPrecisionPolicy(reduce_dtype=reduce_dtype)
    for module in (*list(model.every_block()), model):
        fully_shard(module, mesh=mesh, mp_policy=policy)


def mine(tensor: Tensor) -> Tensor:
    """This process's slice of a tensor that is shared, or the tensor; they have one memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be shared, with all its slices; every process takes part."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def all_whole(state: Any, keep: bool) -> Any:
    """Nested containers with whole tensors on the CPU, in those processes that `keep` them; every process takes part.

    Tensors that are not shared are left where they are.
    """

    def gather(leaf: Any) -> Any:
        if not isinstance(leaf, DTensor):
            return leaf
        gathered = leaf.full_tensor()
        return gathered.cpu() if keep else None

    return tree_map(gather, state)


def spread(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which every process has, shared as `like` is."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
