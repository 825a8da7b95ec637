"""A model of the user's own, by the name of what makes it: `package.module:factory`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import torch
from torch import nn

OUR_PACKAGES = ("models", "harness")


def build(name: str, meta: bool = True) -> nn.Module:
    """Call `package.module:factory` without arguments and set what it makes to eval mode.

    With `meta` it is made on the meta device where that works, else, and otherwise, in memory.
    Modules of the working directory come first, those of our own names (`models.py`) included. Raises ValueError, in
    one line, for what cannot be imported, is not there, cannot be called so, or gives no module.
    """
    path, _, attribute = name.partition(":")
    with working_directory_first(path):
        module = _imported(path, name)
        try:
            factory = getattr(module, attribute)
        except AttributeError as error:
            raise ValueError(f"module {path!r} has no {attribute!r} (--model {name})") from error
        try:
            model = _call(factory) if meta else factory()
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise ValueError(f"{name}() failed: {_one_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name}() gives a {type(model).__name__}, not a torch.nn.Module")
    return model.eval()


def _imported(path: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(path)
    except ImportError as error:
        raise ValueError(f"cannot import {path!r} of --model {name}: {_first_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"cannot import {path!r} of --model {name}: {_one_line(error)}") from error


def _call(factory: Callable[[], Any]) -> Any:
    try:
        with torch.device("meta"):
            return factory()
    except Exception:  # constructors that read values cannot run on meta tensors: build them in memory
        return factory()


@contextmanager
def working_directory_first(path: str) -> Iterator[None]:
    """Import modules, of which `path` is one, as a program in the working directory would.

    Where it has a `models` or `harness` of its own, ours of that name are set aside as long as this lasts, so that the
    user's modules also find each other when they are imported late, inside the factory. Then all is put back.
    """
    importlib.invalidate_caches()
    here = os.getcwd()
    theirs = {name: spec for name in OUR_PACKAGES if (spec := _spec_of(name, path, here)) is not None}
    ours = _take(theirs)
    sys.path.insert(0, here)
    try:
        for name, spec in theirs.items():
            if spec.origin is None:  # a folder without __init__.py: the import system would prefer ours
                sys.modules[name] = importlib.util.module_from_spec(spec)
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)
        _take(theirs)
        sys.modules.update(ours)


def _spec_of(name: str, path: str, here: str) -> ModuleSpec | None:
    """What the working directory has under one of our names, or None if that is nothing or is ours.

    A folder without `__init__.py` counts where `path` lies in it: one of checkpoints may have that name too.
    """
    found = PathFinder.find_spec(name, [here])
    if found is None:
        return None
    if found.origin is None:
        package, _, rest = path.partition(".")
        inside = PathFinder.find_spec(f"{name}.{rest.partition('.')[0]}", found.submodule_search_locations)
        return found if package == name and inside is not None else None
    own = getattr(sys.modules.get(name), "__file__", None)
    return None if own and os.path.samefile(own, found.origin) else found


def _take(names: Iterable[str]) -> dict[str, ModuleType]:
    """Remove these packages and all in them from the loaded modules, and return them."""
    loaded = [name for name in sys.modules if name.partition(".")[0] in set(names)]
    return {name: sys.modules.pop(name) for name in loaded}


def _one_line(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({'' if error.code is None else repr(error.code)})"
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
