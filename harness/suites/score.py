"""A score of one checkpoint of a run: what `python -m harness.eval` is given, and which records answer it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from harness.core.provenance import Provenance
from harness.core.records import Record, ScoreRecord, of_kind
from harness.suites.run import Run, Setting

REDRAW = 1000
"""Between the seeds of two draws of one run: more than there are training seeds."""
NOT_OF_THE_WEIGHTS = ("data", "vae", "steps", "sampling_steps")
"""Fields of a configuration that weights at a given step do not follow from."""


@cache
def of_the_weights() -> dict[str, Any]:
    """The fields of a configuration that weights at a given step follow from, with their defaults."""
    from harness.diffusion.config import TrainConfig

    return {f.name: f.default for f in dataclasses.fields(TrainConfig) if f.name not in NOT_OF_THE_WEIGHTS}


def is_part(named: str, recorded: str) -> bool:
    """Whether a record names a part of a data set, by its name or by the folder of its files: "FOLDER:part"."""
    from harness.data import is_named

    part = named.partition(":")[2]
    return recorded == named or (bool(part) and not is_named(recorded) and recorded.endswith(f":{part}"))


@dataclass(frozen=True, kw_only=True)
class Score:
    """Metrics of one milestone of a run. `ref` as in harness.eval.

    `ema_decay` is of one of the run's further averages, where it is not its own that is scored. Samples are drawn with
    the run's own seed, or with another, where `redraw` counts further draws of one run. `bootstrap` is how many
    resamples an error bar has, where that is not the command's own number. `protocol` are the fields of a
    harness.metrics.ClipProtocol that are not its defaults.
    """

    run: Run
    step: int
    metrics: tuple[str, ...]
    cfg_scale: float
    sampling_steps: int
    ref: str | None = None
    redraw: int = 0
    bootstrap: int | None = None
    sampler: str = "ddpm"
    protocol: tuple[tuple[str, Setting], ...] = ()
    ema_decay: float | None = None

    @property
    def sample_seed(self) -> int:
        """Of the samples: no two of a suite's runs share one."""
        return self.run.seed + REDRAW * self.redraw

    def flags(self) -> list[str]:
        """What harness.eval is given, beside `--ckpt`, `--ref` and `--records`.

        The smallest models repeat themselves, and a comparison that left out its worst would flatter their family.
        """
        sampling = ["--cfg-scale", str(self.cfg_scale), "--steps", str(self.sampling_steps)]
        sampling += ["--sampler", self.sampler] if self.sampler != "ddpm" else []
        sampling += [] if self.ema_decay is None else ["--ema-decay", str(self.ema_decay)]
        copies = ["--max-duplicates", "1"] if self.run.small else []
        bars = [] if self.bootstrap is None else ["--bootstrap", str(self.bootstrap)]
        clips = [part for name, value in self.protocol for part in (f"--{name.replace('_', '-')}", str(value))]
        return ["--metric", *self.metrics, *sampling, "--seed", str(self.sample_seed), *copies, *bars, *clips]

    @property
    def sampling(self) -> dict[str, Setting]:
        """How the samples are drawn, as it stands in a record."""
        drawn: dict[str, Setting] = {"cfg_scale": self.cfg_scale, "steps": self.sampling_steps}
        drawn["seed"] = self.sample_seed
        return drawn | {"sampler": self.sampler, "classes": "uniform", "precision": "fp32", "weights": "ema"}

    @property
    def training(self) -> dict[str, Any]:
        """What the weights follow from, as it stands in a record."""
        training = {name: getattr(self.run.config, name) for name in of_the_weights()}
        return training if self.ema_decay is None else training | {"ema_decay": self.ema_decay}

    @property
    def samples(self) -> int:
        """How many are drawn: the largest count that a metric's name has."""
        counts = [re.match(r"[a-z]+(\d+)(k?)", metric) for metric in self.metrics]
        return max(int(count[1]) * (1000 if count[2] else 1) for count in counts if count)

    def matches(self, record: ScoreRecord) -> bool:
        """Whether a record, a failure too, is of one of these metrics on these samples of these weights."""
        training, sampling = record.get("training"), record.get("sampling")
        if not training or not sampling:
            return False
        if (training.get("model"), training.get("seed")) != (self.run.model, self.run.seed):
            return False  # as most do, and the rest takes longer to compare
        of_this = self.training
        return (
            record.get("metric") in self.metrics
            and record.get("step") == self.step
            and self._refers_to(record)
            and all(record.get(name) == value for name, value in self.protocol)
            and all(training.get(name, default) == of_this[name] for name, default in of_the_weights().items())
            and all(sampling.get(name) == value for name, value in self.sampling.items())
        )

    def _refers_to(self, record: ScoreRecord) -> bool:
        """Whether a record may be of this reference: files lie where they lie, a data set by name is one alone."""
        from harness.data import is_named

        recorded = record.get("reference")
        return self.ref is None or not is_named(self.ref) or recorded is None or is_part(self.ref, recorded)

    def is_answered_by(self, record: ScoreRecord) -> bool:
        """Whether a record gives a value of one of these metrics on these samples."""
        return record.verdict == "ok" and self.matches(record)

    def diverged(self, reason: str) -> list[ScoreRecord]:
        """Records that there is nothing to score, since the training diverged."""
        from harness.metrics.recipes import parse  # it imports numpy

        workload = {
            "model": self.run.model, "step": self.step, "reference": self.ref, **dict(self.protocol),
            "training": self.training, "sampling": self.sampling,
        }  # fmt: skip
        return [
            ScoreRecord(
                quantity=recipe.distance.name, value=None, unit="1", method=recipe.name, verdict="error",
                workload={**workload, "metric": recipe.name}, provenance=Provenance.here(), note=reason,
            )
            for recipe in parse(self.metrics)
        ]  # fmt: skip

    def missing(self, records: Iterable[Record]) -> list[str]:
        """The metrics that no record gives a value of, or says why there is none."""
        found = {
            record.get("metric")
            for record in of_kind(records, ScoreRecord)
            if record.verdict in ("ok", "error") and self.matches(record)
        }
        return [metric for metric in self.metrics if metric not in found]
