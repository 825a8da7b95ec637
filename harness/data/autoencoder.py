"""Pixels to latents and back: the identity, and Stable Diffusion's autoencoder through diffusers.

An autoencoder is three functions over (B, [T,] C, H, W), a clip being so many images: `moments` of the posterior over
latents, `sample` of a latent from moments and given noise, `decode`. Images are float32 in [-1, 1].
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.data import AUTOENCODER

SCALE = 0.18215
"""Latents are multiplied by this, so that they have about unit variance (Rombach et al., arXiv 2112.10752; DiT)."""
WEIGHTS = "diffusion_pytorch_model.safetensors"


class Autoencoder(Protocol):
    name: str  # goes into every record, with a digest of the weights: decoders differ, and metrics with them
    downsample: int

    def moments(self, images: Tensor) -> Tensor: ...
    def sample(self, moments: Tensor, noise: Tensor) -> Tensor: ...
    def decode(self, latents: Tensor) -> Tensor: ...


class Identity:
    """Pixel space: a latent is the image."""

    name = "identity"
    downsample = 1

    def moments(self, images: Tensor) -> Tensor:
        return images

    def sample(self, moments: Tensor, noise: Tensor) -> Tensor:
        return moments

    def decode(self, latents: Tensor) -> Tensor:
        return latents


def sample_latents(moments: Tensor, noise: Tensor) -> Tensor:
    """Scaled latents (..., 4, h, w) from moments (..., 8, h, w), mean and log variance, and noise (..., 4, h, w)."""
    mean, log_variance = moments.chunk(2, dim=-3)
    return SCALE * (mean + (0.5 * log_variance.clamp(-30, 20)).exp() * noise)


class StableDiffusion:
    """Stable Diffusion's `AutoencoderKL`: 8 pixels a latent position, 4 channels, scale 0.18215.

    `where` is a local directory in diffusers' layout or a hub name, and may end in `#` and how the sha256 of the
    weights begins, as `name` does. Raises ValueError for other weights, and for a missing file with where to get it and
    which flag points at it.
    """

    downsample = 8

    def __init__(self, where: str = AUTOENCODER, device: torch.device | str = "cpu") -> None:
        claimed = ""
        if not Path(where).expanduser().is_dir():
            where, _, claimed = where.partition("#")
        path = Path(where).expanduser()
        advice = (
            f"download config.json and {WEIGHTS} from hf.co/{AUTOENCODER} into a directory "
            "and point at it with --vae DIRECTORY"
        )
        if path.is_dir():
            missing = [name for name in ("config.json", WEIGHTS) if not (path / name).is_file()]
            if missing:
                raise ValueError(f"no {' and no '.join(missing)} in {where}: {advice}")
        elif where.startswith(("/", ".", "~")):
            raise ValueError(f"no autoencoder at {where!r}: {advice}")
        try:
            from diffusers import AutoencoderKL
        except ImportError as error:
            raise ValueError("the autoencoder needs diffusers: pip install 'dim-vs-dit[vae]'") from error
        try:
            model, found = AutoencoderKL.from_pretrained(  # type: ignore[no-untyped-call]
                where, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
            )
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot load the autoencoder {where!r}: {advice}") from error
        except RuntimeError as error:  # weights of other shapes than the configuration states
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"weights of the autoencoder {where!r} do not fit its config.json: {reason}") from error
        if absent := sorted(found["missing_keys"]):  # which diffusers fills with random values
            raise ValueError(f"the autoencoder {where!r} lacks {len(absent)} tensors, {absent[0]} among them: {advice}")
        self.model: Any = model.eval().requires_grad_(False).to(device)
        digest = _digest(self.model)
        if not digest.startswith(claimed):
            raise ValueError(f"the autoencoder {where!r} has weights of sha256 {digest[:8]}, not {claimed}")
        self.name = f"{path.name if path.is_dir() else where}#{digest[:8]}"
        self.downsample = 2 ** (len(self.model.config.block_out_channels) - 1)

    @torch.no_grad()
    def moments(self, images: Tensor) -> Tensor:
        moments: Tensor = self.model.encode(images.flatten(0, -4)).latent_dist.parameters
        return moments.reshape(*images.shape[:-3], *moments.shape[1:])

    def sample(self, moments: Tensor, noise: Tensor) -> Tensor:
        return sample_latents(moments, noise)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        images: Tensor = self.model.decode(latents.flatten(0, -4) / SCALE).sample
        return images.reshape(*latents.shape[:-3], *images.shape[1:])


def digest_in(name: str) -> str:
    """The digest of the weights that a name states, "sd-vae-ft-ema#1a2b3c4d"; empty where there are none."""
    return name.partition("#")[2]


def _digest(model: Any) -> str:
    """The sha256 of a network's weights, whatever file they come from."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class Cached:
    """The encoder's half of an autoencoder whose moments are already on disk: no network in memory."""

    def __init__(self, name: str, downsample: int) -> None:
        self.name, self.downsample = name, downsample

    def moments(self, images: Tensor) -> Tensor:
        return images

    def sample(self, moments: Tensor, noise: Tensor) -> Tensor:
        return sample_latents(moments, noise)

    def decode(self, latents: Tensor) -> Tensor:
        raise ValueError(f"a latent cache holds no decoder; load {self.name} to decode")
