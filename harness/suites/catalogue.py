"""The suites by name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from harness.core import paths, store
from harness.core.paper import FIGURE_1, IMAGES, TABLES
from harness.core.records import Record
from harness.suites.chosen import Chosen, chosen
from harness.suites.clip_rows import clip_rows
from harness.suites.image_rows import image_rows
from harness.suites.rows import FAMILIES, SEQUENCE, Floor, Row, Suite
from harness.suites.scales import GUIDANCE, ClipScale, ImageScale
from harness.suites.smallest import smallest
from harness.suites.tuning import Tuning

FASHION = "fashion"
FASHION_METRICS = (
    "fd2k@efficientnet-lite0", "sfd2k@efficientnet-lite0", "pr2k@efficientnet-lite0",
    "is2k@fashion-mnist", "accuracy2k@fashion-mnist",
)  # fmt: skip
FASHION_SEEN, FASHION_UNSEEN = "fashion-mnist:validation", "fashion-mnist:test"
"""The part that settings are chosen on, and the part that scores are against."""
MOVING_DIGITS, BOUNCING, CLIPS = "moving-digits", "bouncing-digits", "clips"
DIGITS_METRICS = ("fd500@digits", "is500@digits", "pr500@digits")
ADM_METRICS = ("fid50k", "sfid50k", "is50k", "pr50k")
LATTES_CLIPS = (("stride_real", 3), ("real_videos", "random"), ("split", "train+test"))
"""How Latte cuts and chooses real clips (its tools/metrics; configs/ucf101 learns from all videos): Table 3's rows."""

