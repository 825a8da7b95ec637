"""Rows of suites from what a suite fixes once: the paper's image tables at a scale, and its table of clips."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from harness.core.paper import BASELINE, CHALLENGER, FIGURE_1, TABLES, printed
from harness.core.records import Record
from harness.suites.rows import Floor, Row
from harness.suites.run import Run, Setting
from harness.suites.score import Score
from harness.suites.tuning import FIRST_SEED, Choice, Tuning
from models import spec

CONTESTANTS = ((BASELINE, ""), (CHALLENGER, ""), (CHALLENGER, "matched"))
"""Family and variant of the rows of a contest; one of equal cost joins them where its depth is known."""
OF_CLIPS = {BASELINE: "Latte", CHALLENGER: "DiM"}
"""What Table 3 calls the models of a family."""
PATCH, GUIDANCE, UNGUIDED = 4, 1.5, 1.0
"""The paper's patch where it compares one, its guidance, and none."""
RATE, DECAY, SCALE = "learning_rate", "ema_decay", "cfg_scale"
"""The settings that are chosen."""
Changes = tuple[tuple[str, Setting], ...]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What turns the paper's image tables into a suite: the sizes that stand for its own, and how each is scored.

    `sizes` and `milestones` map the paper's (S, B, L, XL; training steps) to this suite's; `patch` stands for the
    paper's 4 where only one is compared, and `patches` are those of Table 5; `equal_macs` is the depth at which a DiM
    of that size and patch comes nearest to a DiT's multiply-adds. Each of the `seeds` training seeds is sampled from
    `draws` times.

    With `tuning` each family has settings of its own, and `order` says which models ("N/4") are wanted first: at equal
    parameters; then that of `base` at the paper's depth, over training steps and guidance; then the others so.
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
    draws: int = 1
    bootstrap: int | None = None
    sampler: str = "ddpm"
    tuning: Tuning | None = None
    order: tuple[str, ...] = ()
    floor: Floor | None = None

    def need(self, model: str, family: str, variant: str, step: int, cfg_scale: float) -> int | None:
        """How early the scores of a row are wanted; None where its variant says it."""
        if not self.tuning:
            return None
        place, count = self.order.index(model), len(self.order)
        base = model == self.tuning.base
        if family == CHALLENGER and variant != "matched":
            place = 1 if base and not variant else count * (2 if variant else 1) + place
        if step < max(self.milestones.values()):
            place = max(place, 1) if base else 3 * count + place
        return max(place, 1) if cfg_scale != GUIDANCE else place


@dataclass(frozen=True)
class Chosen:
    """What has been chosen so far at a scale, of what records hold."""

    scale: Scale
    choices: tuple[Choice, ...] = ()
    values: Mapping[tuple[str, str, str], Setting] = field(default_factory=dict)  # setting, family, model

    def changes(self, family: str, model: str) -> Changes | None:
        """The settings of a family at a model ("N/4"); None while they are not all chosen."""
        tuning = self.scale.tuning
        if tuning is None:
            return self.scale.changes
        where = ((RATE, tuning.models[model]), (DECAY, tuning.base))
        found = [(name, self.values.get((name, family, tuned))) for name, tuned in where]
        chosen = tuple((name, value) for name, value in found if value is not None)
        return self.scale.changes + chosen if len(chosen) == len(found) else None

    def guidance(self, family: str) -> float | None:
        """The guidance of a family; None while it is not chosen, and where none is."""
        value = self.values.get((SCALE, family, self.scale.tuning.base)) if self.scale.tuning else None
        return None if value is None else float(value)


