"""A model of the user's own: `package.module:factory` and the shapes of its inputs."""

from __future__ import annotations

import importlib
import os
import re
import sys

import torch
from torch import Tensor, nn

DTYPES = {
    "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64,
    "int64": torch.int64, "int32": torch.int32, "bool": torch.bool,
}  # fmt: skip


def build(name: str) -> nn.Module:
    """Call `package.module:factory` without arguments, on the meta device where that works, and set it to eval mode.

    Modules of the working directory can be named, as with `python -m`. Raises ValueError, in one line, for what cannot
    be imported, is not there, cannot be called so, or gives no module.
    """
    path, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        factory = getattr(importlib.import_module(path), attribute)
    except ImportError as error:
        raise ValueError(f"cannot import {path!r} of --model {name}: {error}") from error
    except AttributeError as error:
        raise ValueError(f"module {path!r} has no {attribute!r} (--model {name})") from error
    try:
        model = _call(factory)
    except Exception as error:  # whatever the user's code raises
        raise ValueError(f"{name}() failed: {_first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name}() gives a {type(model).__name__}, not a torch.nn.Module")
    return model.eval()


def _call(factory) -> object:
    try:
        with torch.device("meta"):
            return factory()
    except Exception:  # constructors that read values cannot run on meta tensors: build them in memory
        return factory()


def parse_input(text: str) -> Tensor:
    """`1x3x224x224`, `1x3x224x224:bfloat16` or `16:int64` as a meta tensor. Raises ValueError with the form."""
    match = re.fullmatch(r"([1-9]\d*(?:x[1-9]\d*)*)(?::(\w+))?", text)
    dtype = match and DTYPES.get(match[2] or "float32")
    if match is None or dtype is None:
        raise ValueError(f"--input {text!r} is not SHAPE[:DTYPE], as 1x3x224x224 or 16:int64 ({', '.join(DTYPES)})")
    return torch.zeros([int(n) for n in match[1].split("x")], dtype=dtype, device="meta")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
