"""The suites by name."""

from __future__ import annotations

from functools import cache

from harness.suites.rows import Row, Suite
from harness.suites.scales import Scale, image_rows, video_rows

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
"""Suites of the image tables: what they are, and their scale."""

MOVING_DIGITS = "moving-digits"
SUITES = (*SCALES, MOVING_DIGITS)


@cache
def suite(name: str) -> Suite:
    """A suite by name. Raises ValueError with the choices."""
    if name not in SUITES:
        raise ValueError(f"unknown suite {name!r}; choose from {', '.join(SUITES)}")
    if name == MOVING_DIGITS:
        rows = moving_digits()
        return Suite(name, "scikit-learn's digits in motion, on a CPU", rows, 1, tuple(row.scores[0] for row in rows))
    title, scale = SCALES[name]
    images = image_rows(scale)
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
        ref="ucf101",
    )  # fmt: skip
