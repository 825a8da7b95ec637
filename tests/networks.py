"""Randomly initialised stand-ins for published weight files, with their formats and their call signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from harness.suites.random_networks import random_i3d, random_inception

__all__ = ["random_backbone", "random_i3d", "random_inception"]


def random_backbone(path: Path, network: str, seed: int = 0, **smaller: Any) -> Path:
    """Write weights of a network of timm, none of them zero, so that every parameter has a part in the features."""
    import timm
    from safetensors.torch import save_file

    state = timm.create_model(network, pretrained=False, **smaller).state_dict()
    generator = torch.Generator().manual_seed(seed)
    for name, value in state.items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var") or (value.dim() == 1 and name.endswith(".weight")):
                state[name] = (1 + 0.2 * noise).abs() + 0.1
            elif value.dim() < 2 or name.endswith(("pos_embed", "token")):
                state[name] = 0.3 * noise
            else:
                state[name] = noise / value[0].numel() ** 0.5
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    return path
