"""The suites by name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from harness.core import paths, store
from harness.core.paper import TABLES
from harness.core.records import Record
from harness.suites.rows import Floor, Row, Suite
from harness.suites.scales import GUIDANCE, Scale, chosen, image_rows, video_rows
from harness.suites.smallest import smallest
from harness.suites.tuning import Tuning

FASHION_METRICS = (
    "fd2k@efficientnet-lite0", "sfd2k@efficientnet-lite0", "pr2k@efficientnet-lite0",
    "is2k@fashion-mnist", "accuracy2k@fashion-mnist",
)  # fmt: skip
FASHION_SEEN, FASHION_UNSEEN = "fashion-mnist:validation", "fashion-mnist:test"
"""The part that settings are chosen on, and the part that scores are against."""
DIGITS_METRICS = ("fd500@digits", "is500@digits", "pr500@digits")
ADM_METRICS = ("fid50k", "sfid50k", "is50k", "pr50k")
LATTES_CLIPS = (("stride_real", 3), ("real_videos", "random"), ("split", "train+test"))
"""How Latte cuts and chooses real clips (its tools/metrics; configs/ucf101 learns from all videos): Table 3's rows."""

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
    "fashion": (
        "Fashion-MNIST at 32 pixels, four small sizes of the paper's depth ratios, each family at its own settings",
        Scale(
            preset="fashion-mnist",
            sizes={"S": "P", "B": "N", "L": "U", "XL": "M"},
            patch=4,
            patches=(8, 4, 2),  # 16, 64 and 256 tokens
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
                guidances=(1.0, 1.5, 2.0, 3.0),
                base="N/4",
                # 72 and 80 wide, 6 to 9 blocks: one class of sizes
                models={"P/4": "P/4", "N/4": "N/4", "N/8": "N/8", "U/4": "U/4", "M/4": "U/4", "N/2": "N/2"},
                seeds={"P/4": 1, "N/4": 2, "N/8": 1, "U/4": 1, "N/2": 1},
                ref=FASHION_SEEN,
                metrics=FASHION_METRICS[:1],
            ),
            order=("N/4", "P/4", "N/8", "U/4", "M/4", "N/2"),
            floor=Floor(samples=FASHION_SEEN, ref=FASHION_UNSEEN, metrics=FASHION_METRICS[:4]),
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
"""Suites of the image tables: what they are, and their scale."""

MOVING_DIGITS = "moving-digits"
REHEARSED = {"rehearsal": "paper"}
"""Suites that are another one at its smallest."""
SUITES = (*SCALES, MOVING_DIGITS, *REHEARSED)


def suite(name: str, records: Iterable[Record] | None = None) -> Suite:
    """A suite by name; where settings are chosen, as far as `records` (default: the project's own) settle them.

    Raises ValueError with the choices.
    """
    if name not in SCALES or SCALES[name][1].tuning is None:
        return _fixed(name)
    own = paths.PROJECT / "measurements" / f"{name}.jsonl"
    if records is None:
        records = store.load(own) if own.exists() else []
    title, scale = SCALES[name]
    settled = chosen(scale, records)
    rows = image_rows(settled)
    shown = [row for row in rows if row.part == TABLES[7].part and row.scores[0].cfg_scale == GUIDANCE]
    return Suite(
        name, title, rows, scale.seeds, tuple(row.scores[0] for row in shown), settled.choices, scale.floor
    )  # fmt: skip


@cache
def _fixed(name: str) -> Suite:
    """A suite that does not depend on records."""
    if name not in SUITES:
        raise ValueError(f"unknown suite {name!r}; choose from {', '.join(SUITES)}")
    if name in REHEARSED:
        return smallest(_fixed(REHEARSED[name]), name)
    if name == MOVING_DIGITS:
        rows = moving_digits()
        return Suite(name, "scikit-learn's digits in motion, on a CPU", rows, 1, tuple(row.scores[0] for row in rows))
    title, scale = SCALES[name]
    images = image_rows(chosen(scale))
    largest = images[-2:]  # both families at the last milestone of the last size
    rows = images + (ucf101() if name == "paper" else ())
    return Suite(name, title, rows, scale.seeds, tuple(row.scores[0] for row in largest))


def moving_digits() -> tuple[Row, ...]:
    """Table 3 on embedded clips."""
    return video_rows(
        "moving-digits", "U/4", 6000,
        ("fvd500@moving-digits", "accuracy500@moving-digits", "motion500@moving-digits"),
        cfg_scale=4.0, sampling_steps=50, seeds=1, joint_images=4,
    )  # fmt: skip


def ucf101() -> tuple[Row, ...]:
    """Table 3 at the paper's scale. Latte's guidance and its longest training: the paper states neither for its own."""
    return video_rows(
        "ucf101", "XL/2", 1_000_000, ("fvd2048_16f",), cfg_scale=7.0, sampling_steps=250, seeds=1, joint_images=8,
        ref="ucf101", protocol=LATTES_CLIPS,
    )  # fmt: skip
