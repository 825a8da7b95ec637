"""The model families, each a value that stands in a folder of its own. Imports no torch.

A new family is a folder beside `dit` and `dim` and its line in FAMILIES; one that lives elsewhere is registered:

    from models.families import register
    register(MY_FAMILY)
"""

from __future__ import annotations

import importlib
import sys

from models.families.diffussm import DIFFUSSM
from models.families.dig import DIG
from models.families.dim import DIM
from models.families.dis import DIS
from models.families.dit import DIT
from models.families.family import Family, Implementations, Kernel

__all__ = [
    "FAMILIES",
    "Family",
    "Implementations",
    "Kernel",
    "implementations",
    "kernels",
    "load",
    "named",
    "reference",
    "register",
]

FAMILIES: list[Family] = [
    DIT,  # Diffusion Transformer: self-attention
    DIM,  # Diffusion Mamba: two selective scans, one in each direction
    DIG,  # Diffusion GLA: gated linear attention, in four orders
    DIS,  # Diffusion state space models: Vim's scans, with long skips and the condition as tokens
    DIFFUSSM,  # S4D in both directions inside an hourglass
]
"""In the order in which catalogues, tables and figures show them."""


def register(family: Family) -> None:
    """Append a family that is defined elsewhere; registering the same value again changes nothing.

    Raises ValueError for a name that is taken or cannot begin a public name, for an unknown size or counterpart.
    """
    if family in FAMILIES:
        return
    names = [known.name for known in FAMILIES]
    if family.name in names or not family.name.isidentifier():
        raise ValueError(f"a family cannot be named {family.name!r}: it must be a word other than {', '.join(names)}")
    if family.counterpart not in (None, *names):
        raise ValueError(f"unknown counterpart {family.counterpart!r} of {family.name}; choose from {', '.join(names)}")
    for size in (size for depths in family.depths.values() for size in depths):
        if size not in family.sizes:
            raise ValueError(f"unknown size {size!r} of {family.name}; choose from {', '.join(family.sizes)}")
    FAMILIES.append(family)


def named(name: str) -> Family:
    """The family of that name. Raises ValueError with the choices."""
    for family in FAMILIES:
        if family.name == name:
            return family
    raise ValueError(f"unknown family {name!r}; choose from {', '.join(family.name for family in FAMILIES)}")


def implementations() -> dict[str, Implementations]:
    """The ways of running the mixers of all families, by their field in records; families may share one."""
    return {family.implementations.field: family.implementations for family in FAMILIES if family.implementations}


def kernels() -> dict[str, Kernel]:
    """The operators that families have added to torch's dispatcher, by name."""
    return {name: kernel for family in FAMILIES for name, kernel in family.kernels.items()}


def reference(family: Family) -> str:
    """`module:NAME`, by which another process finds a family; its `block` function is of the same module.

    Raises ValueError for a family that no module holds, or that only the running program holds.
    """
    module = family.block.__module__
    names = [name for name, value in vars(sys.modules[module]).items() if value is family]
    if module == "__main__" or not names:
        raise ValueError(f"another process cannot import {family.name}: define it by name in a module of its own")
    return f"{module}:{names[0]}"


def load(text: str) -> None:
    """Register the family of a `reference`."""
    module, _, name = text.partition(":")
    register(getattr(importlib.import_module(module), name))
