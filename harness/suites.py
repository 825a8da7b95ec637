"""A comparison as data: which runs are trained, which of their checkpoints are scored how, and which cell that fills.

`suite("digits")` is a frozen list of table rows. A row has one Score a seed, a Score belongs to a Run, and a Run is
what `python -m harness.train` is asked: so every cell of every table names the commands that fill it, and a record
of harness.eval answers a Score when its weights and samples follow from the same settings.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.presets import PRESETS, TrainConfig
from models import ModelSpec, spec

EMBEDDED = ("digits", "moving-digits")
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
        """What harness.eval is given, beside `--ckpt`, `--ref` and `--records`."""
        sampling = ["--cfg-scale", str(self.cfg_scale), "--steps", str(self.sampling_steps)]
        return ["--metric", *self.metrics, *sampling, "--seed", str(self.run.seed)]

    @property
    def samples(self) -> int:
        """How many are drawn: the largest count that a metric's name asks for."""
        counts = [re.match(r"[a-z]+(\d+)(k?)", metric) for metric in self.metrics]
        return max(int(count[1]) * (1000 if count[2] else 1) for count in counts if count)

    def answers(self, record: Mapping[str, Any]) -> bool:
        """Whether a record (a row of harness.store.load) is a value of one of these metrics on these samples."""
        training, sampling = record.get("training"), record.get("sampling")
        if not isinstance(training, dict) or not isinstance(sampling, dict) or record["verdict"] != "ok":
            return False
        if (training.get("model"), training.get("seed")) != (self.run.model, self.run.seed):
            return False  # as most do, and the rest costs more to compare
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

    def missing(self, records: Iterable[Mapping[str, Any]]) -> list[str]:
        """The metrics that no record answers."""
        found = {record["metric"] for record in records if self.answers(record)}
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


