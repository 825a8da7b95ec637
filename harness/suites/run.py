"""What a comparison is made of: a training run, a score of one of its checkpoints, the row of a table that they fill.

A Run is what `python -m harness.train` is asked, a Score what `python -m harness.eval` is; a record answers a Score
when its weights and samples follow from the same settings.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.core.records import Record, ScoreRecord, of_kind
from harness.data import EMBEDDED
from harness.diffusion.config import PRESETS, TrainConfig
from models import ModelSpec, spec

Setting = str | int | float
OF_THE_WEIGHTS = {
    config_field.name
    for config_field in dataclasses.fields(TrainConfig)
    if config_field.name not in ("data", "vae", "steps", "sampling_steps")
}
"""The fields of a configuration that weights at a given step follow from."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training run: a preset with changes, kept at `milestones`. Equal runs are trained once."""

    preset: str
    model: str
    milestones: tuple[int, ...]
    seed: int = 0
    changes: tuple[tuple[str, Setting], ...] = ()

    @property
    def config(self) -> TrainConfig:
        """The resolved configuration. Raises ValueError for a change that no run can have."""
        changed: dict[str, Any] = dict(self.changes)
        config = dataclasses.replace(PRESETS[self.preset], model=self.model, seed=self.seed, **changed)
        return dataclasses.replace(config, steps=self.milestones[-1])

    @property
    def spec(self) -> ModelSpec:
        """What is trained, without a look at the data: embedded data has one channel, pictures three, latents four."""
        config = self.config
        latent = config.vae != "identity"
        chosen = {name: getattr(config, name) for name in ("depth", "frames") if getattr(config, name)}
        return spec(
            config.model,
            channels=4 if latent else 1 if config.data in EMBEDDED else 3,
            downsample=8 if latent else 1,
            num_classes=config.num_classes,
            **chosen,
        )

    @property
    def name(self) -> str:
        """Tells this run from any other: a changed setting is another name, hence another directory.

        Defaults are left out, so that a setting that is new to the harness renames no run.
        """
        config = self.config
        fields = [setting for setting in dataclasses.fields(config) if setting.name != "data"]
        settings = {f.name: getattr(config, f.name) for f in fields if getattr(config, f.name) != f.default}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        return f"{self.preset}-{self.model.replace('/', '-')}-seed{self.seed}-{digest[:8]}"

    def flags(self) -> list[str]:
        """What harness.train is given, beside `--data` and `--out`."""
        flags = ["--preset", self.preset, "--model", self.model, "--seed", str(self.seed)]
        for name, value in self.changes:
            flags += [f"--{name.replace('_', '-')}", str(value)]
        return [*flags, "--steps", str(self.milestones[-1]), "--checkpoint-at", *map(str, self.milestones)]


@dataclass(frozen=True, kw_only=True)
class Score:
    """Metrics of one milestone of a run, on samples drawn with the run's own seed. `ref` as in harness.eval."""

    run: Run
    step: int
    metrics: tuple[str, ...]
    cfg_scale: float
    sampling_steps: int
    ref: str | None = None

    def flags(self) -> list[str]:
        """What harness.eval is given, beside `--ckpt`, `--ref` and `--records`.

        The smallest models repeat themselves, and a comparison that left out its worst would flatter their family.
        """
        sampling = ["--cfg-scale", str(self.cfg_scale), "--steps", str(self.sampling_steps)]
        copies = ["--max-duplicates", "1"] if self.run.config.data in EMBEDDED else []
        return ["--metric", *self.metrics, *sampling, "--seed", str(self.run.seed), *copies]

    @property
    def samples(self) -> int:
        """How many are drawn: the largest count that a metric's name asks for."""
        counts = [re.match(r"[a-z]+(\d+)(k?)", metric) for metric in self.metrics]
        return max(int(count[1]) * (1000 if count[2] else 1) for count in counts if count)

    def asks_for(self, record: ScoreRecord) -> bool:
        """Whether a record, a failure too, is of one of these metrics on these samples of these weights."""
        training, sampling = record.get("training"), record.get("sampling")
        if not training or not sampling:
            return False
        if (training.get("model"), training.get("seed")) != (self.run.model, self.run.seed):
            return False  # as most do, and the rest takes longer to compare
        ours = dataclasses.asdict(self.run.config)
        defaults = {f.name: f.default for f in dataclasses.fields(TrainConfig)}
        drawn: dict[str, Setting] = {"cfg_scale": self.cfg_scale, "steps": self.sampling_steps, "seed": self.run.seed}
        drawn |= {"sampler": "ddpm", "classes": "uniform", "precision": "fp32", "weights": "ema"}
        return (
            record.get("metric") in self.metrics
            and record.get("step") == self.step
            and all(training.get(name, defaults[name]) == ours[name] for name in OF_THE_WEIGHTS)
            and all(sampling.get(name) == value for name, value in drawn.items())
        )

    def is_answered_by(self, record: ScoreRecord) -> bool:
        """Whether a record gives a value of one of these metrics on these samples."""
        return record.verdict == "ok" and self.asks_for(record)

    def missing(self, records: Iterable[Record]) -> list[str]:
        """The metrics that no record gives a value of."""
        found = {record.get("metric") for record in of_kind(records, ScoreRecord) if self.is_answered_by(record)}
        return [metric for metric in self.metrics if metric not in found]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table: the key of the published row beside it, if any, and the scores that fill it, one a seed.

    Rows of one table with equal `contest` and different `family` are compared. `variant` says how a DiM was made
    comparable ("matched": equal parameters; "equal-macs"), or "+IMG" for joint image-video training.
    """

    table: int
    label: str
    family: str
    contest: str
    scores: tuple[Score, ...]
    published: Mapping[str, str] | None = None
    variant: str = ""
