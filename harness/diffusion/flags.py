"""The flags that say what to sample from and how, shared by every door that draws samples."""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import fields
from typing import Any

from harness.core.command import positive
from harness.core.distributed import Ranks
from harness.diffusion.checkpoint import Trained, load_trained
from harness.diffusion.config import PRECISIONS
from harness.diffusion.generate import SampleConfig
from harness.diffusion.process import SAMPLERS


def add_sampling_flags(door: argparse._ActionsContainer) -> None:
    door.add_argument("--model", metavar="NAME", help="which model a bare state dict is of")
    door.add_argument("--resolution", type=positive, default=256, help="of a bare state dict (default: %(default)s)")
    door.add_argument("--num-classes", type=positive, default=1000, help="of a bare state dict (default: %(default)s)")
    door.add_argument("--weights", choices=("ema", "raw"), default="ema", help="default: %(default)s")
    door.add_argument("--vae", metavar="WHERE", help="where to load the autoencoder from, if not as in training")
    door.add_argument("--classes", nargs="+", default=["uniform"], help="uniform, balanced, or class numbers in turn")
    door.add_argument("--steps", type=positive, help="network evaluations (default: the preset's; 250 for ImageNet)")
    door.add_argument("--sampler", choices=SAMPLERS, default="ddpm", help="default: %(default)s")
    door.add_argument("--cfg-scale", type=float, default=1.5, help="1 is without guidance (default: %(default)s)")
    door.add_argument("--cfg-channels", type=int, help="channels guided (default: DiT's 3; of clips all, as Latte)")
    door.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: %(default)s")
    door.add_argument("--seed", type=int, default=0)


def open_sampling(asked: argparse.Namespace, here: Ranks) -> tuple[Trained, SampleConfig]:
    """What the flags and `asked.ckpt` name. Raises ValueError as `load_trained` and `SampleConfig` do."""
    classes: str | tuple[int, ...] = " ".join(asked.classes)
    with suppress(ValueError):
        classes = tuple(int(text) for text in asked.classes)
    names = {field.name for field in fields(SampleConfig)} - {"classes"}
    given = {name: value for name, value in vars(asked).items() if name in names and value is not None}
    SampleConfig(**given, classes=classes)  # before the slow part, what is impossible
    trained = load_trained(
        asked.ckpt, here.device, asked.weights, asked.model, asked.resolution, asked.num_classes, asked.vae
    )
    spec = trained.model.spec
    preset: dict[str, Any] = {"steps": trained.sampling_steps}
    if spec.frames:
        preset["cfg_channels"] = spec.channels
    config = SampleConfig(**{**preset, **given}, classes=classes)
    config.check_classes(spec.num_classes)
    return trained, config
