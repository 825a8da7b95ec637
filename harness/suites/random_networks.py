"""Networks of random weights in place of published ones, in their formats and by their call signatures.

Inception is the whole network; the autoencoder has Stable Diffusion's four levels, each eight channels wide; I3D is its
script's signature alone.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn


def random_autoencoder(folder: Path) -> Path:
    """An AutoencoderKL in diffusers' layout. Raises ValueError without diffusers."""
    try:
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise ValueError("the autoencoder needs diffusers: pip install 'dim-vs-dit[vae]'") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = AutoencoderKL(  # type: ignore[no-untyped-call]
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8,) * 4, norm_num_groups=4, latent_channels=4, sample_size=64,
        )  # fmt: skip
    model.save_pretrained(folder)
    return folder


def random_inception(path: Path, seed: int = 0) -> Path:
    """An Inception state dict, scaled so that activations keep their size through the layers.

    Raises ValueError without torch-fidelity.
    """
    try:
        from torch_fidelity import feature_extractor_inceptionv3 as module
    except ImportError as error:
        raise ValueError("Inception metrics need torch-fidelity: pip install torch-fidelity") from error
    kind = module.FeatureExtractorInceptionV3
    with mock.patch.object(kind, "load_state_dict"), mock.patch.object(module, "load_state_dict_from_url"):
        network = kind("inception", ["2048"])
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

    def forward(self, x: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        if rescale:
            x = 2 * x / 255 - 1
        pooled = nn.functional.adaptive_avg_pool3d(x, (2, 2, 2)).flatten(1)
        features: Tensor = self.head(pooled)
        return features


def random_i3d(path: Path, seed: int = 0) -> Path:
    """A TorchScript file of a RandomI3D."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of TorchScript's retirement: the published file is one
        torch.manual_seed(seed)
        torch.jit.save(torch.jit.script(RandomI3D()), str(path))
    return path
