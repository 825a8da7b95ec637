"""Tensors by name, of the bytes of a file of weights."""

from __future__ import annotations

from argparse import Namespace

import torch
from safetensors.torch import load
from torch import Tensor

from harness.metrics.features.weights import Weights

WRAPPERS = ("state_dict", "model", "module")
"""Keys under which trainers put a state dict among other things."""


def state_dict(weights: Weights) -> dict[str, Tensor]:
    """The tensors of a file: safetensors, or a state dict that `torch.load` reads without running anything.

    Raises ValueError for other things than tensors by name, and whatever torch raises for a file that it cannot read.
    """
    if weights.content[8:9] == b"{":  # after the length of the header, which is JSON
        return load(weights.content)
    with torch.serialization.safe_globals([Namespace]):  # trainers store their options so
        found = torch.load(weights.open(), map_location="cpu", weights_only=True)
    for key in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()):
        raise ValueError("it holds other things than tensors by name")
    return dict(found)