SCALES: dict[str, tuple[str, ImageScale]] = {
    "smoke": (
        "a few steps of the smallest models: that everything runs, not how well",
        ImageScale(
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
        ImageScale(
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
    FASHION: (
        "Fashion-MNIST at 32 pixels, four small sizes of the paper's depth ratios, each family at its own settings",
        ImageScale(
            preset="fashion-mnist",
            sizes={"S": "P", "B": "N", "L": "U", "XL": "M"},
            patch=4,
            patches=(8, 4, 2),  # 16, 64 and 256 tokens
            resolutions=(8, 16),  # 4 and 16 tokens of patch 4: at 64 channels a patch of 8 holds too much noise
            shrunk_metrics=FASHION_METRICS[:1],
            milestones={100_000: 750, 200_000: 1500, 300_000: 2250, 400_000: 3000},
            metrics=FASHION_METRICS,
            sampling_steps=20,
            sampler="ddim",  # at so few steps its distances are lower, at the same cost
            seeds=5,
            draws=2,
            bootstrap=0,  # draws tell what samples vary by
            equal_macs={"P/4": 2, "N/8": 2, "N/4": 2, "N/2": 3, "U/4": 4, "M/4": 5},
            ref=FASHION_UNSEEN,
            tuning=Tuning(
                rates=(1e-3, 2e-3, 4e-3, 8e-3),
                limits=(2.5e-4, 3.2e-2),
                decays=(0.99, 0.995, 0.998),
                decay_limits=(0.96, 0.998),  # 0.999 would keep 5 % of the initial weights after 3,000 steps
                guidances=(1.0, 1.5, 2.0, 3.0, 4.0),
                base="N/4",
                # one choice a class of sizes: U and M are 72 and 80 wide, of 6 to 9 blocks; patches share their size's
                models={"P/4": "P/4", "N/4": "N/4", "N/8": "N/4", "N/2": "N/4", "U/4": "U/4", "M/4": "U/4"},
                seeds={"P/4": 1, "N/4": 2, "N/2": 1, "U/4": 1},
                ref=FASHION_SEEN,
                metrics=FASHION_METRICS[:1],
                others={"DiG": "N/4", "DiffuSSM": "N/2"},  # the latter has no patch of 4
            ),
            order=("N/4", "P/4", "N/8", "N/2", "U/4", "M/4"),
            costly=("N/2", "U/4", "M/4"),
            few_seeds=3,
            floor=Floor(samples=FASHION_SEEN, ref=FASHION_UNSEEN, metrics=FASHION_METRICS[:4], resolution=32),
        ),
    ),
    "digits-gpu": (
        "a ladder of larger models with five seeds and twenty times as many images seen, for a card at hand",
        ImageScale(
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
        ImageScale(
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
"""Suites of the image tables: what they are, and their scale."""


def _matched_clips(
    data: str, steps: int, resolution: int, decays: tuple[float, ...] = (), decay_limits: tuple[float, float] = (0, 1)
) -> ClipScale:
    """Models of equal parameters on clips that come with the package, with choosing and scoring apart.

    `resolution` is the preset's, in which the floor is to be, too. Without `decays` all averages have the preset's.
    """
    metrics = tuple(f"{name}500@{data}" for name in ("fvd", "trajectory", "accuracy"))
    return ClipScale(
        preset=data,
        size="U",
        patch=4,
        steps=steps,
        joint_images=4,
        matched=True,
        metrics=metrics,
        guidance=2.0,
        sampling_steps=50,  # of DDPM: with 20 of DDIM, frames of the same weights follow each other much less often
        seeds=3,
        draws=2,
        bootstrap=0,  # draws tell what samples vary by
        ref=data,
        tuning=Tuning(
            rates=(1e-3, 2e-3, 4e-3, 8e-3),
            limits=(2.5e-4, 3.2e-2),
            decays=decays,
            decay_limits=decay_limits,
            guidances=(1.0, 2.0, 4.0),
            base="U/4",
            models={"U/4": "U/4"},
            seeds={"U/4": 1},
            ref=f"{data}:tuning",
            metrics=metrics[:1],
        ),
        order=("U/4",),
        floor=Floor(samples=f"{data}:tuning", ref=data, metrics=metrics[:2], resolution=resolution),
    )


CLIP_SCALES: dict[str, tuple[str, ClipScale]] = {
    CLIPS: (
        "scikit-learn's digits that move back and forth in 12 pixels, each family at its own settings",
        _matched_clips(MOVING_DIGITS, steps=6000, resolution=12),
    ),
    BOUNCING: (
        "scikit-learn's digits that bounce at two speeds in 16 pixels, each family at its own settings",
        _matched_clips(
            BOUNCING, steps=12_000, resolution=16, decays=(0.992, 0.996, 0.998), decay_limits=(0.98, 0.999)
        ),
    ),
}
"""Suites of the table of clips."""
UCF101 = ClipScale(
    preset="ucf101",
    size="XL",
    patch=2,
    steps=1_000_000,
    joint_images=8,
    metrics=("fvd2048_16f",),
    guidance=7.0,
    sampling_steps=250,
    seeds=1,
    ref="ucf101",
    protocol=LATTES_CLIPS,
)
"""Table 3 at the paper's scale. Latte's guidance and its longest training: the paper states neither for its own."""

REHEARSED = {"rehearsal": "paper"}
"""Suites that are another one at its smallest."""
SUITES = (*SCALES, *CLIP_SCALES, *REHEARSED)


IMAGE_PARTS = (*(table.part for table in TABLES.values() if table.quality == IMAGES), FIGURE_1, SEQUENCE, FAMILIES)
"""Of the comparison of images, where settings are chosen for each family."""


def suite(name: str, records: Iterable[Record] | None = None) -> Suite:
    """A suite by name; where settings are chosen, as far as `records` (default: the project's own) settle them.

    Raises ValueError with the choices.
    """
    if name in SCALES and SCALES[name][1].tuning:
        title, images = SCALES[name]
        settled = chosen(images, _known(name, records))
        rows = image_rows(settled)
        shown = [row for row in rows if row.part == TABLES[7].part and row.scores[0].cfg_scale == GUIDANCE]
        return _tuned(name, title, settled, rows, shown, IMAGE_PARTS)
    if name in CLIP_SCALES:
        title, clips = CLIP_SCALES[name]
        found = chosen(clips, _known(name, records))
        rows = clip_rows(found)
        return _tuned(name, title, found, rows, rows, (TABLES[3].part,))
    return _fixed(name)


def _known(name: str, records: Iterable[Record] | None) -> Iterable[Record]:
    """The records of a suite, if none are given the project's own."""
    own = paths.PROJECT / "measurements" / f"{name}.jsonl"
    if records is not None:
        return records
    return store.load(own) if own.exists() else []


def _tuned(
    name: str, title: str, settled: Chosen[Any], rows: tuple[Row, ...], shown: Iterable[Row], planned: tuple[str, ...]
) -> Suite:
    """A suite as far as its settings are chosen."""
    scale = settled.scale
    return Suite(
        name, title, rows, scale.seeds, tuple(row.scores[0] for row in shown), settled.choices, scale.floor, planned
    )  # fmt: skip


@cache
def _fixed(name: str) -> Suite:
    """A suite that does not depend on records."""
    if name not in SUITES:
        raise ValueError(f"unknown suite {name!r}; choose from {', '.join(SUITES)}")
    if name in REHEARSED:
        return smallest(_fixed(REHEARSED[name]), name)
    title, scale = SCALES[name]
    images = image_rows(chosen(scale))
    largest = images[-2:]  # both families at the last milestone of the last size
    rows = images + (clip_rows(chosen(UCF101)) if name == "paper" else ())
    return Suite(name, title, rows, scale.seeds, tuple(row.scores[0] for row in largest))
