"""Peak memory of a workload, predicted by running the real model on fake tensors and following every allocation.

A fake tensor has a shape, a dtype and a lifetime but no data, so the model, autograd and the optimizer allocate and
free as they do in earnest, for any size, on any machine. What a scan takes inside itself its backend says; what other
kernels take is not seen, nor are the allocator's rounding, cuBLAS workspaces and the CUDA context.
"""

from __future__ import annotations

import itertools
import math
import re
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.checkpoint import set_checkpoint_early_stop

from harness.core.provenance import Provenance
from harness.core.records import MemoryRecord
from harness.core.workload import Workload
from harness.cost.step import configure, step_of
from models import create_model, families
from models.denoiser import Denoiser
from models.scan.backends import planned_on
from models.scan.custom_op import workspace_of

CATEGORIES = ("weights", "optimizer and EMA", "gradients", "activations")

CUDA_FLOAT32 = frozenset(
    "exp expm1 log log2 log1p pow reciprocal rsqrt softplus layer_norm rms_norm group_norm logsumexp softmax "
    "log_softmax cumsum cumprod sum prod norm".split()
)
"""Operators of networks that CUDA's autocast runs in float32 (ATen/autocast_mode.h), and a CPU's does not."""


@dataclass
class Allocation:
    """One storage: its size, what made it, and when it lived, in counts of allocations."""

    nbytes: int
    op: str
    module: str
    shape: tuple[int, ...]
    dtype: str
    born: int
    category: str = "activations"
    died: int | None = None

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape)) or "scalar"
        where = f" in {self.module}" if self.module else ""
        return f"{self.op}{where}: {size} {self.dtype}, {self.nbytes / 2**30:.2f} GiB"


class Pass(NamedTuple):
    """A block's turn, forward or backward; it lasts until the next one's."""

    block: int
    backward: bool
    begins: int  # in counts of allocations


@dataclass(frozen=True)
class Peak:
    """The high-water mark of a workload, in bytes, and what is `alive` then.

    `climb` has the bytes alive after each allocation, in order: the first above a budget is the one that breaks it.
    `passes` has where in that order each block's turn begins.
    """

    nbytes: int
    alive: list[Allocation] = field(repr=False)
    climb: list[int] = field(repr=False)
    log: list[Allocation] = field(repr=False)
    passes: list[Pass] = field(repr=False)

    @property
    def parts(self) -> dict[str, int]:
        """Its bytes by category."""
        return {category: sum(a.nbytes for a in self.alive if a.category == category) for category in CATEGORIES}

    @property
    def largest(self) -> Allocation:
        """The largest activation."""
        return max((a for a in self.alive if a.category == "activations"), key=lambda a: a.nbytes)

    def holders(self) -> dict[str, int]:
        """The bytes of its activations by operator and module, most first."""
        found: Counter[str] = Counter()
        for a in self.alive:
            if a.category == "activations":
                found[f"{a.op} in {a.module}" if a.module else a.op] += a.nbytes
        return dict(found.most_common())

    def made(self, where: slice) -> list[tuple[str, str, str]]:
        """What made the allocations of a span, by operator, module and dtype."""
        return [(a.op, a.module, a.dtype) for a in self.log[where]]

    def breaks(self, budget: int) -> Allocation | None:
        """The allocation that exceeds a budget in bytes, or None where all fits."""
        return next((a for total, a in zip(self.climb, self.log, strict=True) if total > budget), None)


def predict_memory(workload: Workload, device: str = "cuda") -> Peak:
    """The peak of one workload: a forward pass, a guided denoising step (`sample`), or a training step (`train`).

    A training step is a later one: AdamW's moments and the EMA are there when its forward pass begins. `device` is
    "cuda" or "cpu", which this machine need not have: another backend of a scan, and another autocast.
    Raises ValueError where the workload names an implementation that does not run on such a device.
    """
    # Recomputation that stops early does so by an exception, whose traceback would keep tensors alive.
    fake, whole = FakeTensorMode(allow_non_fake_inputs=True), set_checkpoint_early_stop(False)
    cuda = device == "cuda" and workload.dtype != "float32"
    with fake, whole, planned_on(device), _CudaAutocast() if cuda else nullcontext():
        model = create_model(workload.spec, workload.resolution)
        configure(model, workload)
        for block in model.every_block() if cuda else ():
            block.forward = _recomputed_as_run(block.forward)
        allocations = _Allocations(model)
        for tensor in itertools.chain(model.parameters(), model.buffers()):
            allocations.register(tensor, "weights", "weights")
        with allocations:
            step_of(workload, model, "cpu", allocations.register)()
    return allocations.peak()


