"""What a suite fixes once: of the paper's image tables at a scale, and of its table of clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from harness.core.paper import CHALLENGER
from harness.suites.rows import Floor
from harness.suites.run import Run, Setting
from harness.suites.score import Score
from harness.suites.tuning import Tuning

PATCH, GUIDANCE, UNGUIDED = 4, 1.5, 1.0
"""The paper's patch where it compares one, its guidance, and none."""
MATCHED = "matched"
"""The variant of equal parameters."""
Changes = tuple[tuple[str, Setting], ...]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What all scores of a suite share: what is trained, how it is sampled, and what it is scored by.

    Each of the `seeds` training seeds is sampled from `draws` times. `guidance` is that of every row, or with `tuning`
    the one at which settings are tried: then each family has settings of its own, and `order` says which models ("N/4":
    size and patch) are wanted first. `protocol` is how clips are cut, where that is not the metric's default.
    """

    preset: str
    metrics: tuple[str, ...]
    sampling_steps: int
    seeds: int
    changes: Changes = ()
    ref: str | None = None
    draws: int = 1
    bootstrap: int | None = None
    sampler: str = "ddpm"
    guidance: float = GUIDANCE
    protocol: Changes = ()
    tuning: Tuning | None = None
    order: tuple[str, ...] = ()
    floor: Floor | None = None

    kind: ClassVar[str] = ""
    """What names of its models end in."""

    @property
    def kept_steps(self) -> tuple[int, ...]:
        """The training steps that are scored, in order."""
        raise NotImplementedError

    def place(self, model: str, family: str = "") -> int:
        """How early a model is wanted: an even number, so that something may stand between two, or behind all.

        Of the families beside the two that are compared the first comes there, and each further one after all else.
        """
        others = list(self.tuning.others) if self.tuning else []
        if family in others:
            behind = 2 * len(self.order)
            return 4 * behind + others.index(family) if others.index(family) else behind - 1
        return 2 * self.order.index(model)

    @property
    def last(self) -> int:
        """The training steps of a run."""
        return max(self.kept_steps)

    def model(self, family: str, ours: str, matched: bool = False) -> str:
        """The public name of a family's model ("N/4"), or of the one of equal parameters."""
        return f"{family}-{ours}" + f"-{MATCHED}" * matched + self.kind

    def run(self, model: str, changes: Changes) -> Run:
        """A training run, of the first seed."""
        return Run(preset=self.preset, model=model, milestones=self.kept_steps, changes=changes)

    def scores(
        self,
        run: Run,
        step: int,
        cfg_scale: float,
        seeds: int | None = None,
        draws: int | None = None,
        metrics: tuple[str, ...] | None = None,
    ) -> tuple[Score, ...]:
        """Those of a row: of each training seed, and at the last step of each draw of its samples.

        `seeds`, `draws` and `metrics` are the scale's own, if not given.
        """
        score = Score(
            run=run, step=step, metrics=metrics or self.metrics, cfg_scale=cfg_scale,
            sampling_steps=self.sampling_steps, sampler=self.sampler, ref=self.ref, bootstrap=self.bootstrap,
            protocol=self.protocol,
        )  # fmt: skip
        redraws = range((draws or self.draws) if step == self.last else 1)
        return tuple(
            replace(score, run=replace(run, seed=seed), redraw=redraw)
            for seed in range(seeds or self.seeds)
            for redraw in redraws
        )


@dataclass(frozen=True, kw_only=True)
class ImageScale(Scale):
    """The sizes that stand for those of the paper's image tables.

    `sizes` and `milestones` map the paper's (S, B, L, XL; training steps) to this suite's; `patch` stands for the
    paper's 4 where only one is compared, and `patches` are those of Table 5; `equal_macs` is the depth at which a DiM
    of that size and patch comes nearest to a DiT's multiply-adds. At `resolutions` below the preset's the base is
    trained, too, and scored by `shrunk_metrics`: by networks that take images of any size.

    With `tuning` what is wanted first is, in `order`, models at equal parameters, and after the first of them, over
    training steps and guidance, the tuning's base; soon that at the paper's depth; then the others so. If `few_seeds`
    is given, models beside the base that are of no equal size or cost have so many training seeds with one draw each,
    and the `costly` models ("U/4") have one training in the curves of Figure 1.
    """

    sizes: Mapping[str, str]
    patch: int
    patches: tuple[int, ...]
    milestones: Mapping[int, int]
    equal_macs: Mapping[str, int] = field(default_factory=dict)
    resolutions: tuple[int, ...] = ()
    shrunk_metrics: tuple[str, ...] = ()
    costly: tuple[str, ...] = ()
    few_seeds: int | None = None

    @property
    def kept_steps(self) -> tuple[int, ...]:
        return tuple(self.milestones.values())

    def repeats(self, model: str, family: str, variant: str, curve: bool) -> tuple[int, int]:
        """The training seeds of a row, or of a point of a curve, and the draws of each."""
        if self.few_seeds is None:
            return self.seeds, self.draws
        costly = model in self.costly
        alike = family != CHALLENGER or variant or (self.tuning and model == self.tuning.base)
        seeds = 1 if curve and costly else self.seeds if alike else self.few_seeds
        return seeds, self.draws if alike else 1

    def need(self, model: str, family: str, variant: str, step: int, cfg_scale: float) -> int | None:
        """How early the scores of a row are wanted; None where its variant says it."""
        if not self.tuning:
            return None
        place, count = self.place(model, family), self.place(self.order[-1]) + 2
        base = model == self.tuning.base
        if family == CHALLENGER and variant != MATCHED:
            place = self.place(self.order[2]) + 1 if base and not variant else count * (2 if variant else 1) + place
        if step < self.last:
            place = max(place, 1) if base else 3 * count + place
        return max(place, 1) if cfg_scale != GUIDANCE else place


@dataclass(frozen=True, kw_only=True)
class ClipScale(Scale):
    """The one size that stands for that of the paper's table of clips.

    With `joint_images` there are rows with so many single frames trained beside each clip; with `matched` a DiM of the
    DiT's parameters stands beside that of the paper's depth, and is wanted before it, and clips alone before both.
    """

    size: str
    patch: int
    steps: int
    joint_images: int = 0
    matched: bool = False

    kind: ClassVar[str] = "-video"

    @property
    def kept_steps(self) -> tuple[int, ...]:
        return (self.steps,)

    @property
    def ours(self) -> str:
        """Its model ("U/4")."""
        return f"{self.size}/{self.patch}"
