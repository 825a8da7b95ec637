"""A comparison as data: which runs are trained, which of their checkpoints are scored how, and which cell that fills.

`suite("digits")` is a frozen list of table rows, each with one Score a seed: so every cell of every table names the
commands that fill it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from harness.suites.run import Row, Run, Score, Setting
from models import spec


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
            if spec(f"{family}-{ours}-matched").depth == scale.equal_macs[ours]:
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
        "scikit-learn's digits, four small sizes of the paper's depth ratios, on a CPU",
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
        "a ladder of larger models with five seeds and twenty times as many images seen, for a card at hand",
        Scale(
            preset="digits",
            sizes={"S": "N", "B": "T", "L": "S", "XL": "B"},
            patch=2,
            patches=(8, 4, 2),
            milestones={100_000: 2500, 200_000: 5000, 300_000: 7500, 400_000: 10_000},
            metrics=DIGITS_METRICS,
            sampling_steps=50,
            seeds=5,
            changes=(("learning_rate", 3e-4),),
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
    "moving-digits", "U/4", 6000, ("fvd500@moving-digits", "accuracy500@moving-digits", "motion500@moving-digits"),
    cfg_scale=4.0, sampling_steps=50, seeds=1, joint_images=4,
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