def memory_record(workload: Workload, peak: Peak) -> MemoryRecord:
    """A predicted peak as a record."""
    return MemoryRecord(
        quantity="peak_memory",
        value=peak.nbytes,
        unit="byte",
        verdict="estimated",
        method="allocations of the real model on fake tensors",
        workload=workload.settings(),
        parts={category: float(nbytes) for category, nbytes in peak.parts.items()},
        note=f"largest activation: {peak.largest}",
        provenance=Provenance.here("none"),
    )


class _Allocations(TorchDispatchMode):
    """Follows every storage from the operator that makes it to its last reference."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.path: list[str] = []  # the modules that are running; torch's ModuleTracker would keep their tensors alive
        for name, module in model.named_modules():
            module.register_forward_pre_hook(lambda *_, name=name: self.path.append(name))
            module.register_forward_hook(lambda *_: self._leave(), always_call=True)
        self.passes: list[Pass] = []
        for block, module in enumerate(model.every_block()):
            module.register_forward_pre_hook(lambda *_, block=block: self._begin(block, backward=False))
            module.register_forward_hook(lambda _m, _i, out, block=block: self._follow_back(out, block))
        self.log: list[Allocation] = []
        self.climb: list[int] = []
        self.alive: dict[int, Allocation] = {}
        self.kernels = families.kernels()
        self.total = 0

    def _leave(self) -> None:
        self.path.pop()

    def _begin(self, block: int, backward: bool) -> None:
        recomputed = not backward and any(one.backward for one in self.passes)
        if not recomputed:
            self.passes.append(Pass(block, backward, len(self.log)))

    def _follow_back(self, out: Any, block: int) -> None:
        """A block's backward begins when the gradient of its output is there."""
        if isinstance(out, Tensor) and out.requires_grad:
            out.register_hook(lambda _: self._begin(block, backward=True))

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._overloadpacket.__name__
        kernel = self.kernels.get(name)
        if kernel is not None and kernel.body is not None:
            with self:  # it allocates what its body does
                return kernel.body()(*args)
        out = func(*args, **(kwargs or {}))
        inside = workspace_of(name, args) if func.namespace == "dim" else []
        for entry in [self._enter(f"{name}: {buffer.name}", buffer.shape, buffer.dtype) for buffer in inside]:
            self._free_entry(entry)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.register(tensor, name)
        return out

    def register(self, tensor: Tensor, op: str, category: str = "activations") -> None:
        """Count a tensor's storage, once; a later category replaces that of an activation."""
        storage = tensor.untyped_storage()
        known = self.alive.get(storage._cdata)
        if known is None:
            entry = self._enter(op, tuple(tensor.shape), tensor.dtype, category, storage.nbytes())
            self.alive[storage._cdata] = entry
            weakref.finalize(storage, self._free, storage._cdata)
        elif category != "activations":
            known.category = category

    def _enter(
        self,
        op: str,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        category: str = "activations",
        nbytes: int | None = None,
    ) -> Allocation:
        where = re.sub(r"\b\d+\b", "*", self.path[-1]) if self.path else ""
        nbytes = dtype.itemsize * math.prod(shape) if nbytes is None else nbytes
        entry = Allocation(nbytes, op, where, shape, str(dtype)[6:], len(self.log), category)
        self.total += nbytes
        self.log.append(entry)
        self.climb.append(self.total)
        return entry

    def _free(self, key: int) -> None:
        self._free_entry(self.alive.pop(key))

    def _free_entry(self, entry: Allocation) -> None:
        entry.died = len(self.log)
        self.total -= entry.nbytes

    def peak(self) -> Peak:
        """What was alive when the most was."""
        nbytes = max(self.climb)
        when = self.climb.index(nbytes)
        alive = [a for a in self.log if a.born <= when and (a.died is None or a.died > when)]
        return Peak(nbytes, alive, self.climb, self.log, self.passes)


def _recomputed_as_run(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A block's forward under CUDA's autocast, wherever it is called from: a backward pass leaves modes behind."""

    def run(*inputs: Any) -> Any:
        with _CudaAutocast():
            return forward(*inputs)

    return run


class _CudaAutocast(TorchFunctionMode):
    """CUDA's autocast of fake tensors of a CPU, whose own leaves more operators in bfloat16."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in CUDA_FLOAT32 and torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map_only(Tensor, lambda t: t.float() if t.is_floating_point() else t, (args, kwargs))
        return func(*args, **kwargs)
