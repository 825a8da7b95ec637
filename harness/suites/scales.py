"""Rows of suites from what a suite fixes once: the paper's image tables at a scale, and its table of clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from harness.core.paper import BASELINE, CHALLENGER, FIGURE_1, TABLES, printed
from harness.suites.rows import Row
from harness.suites.run import Run, Setting
from harness.suites.score import Score
from models import spec

CONTESTANTS = ((BASELINE, ""), (CHALLENGER, ""), (CHALLENGER, "matched"))
"""Family and variant of the rows of a contest; one of equal cost joins them where its depth is known."""
OF_CLIPS = {BASELINE: "Latte", CHALLENGER: "DiM"}
"""What Table 3 calls the models of a family."""
PATCH, GUIDANCE, UNGUIDED = 4, 1.5, 1.0
"""The paper's patch where it compares one, its guidance, and none."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What turns the paper's image tables into a suite: the sizes that stand for its own, and how each is scored.

    `sizes` and `milestones` map the paper's (S, B, L, XL; training steps) to this suite's; `patch` stands for the
    paper's 4 where only one is compared, and `patches` are those of Table 5; `equal_macs` is the depth at which a DiM
    of that size and patch comes nearest to a DiT's multiply-adds.
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


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What the rows of one contest share: their part and name, the paper's size, patch, step and guidance, our patch.

    `stated` is what a row's label says behind its model.
    """

    part: str
    name: str
    size: str
    patch: int
    paper_patch: int
    paper_step: int
    cfg_scale: float = GUIDANCE
    stated: str = ""

    def rows(self, scale: Scale) -> Iterator[Row]:
        """A row for each contestant."""
        equal = [(CHALLENGER, "equal-macs")] if f"{scale.sizes[self.size]}/{self.patch}" in scale.equal_macs else []
        for family, variant in (*CONTESTANTS, *equal):
            yield self.row(scale, family, variant)

    def row(self, scale: Scale, family: str, variant: str = "") -> Row:
        """The row of a family and variant, one score a seed, beside the paper's row if it has one."""
        ours = f"{scale.sizes[self.size]}/{self.patch}"
        model = f"{family}-{ours}" + ("-matched" if variant == "matched" else "")
        depth: tuple[tuple[str, Setting], ...] = ()
        if variant == "equal-macs":
            if spec(f"{family}-{ours}-matched").depth == scale.equal_macs[ours]:
                model += "-matched"  # equal in both: one run serves
            else:
                depth = (("depth", scale.equal_macs[ours]),)
        run = Run(
            preset=scale.preset, model=model, milestones=tuple(scale.milestones.values()),
            changes=scale.changes + depth,
        )  # fmt: skip
        score = Score(
            run=run, step=scale.milestones[self.paper_step], metrics=scale.metrics, cfg_scale=self.cfg_scale,
            sampling_steps=scale.sampling_steps, ref=scale.ref,
        )  # fmt: skip
        return Row(
            part=self.part,
            label=f"{model}{f' of depth {depth[0][1]}' if depth else ''}{self.stated}",
            family=family,
            contest=self.name,
            scores=over_seeds(score, scale.seeds),
            published=None if variant else self.published(family),
            variant=variant,
        )

    def published(self, family: str) -> dict[str, str] | None:
        """The key of the paper's row of a family, or None where the paper prints none."""
        table = next((table for table in TABLES.values() if table.part == self.part), None)
        if table is None:
            return None
        known = {"model": f"{family}-{self.size}/{self.paper_patch}", "steps": str(self.paper_step)}
        known |= {"cfg": str(self.cfg_scale)}
        key = {name: known[name] for name in table.keys}
        return key if any(key.items() <= row.items() for row in printed(table.number)) else None


def over_seeds(score: Score, seeds: int) -> tuple[Score, ...]:
    """A score with each training seed."""
    return tuple(replace(score, run=replace(score.run, seed=seed)) for seed in range(seeds))


def image_rows(scale: Scale) -> tuple[Row, ...]:
    """Tables 2, 5, 6 and 7 at a scale, and Figure 1's curves: each size of both families at each milestone.

    The paper prints no DiT in Tables 5 and 6; they are trained here all the same, or nothing could be compared.
    """
    rows = [row for contest in _contests(scale) for row in contest.rows(scale)]
    for size in scale.sizes:
        for paper_step, step in scale.milestones.items():
            name = f"size {scale.sizes[size]}, {step:,} steps"
            curve = Contest(
                part=FIGURE_1, name=name, size=size, patch=scale.patch, paper_patch=PATCH, paper_step=paper_step
            )
            rows += [curve.row(scale, family) for family in (BASELINE, CHALLENGER)]
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
    for size, ours in scale.sizes.items():
        yield replace(base, part=TABLES[6].part, name=f"size {ours}", size=size)
    for patch in scale.patches:
        yield replace(base, part=TABLES[5].part, name=f"patch {patch}", patch=patch, paper_patch=patch)


def video_rows(
    preset: str, size: str, steps: int, metrics: tuple[str, ...], cfg_scale: float, sampling_steps: int,
    seeds: int, joint_images: int, ref: str | None = None,
) -> tuple[Row, ...]:  # fmt: skip
    """Table 3's last four rows: both families over clips, alone and with single frames trained beside them."""
    rows = []
    for images, extra in ((0, ""), (joint_images, "+IMG")):
        changes: tuple[tuple[str, Setting], ...] = (("joint_images", images),) if images else ()
        for family, method in OF_CLIPS.items():
            run = Run(preset=preset, model=f"{family}-{size}-video", milestones=(steps,), changes=changes)
            score = Score(
                run=run, step=steps, metrics=metrics, cfg_scale=cfg_scale, sampling_steps=sampling_steps, ref=ref
            )
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