@dataclass(frozen=True)
class Suite:
    name: str
    title: str
    rows: tuple[Row, ...]
    seeds: int
    shown: tuple[Score, ...] = ()  # whose samples are put on a contact sheet

    def scores(self, tables: Iterable[int] | None = None) -> Iterator[Score]:
        """Each score once, in order of need: what the paper compares, then equal parameters, then equal cost."""
        wanted = [row for row in self.rows if tables is None or row.table in tables]
        ordered = [
            score
            for variants in (("", "+IMG"), ("matched",), ("equal-macs",))
            for seed in range(self.seeds)
            for row in wanted
            for score in row.scores[seed : seed + 1]
            if row.variant in variants
        ]
        return iter(dict.fromkeys(ordered))

    def runs(self, tables: Iterable[int] | None = None) -> dict[Run, list[Score]]:
        """Every run with the scores that need it, in order of need. A run keeps the milestones of the whole suite."""
        grouped: dict[Run, list[Score]] = {}
        for score in self.scores(tables):
            grouped.setdefault(score.run, []).append(score)
        return grouped


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What turns the paper's image tables into a suite: the sizes that stand for its own, and how each is scored.

    `sizes` and `milestones` map the paper's (S, B, L, XL; training steps) to this suite's; `patch` stands for the
    paper's 4 where only one is compared, and `patches` are those of Table 5; `equal_macs` is the depth at which a DiM
    of that size and patch costs a DiT's multiply-adds.
    """

    preset: str
    sizes: Mapping[str, str]
    patch: int
    patches: tuple[int, ...]
    milestones: Mapping[int, int]
    metrics: tuple[str, ...]
    sampling_steps: int
    seeds: int
    changes: tuple[tuple[str, Setting], ...] = ()
    equal_macs: Mapping[str, int] = field(default_factory=dict)
    ref: str | None = None


def image_suite(name: str, title: str, scale: Scale) -> Suite:
    """Tables 2, 5, 6 and 7 at a scale, and Figure 1's curves: each size of both families at each milestone.

    The paper prints no DiT in Tables 5 and 6; they are trained here all the same, or nothing could be compared.
    """
    last = max(scale.milestones)
    rows = []

    def row(table: int, size: str, patch: int, paper_step: int, cfg: float, contest: str, family: str, variant: str):
        ours = f"{scale.sizes[size]}/{patch}"
        model = f"{family}-{ours}" + ("-matched" if variant == "matched" else "")
        depth: tuple[tuple[str, Setting], ...] = ()
        if variant == "equal-macs":
            if spec(f"DiM-{ours}-matched").depth == scale.equal_macs[ours]:
                model += "-matched"  # equal in both: one run serves
            else:
                depth = (("depth", scale.equal_macs[ours]),)
        step = scale.milestones[paper_step]
        scores = tuple(
            Score(
                run=Run(
                    preset=scale.preset,
                    model=model,
                    milestones=tuple(scale.milestones.values()),
                    seed=seed,
                    changes=scale.changes + depth,
                ),
                step=step,
                metrics=scale.metrics,
                cfg_scale=cfg,
                sampling_steps=scale.sampling_steps,
                ref=scale.ref,
            )
            for seed in range(scale.seeds)
        )
        published = {"model": f"{family}-{size}/{patch if table == 5 else 4}"}
        if table in (2, 7):
            published |= {"steps": str(paper_step), "cfg": str(cfg)}
        in_paper = not variant and (table in (2, 7) or (table in (5, 6) and family == "DiM"))
        said = {2: f" at {step:,} steps", 7: f", guidance {cfg:g}"}.get(table, "")
        label = f"{model}{f' of depth {depth[0][1]}' if depth else ''}{said}"
        rows.append(
            Row(
                table=table,
                label=label,
                family=family,
                contest=contest,
                scores=scores,
                published=published if in_paper else None,
                variant=variant,
            )
        )

    def contest(table: int, size: str, patch: int, paper_step: int, cfg: float, name: str) -> None:
        """DiT, DiM at the paper's depth, DiM at equal parameters and, where a depth is known, at equal cost."""
        contestants = [("DiT", ""), ("DiM", ""), ("DiM", "matched")]
        if f"{scale.sizes[size]}/{patch}" in scale.equal_macs:
            contestants.append(("DiM", "equal-macs"))
        for family, variant in contestants:
            row(table, size, patch, paper_step, cfg, name, family, variant)

    for paper_step, step in scale.milestones.items():
        contest(2, "B", scale.patch, paper_step, 1.5, f"{step:,} steps")
    for cfg in (1.0, 1.5):
        contest(7, "B", scale.patch, last, cfg, f"guidance {cfg:g}")
    for size in scale.sizes:
        contest(6, size, scale.patch, last, 1.5, f"size {scale.sizes[size]}")
    for patch in scale.patches:
        contest(5, "B", patch, last, 1.5, f"patch {patch}")
    for size in scale.sizes:  # Figure 1
        for paper_step, step in scale.milestones.items():
            for family in ("DiT", "DiM"):
                row(1, size, scale.patch, paper_step, 1.5, f"size {scale.sizes[size]}, {step:,} steps", family, "")
    largest = rows[-2:]  # both families at the last milestone of the last size
    return Suite(name, title, tuple(rows), scale.seeds, tuple(row.scores[0] for row in largest))


def video_rows(
    preset: str, size: str, steps: int, metrics: tuple[str, ...], cfg_scale: float, sampling_steps: int,
    seeds: int, joint_images: int, ref: str | None = None,
) -> tuple[Row, ...]:  # fmt: skip
    """Table 3's last four rows: both families over clips, alone and with single frames learnt beside them."""
    rows = []
    for images, extra in ((0, ""), (joint_images, "+IMG")):
        for family, printed in (("DiT", "Latte"), ("DiM", "DiM")):
            changes: tuple[tuple[str, Setting], ...] = (("joint_images", images),) if images else ()
            runs = [
                Run(preset=preset, model=f"{family}-{size}-video", milestones=(steps,), seed=seed, changes=changes)
                for seed in range(seeds)
            ]
            scores = tuple(
                Score(run=run, step=steps, metrics=metrics, cfg_scale=cfg_scale, sampling_steps=sampling_steps, ref=ref)
                for run in runs
            )
            rows.append(
                Row(
                    table=3,
                    label=f"{family}-{size}-video{extra}",
                    family=family,
                    contest=f"clips{extra}",
                    scores=scores,
                    published={"method": printed + extra},
                    variant=extra,
                )
            )
    return tuple(rows)


