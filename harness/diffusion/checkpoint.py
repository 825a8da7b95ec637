"""Checkpoints: written whole or not at all, plain tensors and containers only, the last good one never touched.

`step-0001000.pt` are kept two at a time, `milestone-0001000.pt` for good. Each holds `format`, `config`, `step`,
`model`, `ema` and `optimizer`; random state needs none, being a function of seed and step (harness.core.seeds).
"""

from __future__ import annotations

import pickle
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from harness.core.files import sha256, write_atomically
from harness.data import AUTOENCODER
from harness.data.autoencoder import Autoencoder, Identity, StableDiffusion
from harness.diffusion.config import TrainConfig
from harness.diffusion.sample_config import IMAGENET_CLASSES, IMAGENET_RESOLUTION, SampleConfig, WeightsConfig
from models import ModelSpec, create_model, load_weights
from models.denoiser import Denoiser

FORMAT = 1
KEPT = 2
GUIDED_CHANNELS = 3
"""Of an image, DiT's published choice; of a clip all are guided, as by Latte."""
NOT_OF_THE_WEIGHTS = ("spec", "classes", "images", "videos", "data", "vae", "steps", "sampling_steps", "provenance")
"""Of a run's configuration, what its weights at a given step do not follow from, or what says it twice."""


def save(directory: Path, state: dict[str, Any], milestone: bool = False) -> Path:
    """Write a checkpoint, then drop the rolling ones beyond the last two. Raises OSError, naming what is left."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{'milestone' if milestone else 'step'}-{state['step']:07d}.pt"
    try:
        write_atomically(path, lambda file: torch.save({"format": FORMAT, **state}, file))
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a failed write into a RuntimeError
        cause = error if isinstance(error, OSError) else error.__context__ or error
        left = find(directory)
        good = f"the last good checkpoint is {left[-1]}" if left else "there is no earlier checkpoint"
        raise OSError(f"cannot write {path}: {cause}; {good}") from error
    for old in sorted(directory.glob("step-*.pt"))[:-KEPT]:
        old.unlink()
    return path


def find(directory: Path) -> list[Path]:
    """The checkpoints of a run, oldest first, readable or not."""
    numbered = [(re.fullmatch(r"(?:step|milestone)-(\d+)\.pt", path.name), path) for path in directory.glob("*.pt")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in numbered if match)]


def read(path: Path) -> dict[str, Any]:
    """One checkpoint, on the CPU. Raises ValueError, naming the file, when it is damaged or not one of these."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"cannot read the checkpoint {path}: {reason}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of this trainer; for a bare state dict say which --model it is")
    return state


def latest(directory: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that can be read; damaged ones are skipped, each named in a warning."""
    for path in reversed(find(directory)):
        try:
            return path, read(path)
        except ValueError as error:
            warnings.warn(f"skipped: {error}", stacklevel=2)
    return None


@dataclass(frozen=True)
class Trained:
    """A denoiser ready to sample from, its decoder, and where both come from, for the record.

    `training` is what its weights follow from (empty for a bare state dict).
    """

    model: Denoiser
    autoencoder: Autoencoder
    classes: list[str]
    origin: dict[str, Any]
    training: dict[str, Any]
    sampling_steps: int

    def resolve(self, config: SampleConfig) -> SampleConfig:
        """`config` with nothing left open. Raises ValueError for a class that the model does not have."""
        spec = self.model.spec
        channels = config.cfg_channels
        if channels is None:
            channels = spec.channels if spec.frames else GUIDED_CHANNELS
        config.check_classes(spec.num_classes)
        return replace(config, steps=config.steps or self.sampling_steps, cfg_channels=channels)


def load_trained(where: Path, device: torch.device, weights: WeightsConfig | None = None) -> Trained:
    """A checkpoint of this trainer, the newest of a run directory, or a bare state dict such as DiT's official files.

    Model and configuration come from the checkpoint. A state dict states neither: `weights` does, and it decodes with
    Stable Diffusion's autoencoder. Raises ValueError for a missing, damaged or foreign file, naming the keys and shapes
    that differ.
    """
    weights = weights or WeightsConfig()
    if where.is_dir():
        found = latest(where / "checkpoints" if (where / "checkpoints").is_dir() else where)
        if found is None:
            raise ValueError(f"no checkpoint in {where}")
        where = found[0]
    elif not where.is_file():
        raise ValueError(f"no such checkpoint: {where}")
    origin: dict[str, Any] = {"checkpoint": where.name, "sha256": sha256(where)}
    training: dict[str, Any] = {}
    sampling_steps = TrainConfig.sampling_steps
    if weights.model is not None:
        resolution = weights.resolution or IMAGENET_RESOLUTION
        num_classes = weights.num_classes or IMAGENET_CLASSES
        model = create_model(weights.model, resolution, num_classes=num_classes)
        load_weights(model, where)
        chosen = weights.vae or AUTOENCODER
        classes = [str(number) for number in range(num_classes)]
        origin |= {"model": model.spec.name, "resolution": resolution}
    else:
        state = read(where)
        config = state["config"]
        model = create_model(ModelSpec(**config["spec"]), config["resolution"])
        load_weights(model, state[{"ema": "ema", "raw": "model"}[weights.weights]])
        chosen = weights.vae or config["vae"]
        classes = config["classes"]
        origin |= {"model": model.spec.name, "resolution": config["resolution"], "data": config["dataset"]}
        origin |= {"step": state["step"], "weights": weights.weights}
        training = {key: value for key, value in config.items() if key not in NOT_OF_THE_WEIGHTS}
        sampling_steps = config.get("sampling_steps", sampling_steps)
    autoencoder: Autoencoder = Identity() if chosen == "identity" else StableDiffusion(chosen, device)
    if autoencoder.downsample != model.spec.downsample:
        raise ValueError(f"{where} needs {model.spec.downsample} pixels a latent position, --vae {chosen} has another")
    origin["autoencoder"] = autoencoder.name
    model = model.to(device).eval().requires_grad_(False)
    return Trained(model, autoencoder, classes, origin, training, sampling_steps)
