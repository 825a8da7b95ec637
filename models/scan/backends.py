"""The table of backends: which run here, and which one a call gets.

A backend is a module with `missing() -> str`, the reason why it does not run on this machine or "";
`unsupported(device, dtype) -> str`, the same for tensors of this kind; `states_shape(inputs)`; `forward` and
`backward`, as documented in `reference`.
"""

from types import ModuleType

import torch

from . import chunked, cpu, fused, mamba, naive, reference

# Fastest first: "auto" takes the first that runs.
BACKENDS: dict[str, ModuleType] = {
    "triton": fused,
    "mamba_ssm": mamba,
    "numba": cpu,
    "chunked": chunked,
    "reference": reference,
    "naive": naive,
}


def available() -> dict[str, str]:
    """For every backend "" if it runs on this machine, otherwise the reason in one line."""
    return {name: module.missing() for name, module in BACKENDS.items()}


def resolve(backend: str, device: torch.device | str, dtype: torch.dtype) -> str:
    """The backend that a call with this argument runs on tensors of this device and dtype, for records.

    "auto" is the first of the table that runs. On meta tensors nothing runs, and the answer is "meta".
    Raises ValueError for an unknown name and for one that cannot run, naming the choices.
    """
    device = torch.device(device)
    choices = ", ".join(["auto", *BACKENDS])
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"unknown scan backend {backend!r}; choose from {choices}")
    if device.type == "meta":
        return "meta"
    if backend == "auto":
        return next(name for name in BACKENDS if not _reason(name, device, dtype))
    if reason := _reason(backend, device, dtype):
        raise ValueError(f"scan backend {backend!r} cannot run here: {reason}; choose from {choices}")
    return backend


def _reason(name: str, device: torch.device, dtype: torch.dtype) -> str:
    module = BACKENDS[name]
    return module.unsupported(device, dtype) or module.missing()