def chosen(scale: Scale, records: Iterable[Record] = ()) -> Chosen:
    """The choices of a scale: rates first, then the average's decay at the base with its rate, then its guidance."""
    tuning = scale.tuning
    if tuning is None:
        return Chosen(scale)
    records = list(records)
    choices: list[Choice] = []
    values: dict[tuple[str, str, str], Setting] = {}

    def choice_of(
        setting: str, family: str, model: str, candidates: Iterable[tuple[Setting, Changes, float]]
    ) -> Choice:
        name = f"{family}-{model}" + ("-matched" if family == CHALLENGER else "")
        return Choice(
            setting=setting, family=family, model=model, need=scale.order.index(model),
            candidates=tuple(
                (value, tuple(_tuned(scale, tuning, name, seed, changes, cfg) for seed in range(tuning.seeds[model])))
                for value, changes, cfg in candidates
            ),
        )  # fmt: skip

    def settle(choice: Choice) -> None:
        choices.append(choice)
        made = choice.made(records)
        if made is not None:
            values[choice.setting, choice.family, choice.model] = made

    def rate_of(family: str, model: str) -> Choice:
        rates, (low, high) = tuning.rates, tuning.limits
        while True:
            choice = choice_of(RATE, family, model, ((rate, ((RATE, rate),), GUIDANCE) for rate in rates))
            made = choice.made(records)
            further = {choice.ends[0]: min(rates) / 2, choice.ends[1]: max(rates) * 2}.get(made) if made else None
            if further is None or not low <= further <= high:
                return choice
            rates = (*rates, further)

    for model in dict.fromkeys(tuning.models.values()):
        for family in (BASELINE, CHALLENGER):
            settle(rate_of(family, model))
    for family in (BASELINE, CHALLENGER):
        rate = values.get((RATE, family, tuning.base))
        if rate is None:
            continue
        best: Changes = ((RATE, rate),)
        decays = ((decay, (*best, (DECAY, decay)), GUIDANCE) for decay in tuning.decays)
        settle(choice_of(DECAY, family, tuning.base, decays))
        decay = values.get((DECAY, family, tuning.base))
        if decay is not None:
            best = (*best, (DECAY, decay))
            guidances = ((guidance, best, guidance) for guidance in tuning.guidances)
            settle(choice_of(SCALE, family, tuning.base, guidances))
    return Chosen(scale, tuple(choices), values)


def _tuned(scale: Scale, tuning: Tuning, model: str, seed: int, changes: Changes, cfg_scale: float) -> Score:
    """A score of a candidate: at the last step, on a tuning seed, against the part that decides."""
    steps = max(scale.milestones.values())
    changes = tuple((name, value) for name, value in scale.changes + changes if not _is_presets(scale, name, value))
    run = Run(
        preset=scale.preset, model=model, milestones=(steps,), seed=FIRST_SEED + seed, changes=changes,
    )  # fmt: skip
    return Score(
        run=run, step=steps, metrics=tuning.metrics, cfg_scale=cfg_scale, sampling_steps=scale.sampling_steps,
        sampler=scale.sampler, ref=tuning.ref, bootstrap=scale.bootstrap,
    )  # fmt: skip


def _is_presets(scale: Scale, name: str, value: Setting) -> bool:
    """Whether a change changes nothing: a candidate that is the preset's own setting is one run with it."""
    from harness.diffusion.config import PRESETS

    return bool(getattr(PRESETS[scale.preset], name) == value)


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What the rows of one contest share: their part and name, the paper's size, patch, step and guidance, our patch.

    `stated` is what a row's label says behind its model. Without `cfg_scale` each family has the guidance that was
    chosen for it.
    """

    part: str
    name: str
    size: str
    patch: int
    paper_patch: int
    paper_step: int
    cfg_scale: float | None = GUIDANCE
    stated: str = ""

    def rows(self, settled: Chosen) -> Iterator[Row]:
        """A row for each contestant whose settings are chosen."""
        scale = settled.scale
        equal = [(CHALLENGER, "equal-macs")] if f"{scale.sizes[self.size]}/{self.patch}" in scale.equal_macs else []
        for family, variant in (*CONTESTANTS, *equal):
            row = self.row(settled, family, variant)
            if row:
                yield row

    def row(self, settled: Chosen, family: str, variant: str = "") -> Row | None:
        """The row of a family and variant, beside the paper's row if it has one; None while its settings are open."""
        scale = settled.scale
        cfg_scale = settled.guidance(family) if self.cfg_scale is None else self.cfg_scale
        ours = f"{scale.sizes[self.size]}/{self.patch}"
        model = f"{family}-{ours}" + ("-matched" if variant == "matched" else "")
        depth: tuple[tuple[str, Setting], ...] = ()
        if variant == "equal-macs":
            if spec(f"{family}-{ours}-matched").depth == scale.equal_macs[ours]:
                model += "-matched"  # equal in both: one run serves
            else:
                depth = (("depth", scale.equal_macs[ours]),)
        changes = settled.changes(family, ours)
        if changes is None or cfg_scale is None:
            return None
        step = scale.milestones[self.paper_step]
        run = Run(
            preset=scale.preset, model=model, milestones=tuple(scale.milestones.values()), changes=changes + depth,
        )  # fmt: skip
        score = Score(
            run=run, step=step, metrics=scale.metrics, cfg_scale=cfg_scale, sampling_steps=scale.sampling_steps,
            sampler=scale.sampler, ref=scale.ref, bootstrap=scale.bootstrap,
        )  # fmt: skip
        stated = self.stated if self.cfg_scale is not None else f"{self.stated} {cfg_scale:g}"
        return Row(
            part=self.part,
            label=f"{model}{f' of depth {depth[0][1]}' if depth else ''}{stated}",
            family=family,
            contest=self.name,
            scores=over_seeds(score, scale.seeds, scale.draws if step == max(scale.milestones.values()) else 1),
            published=None if variant else self.published(family),
            variant=variant,
            need=scale.need(ours, family, variant, step, cfg_scale),
        )

    def published(self, family: str) -> dict[str, str] | None:
        """The key of the paper's row of a family, or None where the paper prints none."""
        table = next((table for table in TABLES.values() if table.part == self.part), None)
        if table is None or self.cfg_scale is None:
            return None
        known = {"model": f"{family}-{self.size}/{self.paper_patch}", "steps": str(self.paper_step)}
        known |= {"cfg": str(self.cfg_scale)}
        key = {name: known[name] for name in table.keys}
        return key if any(key.items() <= row.items() for row in printed(table.number)) else None


