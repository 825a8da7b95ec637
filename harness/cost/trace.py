"""Counting by running: every operator that a model dispatches, on meta tensors, so that nothing is computed.

Multiply-adds come from torch's own FLOP formulas (torch.utils.flop_counter) and from those that operators register
there, as the selective scan does. What has no formula is elementwise work (counted apart) or is named as uncounted.
"""

from __future__ import annotations

import copy
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker

from harness.cost.kernels import traceable_kernels
from harness.cost.operations import Cost
from models import families
from models.operations import Op
from models.scan.custom_op import scans_of

KIND_OF = {
    "mm": "linear", "addmm": "linear", "convolution": "conv", "_convolution": "conv",
    "bmm": "attention", "baddbmm": "attention", "selective_scan": "scan",
}  # fmt: skip
ACTIVATIONS = frozenset(
    "silu gelu relu _safe_softmax sigmoid tanh softplus leaky_relu elu hardswish hardsigmoid mish _softmax "
    "_log_softmax exp exp2 expm1 log log2 log1p sin cos erf sqrt rsqrt reciprocal pow".split()
)
NORMS = frozenset(
    "native_layer_norm native_group_norm native_batch_norm _native_batch_norm_legit "
    "_native_batch_norm_legit_no_training rms_norm _fused_rms_norm".split()
)
REDUCTIONS = frozenset(
    "sum mean var var_mean std amax amin max min prod norm linalg_vector_norm cumsum "
    "max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d".split()
)
MOVEMENT = frozenset(
    "clone copy_ cat stack _to_copy lift_fresh flip roll constant_pad_nd empty empty_like new_empty empty_strided "
    "new_empty_strided zeros zeros_like new_zeros ones ones_like full full_like new_full new_ones arange scalar_tensor "
    "fill_ zero_ rand randn rand_like randn_like repeat index index_select gather scatter embedding masked_fill where "
    "tril triu repeat_interleave eye contiguous _reshape_copy _unsafe_view resize_ set_ linspace "
    "complex as_strided_ squeeze_ unsqueeze_ t_ transpose_ swapaxes_ swapdims_ detach_".split()
)


def count(model: nn.Module, *inputs: Tensor) -> Cost:
    """The cost of `model(*inputs)`, of any model, without computing it: on meta copies of parameters and inputs.

    The model stays as it is and in the mode it is in (`model.eval()` first, to count inference). Modules of mamba_ssm
    are counted through their fused kernels. Raises ValueError, with the reason, for a model that
    cannot run on meta tensors (one whose control flow depends on values).
    """
    shadow = to_meta(model)
    arguments = [x.to("meta") for x in inputs]
    counter = _Counter()
    try:
        with torch.no_grad(), traceable_kernels(), ModuleTracker() as tracker, counter.within(tracker):
            shadow(*arguments)
    except Exception as error:  # whatever the model raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{type(model).__name__} cannot be traced on meta tensors: {reason}") from error
    params = sum(p.numel() for p in model.parameters())
    return Cost(tuple(counter.ops), params, "traced", dict(counter.uncounted))


def to_meta(model: nn.Module) -> nn.Module:
    """The module if it is on the meta device, else a copy of it there; the module itself stays as it is."""
    if all(t.is_meta for t in [*model.parameters(), *model.buffers()]):
        return model
    memo: dict[int, object] = {}
    for p in model.parameters():
        memo[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
    for b in model.buffers():
        memo[id(b)] = torch.empty_like(b, device="meta")
    return copy.deepcopy(model, memo)


class _Counter(TorchDispatchMode):
    """Records one Op a dispatched operator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ops: list[Op] = []
        self.uncounted: Counter[str] = Counter()
        self.tracker: ModuleTracker | None = None
        self.kernels = families.kernels()

    def within(self, tracker: ModuleTracker) -> _Counter:
        self.tracker = tracker
        return self

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        name = packet.__name__
        if packet not in flop_registry and name not in MOVEMENT:
            with self:  # composite operators show their parts: linear, matmul, scaled_dot_product_attention on meta
                parts = func.decompose(*args, **kwargs) if _is_composite(func) else NotImplemented
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        self._record(func, args, kwargs, out)
        return out

    def _record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        packet = func._overloadpacket
        name = packet.__name__
        results = sum(t.numel() for t in tree_leaves(out) if isinstance(t, Tensor))
        if packet in flop_registry:
            flops = flop_registry[packet](*args, **kwargs, out_val=out)
            kernel = self.kernels.get(name)
            if kernel is not None:
                self._add(kernel.kind, flops // 2, kernel.exponentials(args))
                return
            kind = KIND_OF.get(name, "attention" if "attention" in name else "linear")
            self._add(kind, flops // 2, _inside(name, args))
        elif name in NORMS:
            self._add("norm", 0, args[0].numel())
        elif name.rstrip("_") in ACTIVATIONS:
            self._add("activation", 0, results)
        elif name in REDUCTIONS:
            self._add("gate", 0, sum(t.numel() for t in tree_leaves(args) if isinstance(t, Tensor)))
        elif torch.Tag.pointwise in func.tags and name not in MOVEMENT:
            self._add("gate", 0, results)
        elif not (func.is_view or name in MOVEMENT or func.namespace == "prim"):
            self.uncounted[f"{func.namespace}::{name}"] += 1

    def _add(self, kind: str, macs: int, elementwise: int) -> None:
        assert self.tracker is not None
        path = max(self.tracker.parents, key=len).partition(".")[2] if len(self.tracker.parents) > 1 else ""
        self.ops.append(Op(kind, macs, elementwise, re.sub(r"\b\d+\b", "*", path)))


def _is_composite(func: Any) -> bool:
    return bool(func._can_decompose() and not func.is_view)


def _inside(name: str, args: tuple[Any, ...]) -> int:
    """Exponentials inside a fused operator: the scan's decay per state, attention's softmax."""
    if name == "selective_scan":
        return sum(math.prod(scan.sizes) for scan in scans_of(name, args))
    if "attention" in name:
        q, k = args[0], args[1]
        return int(q.numel() // q.shape[-1] * k.shape[-2])
    return 0