DIGITS_METRICS = ("fd500@digits", "is500@digits", "pr500@digits")
ADM_METRICS = ("fid50k", "sfid50k", "is50k", "pr50k")

SCALES: dict[str, tuple[str, Scale]] = {
    "smoke": (
        "a few steps of the smallest models: that everything runs, not how well",
        Scale(
            preset="digits",
            sizes={"B": "P"},
            patch=4,
            patches=(4,),
            milestones={200_000: 4, 400_000: 8},
            metrics=("fd128@digits", "is128@digits", "pr128@digits"),
            sampling_steps=4,
            seeds=2,
            changes=(("resolution", 16), ("batch", 16)),
        ),
    ),
    "digits": (
        "scikit-learn's digits, 8 pixels a side, four small sizes of the paper's depth ratios, on a CPU",
        Scale(
            preset="digits",
            sizes={"S": "P", "B": "N", "L": "U", "XL": "M"},
            patch=2,
            patches=(8, 4, 2),  # 1, 4 and 16 tokens: at patch 8 neither mixer has anything to mix, which is a control
            milestones={100_000: 500, 200_000: 1000, 300_000: 1500, 400_000: 2000},
            metrics=DIGITS_METRICS,
            sampling_steps=25,
            seeds=3,
            changes=(("batch", 16), ("learning_rate", 3e-3)),
            equal_macs={"P/2": 1, "N/8": 2, "N/4": 2, "N/2": 2, "U/2": 4, "M/2": 4},
        ),
    ),
    "digits-gpu": (
        "the same ladder with larger models, five seeds and ten times the training, for a card at hand",
        Scale(
            preset="digits",
            sizes={"S": "N", "B": "T", "L": "S", "XL": "B"},
            patch=4,
            patches=(8, 4, 2),
            milestones={100_000: 2500, 200_000: 5000, 300_000: 7500, 400_000: 10_000},
            metrics=DIGITS_METRICS,
            sampling_steps=250,
            seeds=5,
            changes=(("resolution", 16),),
        ),
    ),
    "paper": (
        "ImageNet at 256 pixels and UCF-101, as in section 4",
        Scale(
            preset="imagenet256",
            sizes={size: size for size in ("S", "B", "L", "XL")},
            patch=4,
            patches=(8, 4, 2),
            milestones={step: step for step in (100_000, 200_000, 300_000, 400_000)},
            metrics=ADM_METRICS,
            sampling_steps=250,
            seeds=1,
            ref="VIRTUAL_imagenet256_labeled.npz",
        ),
    ),
}


MOVING_DIGITS = video_rows(
    "moving-digits", "N/4", 2000, ("fvd1k@moving-digits", "accuracy1k@moving-digits", "motion1k@moving-digits"),
    cfg_scale=1.5, sampling_steps=50, seeds=1, joint_images=8,
)  # fmt: skip
UCF101 = video_rows(
    "ucf101", "XL/2", 1_000_000, ("fvd2048_16f",), cfg_scale=7.0, sampling_steps=250, seeds=1, joint_images=8,
    ref="ucf101",
)  # fmt: skip
"""Latte's guidance and its longest training: the paper states neither for its own."""

SUITES = (*SCALES, "moving-digits")


def suite(name: str) -> Suite:
    """A suite by name. Raises ValueError with the choices."""
    if name == "moving-digits":
        shown = tuple(row.scores[0] for row in MOVING_DIGITS)
        return Suite(name, "scikit-learn's digits in motion, on a CPU", MOVING_DIGITS, 1, shown)
    if name not in SCALES:
        raise ValueError(f"unknown suite {name!r}; choose from {', '.join(SUITES)}")
    images = image_suite(name, *SCALES[name])
    return dataclasses.replace(images, rows=images.rows + UCF101) if name == "paper" else images
