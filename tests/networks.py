"""Randomly initialised stand-ins for published weight files, with their formats and their call signatures."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn


def random_inception(path: Path, seed: int = 0) -> Path:
    """Write an Inception state dict, scaled so that activations keep their size through the layers."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    network_class = module.FeatureExtractorInceptionV3
    with (
        mock.patch.object(network_class, "load_state_dict"),
        mock.patch.object(module, "load_state_dict_from_url"),
    ):
        network = network_class("inception", ["2048"])
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.1, generator=generator)
    torch.save(network.state_dict(), path)
    return path


class RandomI3D(nn.Module):
    """The signature of the I3D script: (B, 3, T, H, W) in 0..255 to (B, 400)."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(24, 400)

    def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
        if rescale:
            x = 2 * x / 255 - 1
        return self.head(nn.functional.adaptive_avg_pool3d(x, [2, 2, 2]).flatten(1))


def random_i3d(path: Path, seed: int = 0) -> Path:
    """Write a TorchScript file with the signature of the I3D network."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        torch.jit.save(torch.jit.script(RandomI3D()), str(path))
    return path


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
