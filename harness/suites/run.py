"""A training run of a suite: what `python -m harness.train` is given."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from models import ModelSpec, spec

if TYPE_CHECKING:
    from harness.diffusion.config import TrainConfig

Setting = str | int | float


def _is_small(data: str) -> bool:
    from harness.data import NAMED

    return data in NAMED


def task_spec(model: str, data: str, vae: str, chosen: Mapping[str, Any]) -> ModelSpec:
    """A model as it learns some data through an autoencoder, with `chosen` fields; no data is opened.

    Data by name have one channel, pictures three, latents four. Raises ValueError for an unknown model.
    """
    latent = vae != "identity"
    channels = 4 if latent else 1 if _is_small(data) else 3
    return spec(model, channels=channels, downsample=8 if latent else 1, **chosen)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training run: a preset with changes, kept at `milestones`. Equal runs are trained once.

    `further_decays` are of averages that it keeps beside its own.
    """

    preset: str
    model: str
    milestones: tuple[int, ...]
    seed: int = 0
    changes: tuple[tuple[str, Setting], ...] = ()
    further_decays: tuple[float, ...] = ()

    @cached_property
    def config(self) -> TrainConfig:
        """The resolved configuration. Raises ValueError for a change that no run can have."""
        from harness.diffusion.config import PRESETS

        changed: dict[str, Any] = dict(self.changes)
        config = dataclasses.replace(PRESETS[self.preset], model=self.model, seed=self.seed, **changed)
        return dataclasses.replace(config, steps=self.milestones[-1])

    @property
    def small(self) -> bool:
        """Whether its data goes by a name: small images or clips of one channel."""
        return _is_small(self.config.data)

    @property
    def spec(self) -> ModelSpec:
        """What is trained, without a look at the data."""
        config = self.config
        chosen = {name: getattr(config, name) for name in ("num_classes", "depth", "frames") if getattr(config, name)}
        return task_spec(config.model, config.data, config.vae, chosen)

    @property
    def name(self) -> str:
        """Distinguishes this run from any other: a changed setting is another name, hence another directory.

        Defaults are left out, so that a setting that is new to the harness renames no run.
        """
        config = self.config
        fields = [setting for setting in dataclasses.fields(config) if setting.name != "data"]
        settings = {f.name: getattr(config, f.name) for f in fields if getattr(config, f.name) != f.default}
        settings |= {"further_decays": self.further_decays} if self.further_decays else {}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        return f"{self.preset}-{self.model.replace('/', '-')}-seed{self.seed}-{digest[:8]}"

    def flags(self) -> list[str]:
        """What harness.train is given, beside `--data` and `--out`."""
        flags = ["--preset", self.preset, "--model", self.model, "--seed", str(self.seed)]
        for name, value in self.changes:
            flags += [f"--{name.replace('_', '-')}", str(value)]
        if self.further_decays:
            flags += ["--further-ema-decays", *map(str, self.further_decays)]
        return [*flags, "--steps", str(self.milestones[-1]), "--checkpoint-at", *map(str, self.milestones)]
