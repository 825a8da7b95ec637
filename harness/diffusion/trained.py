"""A denoiser ready to sample from, loaded from a checkpoint of ours or from a bare state dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch

from harness.data import AUTOENCODER
from harness.data.autoencoder import Autoencoder, Identity, StableDiffusion, digest_in
from harness.diffusion import checkpoint
from harness.diffusion.config import TrainConfig
from harness.diffusion.integrity import verified
from harness.diffusion.sample_config import IMAGENET_CLASSES, IMAGENET_RESOLUTION, SampleConfig, WeightsConfig
from models import create_model, load_weights, spec
from models.denoiser import Denoiser

GUIDED_CHANNELS = 3
"""Of an image, DiT's published choice; of a clip all are guided, as by Latte."""
NOT_OF_THE_WEIGHTS = ("spec", "classes", "images", "videos", "data", "vae", "steps", "sampling_steps", "provenance")
"""Of a run's configuration, what its weights at a given step do not follow from, or what states it twice."""


@dataclass(frozen=True)
class Trained:
    """A denoiser, its decoder, and where both come from, for the record.

    `training` is what its weights follow from, `spent` the seconds that their training took (both empty for a bare
    state dict).
    """

    model: Denoiser
    autoencoder: Autoencoder
    classes: list[str]
    origin: dict[str, Any]
    training: dict[str, Any]
    sampling_steps: int
    spent: dict[str, float] = field(default_factory=dict)

    def resolve(self, config: SampleConfig) -> SampleConfig:
        """`config` with nothing left open. Raises ValueError for a class that the model does not have."""
        spec = self.model.spec
        channels = config.cfg_channels
        if channels is None:
            channels = spec.channels if spec.frames else GUIDED_CHANNELS
        config.check_classes(spec.num_classes)
        return replace(config, steps=config.steps or self.sampling_steps, cfg_channels=channels)


def _latents(state: Mapping[str, Any], vae: str) -> dict[str, int]:
    """Channels of what a state dict's model denoises, and pixels a position: one where there is no autoencoder."""
    weights = next((state[key] for key in ("ema", "model") if isinstance(state.get(key), Mapping)), state)
    kernel = weights.get("x_embedder.proj.weight")
    channels = {"channels": kernel.shape[1]} if isinstance(kernel, torch.Tensor) and kernel.ndim == 4 else {}
    return {**channels, "downsample": 1 if vae == "identity" else 8}


def _average(where: Path, state: Mapping[str, Any], decay: float | None) -> Mapping[str, Any]:
    """The average of this decay of a checkpoint's, by default the run's own.

    Raises ValueError, with those that there are, for one that it does not keep.
    """
    own, further = state["config"].get("ema_decay"), state.get(checkpoint.FURTHER, {})
    if decay in (None, own):
        return cast(Mapping[str, Any], state["ema"])
    if decay not in further:
        kept = ", ".join(f"{one:g}" for one in (own, *sorted(further)) if one is not None)
        raise ValueError(f"{where} keeps no average of decay {decay:g}; choose from {kept}")
    return cast(Mapping[str, Any], further[decay])


def load_trained(where: Path, device: torch.device, weights: WeightsConfig | None = None) -> Trained:
    """A checkpoint of this trainer, the newest of a run directory, or a bare state dict such as DiT's official files.

    Model and configuration come from the checkpoint. A state dict states neither: `weights` does, and it decodes with
    Stable Diffusion's autoencoder unless `weights` names another. Raises ValueError for a missing, damaged or foreign
    file, naming the keys and shapes that differ; of a run directory whose newest checkpoint is damaged, no older one is
    taken instead.
    """
    weights = weights or WeightsConfig()
    if where.is_dir():
        found = checkpoint.find(where / "checkpoints" if (where / "checkpoints").is_dir() else where)
        if not found:
            raise ValueError(f"no checkpoint in {where}")
        where = found[-1]
    elif not where.is_file():
        raise ValueError(f"no such checkpoint: {where}")
    origin: dict[str, Any] = {"checkpoint": where.name, "sha256": verified(where)}
    training: dict[str, Any] = {}
    sampling_steps = TrainConfig.sampling_steps
    if weights.model is not None:
        resolution = weights.resolution or IMAGENET_RESOLUTION
        num_classes = weights.num_classes or IMAGENET_CLASSES
        state = checkpoint.load(where)
        if "format" in state:
            raise ValueError(f"{where} is a checkpoint of this trainer, which states its model: leave out --model")
        chosen = weights.vae or AUTOENCODER
        task = {"num_classes": num_classes, **_latents(state, chosen)}
        model = create_model(spec(weights.model, **task), resolution)
        load_weights(model, state)
        classes = [str(number) for number in range(num_classes)]
        origin |= {"model": model.spec.name, "resolution": resolution}
    else:
        state = checkpoint.open_verified(where, checkpoint.FOR_SAMPLING)
        config = state["config"]
        model = create_model(checkpoint.spec_of(config), config["resolution"])
        decay = weights.ema_decay
        load_weights(model, state["model"] if weights.weights == "raw" else _average(where, state, decay))
        chosen = weights.vae or config["vae"]
        classes = config["classes"]
        origin |= {"model": model.spec.name, "resolution": config["resolution"], "data": config["dataset"]}
        origin |= {"step": state["step"], "weights": weights.weights}
        training = {key: value for key, value in config.items() if key not in NOT_OF_THE_WEIGHTS}
        if decay not in (None, config.get("ema_decay")):
            origin["ema_decay"] = training["ema_decay"] = decay
        sampling_steps = config.get("sampling_steps", sampling_steps)
    of_pixels = model.spec.downsample == 1
    if of_pixels and chosen != "identity":
        raise ValueError(f"{where} draws pixels and needs no autoencoder: leave out --vae {chosen}")
    if chosen == "identity" and not of_pixels:
        raise ValueError(f"{where} draws latents, which --vae identity does not decode")
    autoencoder: Autoencoder = Identity() if chosen == "identity" else StableDiffusion(chosen, device)
    if autoencoder.downsample != model.spec.downsample:
        raise ValueError(f"{where} needs {model.spec.downsample} pixels a latent position, --vae {chosen} has another")
    learnt = digest_in(str(training.get("autoencoder", "")))
    if not weights.vae and learnt and digest_in(autoencoder.name) != learnt:
        both = f"{where} learnt latents of {training['autoencoder']}, and {autoencoder.name} has other weights"
        raise ValueError(f"{both}: give --vae WHERE")
    origin["autoencoder"] = autoencoder.name
    model = model.to(device).eval().requires_grad_(False)
    spent = {} if weights.model is not None else dict(state.get("spent") or {})
    return Trained(model, autoencoder, classes, origin, training, sampling_steps, spent)