def over_seeds(score: Score, seeds: int, draws: int = 1) -> tuple[Score, ...]:
    """A score with each training seed, of each so many draws."""
    return tuple(
        replace(score, run=replace(score.run, seed=seed), redraw=draw) for seed in range(seeds) for draw in range(draws)
    )


def image_rows(settled: Chosen) -> tuple[Row, ...]:
    """Tables 2, 5, 6 and 7 at a scale, and Figure 1's curves: each size of both families at each milestone.

    The paper prints no DiT in Tables 5 and 6; they are trained here all the same, or nothing could be compared.
    """
    scale = settled.scale
    rows = [row for contest in _contests(scale) for row in contest.rows(settled)]
    for size in scale.sizes:
        for paper_step, step in scale.milestones.items():
            name = f"size {scale.sizes[size]}, {step:,} steps"
            curve = Contest(
                part=FIGURE_1, name=name, size=size, patch=scale.patch, paper_patch=PATCH, paper_step=paper_step
            )
            rows += [row for family in (BASELINE, CHALLENGER) if (row := curve.row(settled, family))]
    return tuple(rows)


def _contests(scale: Scale) -> Iterator[Contest]:
    """The contests of the tables, in their order."""
    last = max(scale.milestones)
    base = Contest(part="", name="", size="B", patch=scale.patch, paper_patch=PATCH, paper_step=last)
    for paper_step, step in scale.milestones.items():
        name = f"{step:,} steps"
        yield replace(base, part=TABLES[2].part, name=name, paper_step=paper_step, stated=f" at {name}")
    for cfg in (UNGUIDED, GUIDANCE):
        name = f"guidance {cfg:g}"
        yield replace(base, part=TABLES[7].part, name=name, cfg_scale=cfg, stated=f", {name}")
    if scale.tuning:
        yield replace(base, part=TABLES[7].part, name="chosen guidance", cfg_scale=None, stated=", chosen guidance")
    for size, ours in scale.sizes.items():
        yield replace(base, part=TABLES[6].part, name=f"size {ours}", size=size)
    for patch in scale.patches:
        yield replace(base, part=TABLES[5].part, name=f"patch {patch}", patch=patch, paper_patch=patch)


def video_rows(
    preset: str, size: str, steps: int, metrics: tuple[str, ...], cfg_scale: float, sampling_steps: int,
    seeds: int, joint_images: int, ref: str | None = None, protocol: tuple[tuple[str, Setting], ...] = (),
) -> tuple[Row, ...]:  # fmt: skip
    """Table 3's last four rows: both families over clips, alone and with single frames trained beside them.

    `protocol` is how clips are cut, where that is not StyleGAN-V's.
    """
    rows = []
    for images, extra in ((0, ""), (joint_images, "+IMG")):
        changes: tuple[tuple[str, Setting], ...] = (("joint_images", images),) if images else ()
        for family, method in OF_CLIPS.items():
            run = Run(preset=preset, model=f"{family}-{size}-video", milestones=(steps,), changes=changes)
            score = Score(
                run=run, step=steps, metrics=metrics, cfg_scale=cfg_scale, sampling_steps=sampling_steps, ref=ref,
                protocol=protocol,
            )  # fmt: skip
            rows.append(
                Row(
                    part=TABLES[3].part,
                    label=f"{run.model}{extra}",
                    family=family,
                    contest=f"clips{extra}",
                    scores=over_seeds(score, seeds),
                    published={"method": method + extra},
                    variant=extra,
                )
            )
    return tuple(rows)
