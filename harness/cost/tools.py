"""The counters that others use, run as they are: thop, fvcore and torch's FlopCounterMode."""

from __future__ import annotations

import copy
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.module_tracker import ModuleTracker

from harness.cost.kernels import traceable_kernels
from harness.cost.trace import to_meta

TOOLS = ("thop", "fvcore", "torch")
EXECUTION_LIMIT_MACS = 1_000_000_000
"""For a model of the catalogue that needs more multiply-adds, the figure of a tool that computes is predicted."""


@dataclass(frozen=True)
class Reading:
    """What a tool printed: its count, its parameter count where it has one, its name and version."""

    count: int
    params: int | None
    tool: str


def version(tool: str) -> str:
    """The tool's name and version. Raises ValueError, with the install command, when it is not installed."""
    try:
        return f"{tool} {metadata.version(tool)}"
    except metadata.PackageNotFoundError:
        raise ValueError(f"{tool} is not installed: pip install {tool}") from None


def run(tool: str, model: nn.Module, *inputs: Tensor, hidden: Sequence[str] = ()) -> Reading:
    """Run a tool on `model(*inputs)`. thop and torch see a meta copy of the model; fvcore executes the model itself.

    `hidden` are the modules, as "blocks.*.mlp", whose own products with weights are kept from the tool.
    """
    name = version(tool)
    with torch.no_grad(), traceable_kernels(), hiding(hidden), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        count, params = {"thop": _thop, "fvcore": _fvcore, "torch": _torch}[tool](model, inputs)
    return Reading(round(count), params, name)


def _thop(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[float, int]:
    import thop

    shadow = copy.deepcopy(to_meta(model))  # thop adds hooks and buffers to what it profiles
    macs, params = thop.profile(shadow, tuple(x.to("meta") for x in inputs), verbose=False)
    return macs, round(params)


def _fvcore(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[float, None]:
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    analysis = FlopCountAnalysis(model, inputs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return analysis.total(), None


def _torch(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[int, None]:
    from torch.utils.flop_counter import FlopCounterMode

    shadow = to_meta(model)
    with FlopCounterMode(display=False) as counter:
        shadow(*(x.to("meta") for x in inputs))
    return counter.get_total_flops(), None


@contextmanager
def hiding(modules: Sequence[str]) -> Iterator[None]:
    """Products with weights that modules of these names compute as functions become functions of autograd.

    So are those that a repository hands to a fused kernel: a tool that follows torch's operators does not see inside.
    Layers that such a module calls are not hidden.
    """
    if not modules:
        yield
        return
    with ModuleTracker() as tracker, _Hiding(modules, tracker):
        yield


class _Hiding(TorchFunctionMode):
    def __init__(self, modules: Sequence[str], tracker: ModuleTracker) -> None:
        super().__init__()
        self.modules, self.tracker = modules, tracker

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.linear and self._hides():
            return _Opaque.apply(func, *args, *(kwargs or {}).values())
        return func(*args, **(kwargs or {}))

    def _hides(self) -> bool:
        """Whether the module that runs is hidden, by its name with block numbers replaced by `*`."""
        path = "." + re.sub(r"\b\d+\b", "*", max(self.tracker.parents, key=len))
        return any(path.endswith(f".{name}") for name in self.modules)  # a tool may put the model into another


class _Opaque(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Any, *arguments: Any) -> Any:
        return function(*arguments)
