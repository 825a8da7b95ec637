"""A suite at its smallest: the same rows, runs and scores, of other sizes, so that each of its commands takes seconds.

All sizes of a model become the smallest of the catalogue; runs that then are alike are trained once. What is kept is
all that is not a size: families, patches, depth ratios, classes, frames, guidance, protocols, metrics, presets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from harness.suites.rows import Row, Suite
from harness.suites.run import Run, Setting
from harness.suites.score import Score

SIZE = "P"
IMAGES: Mapping[str, Setting] = {"resolution": 64, "batch": 8}
"""64 pixels are one patch of 8 of latents that are eight times smaller."""
CLIPS: Mapping[str, Setting] = {"resolution": 32, "batch": 8, "clip_after": 0}
SAMPLES = {"fvd": 3}
"""What a metric scores; of other metrics FEWEST."""
FEWEST = 5
"""Precision and recall look at each sample's third neighbour."""
STEPS, RESAMPLES = 2, 2


def smallest(suite: Suite, name: str) -> Suite:
    """A suite without choices at its smallest, under another name."""
    rows = tuple(_row(row) for row in suite.rows)
    title = f"the suite {suite.name} with everything at its smallest: that each command ends well, not how"
    return Suite(name, title, rows, suite.seeds, tuple(_score(score) for score in suite.shown))


def _row(row: Row) -> Row:
    return replace(row, scores=tuple(_score(score) for score in row.scores))


def _run(run: Run) -> Run:
    family, _, rest = run.model.partition("-")
    changed = dict(run.changes) | dict(CLIPS if run.config.frames else IMAGES)
    return replace(
        run,
        model=f"{family}-{SIZE}/{rest.partition('/')[2]}",
        milestones=tuple(range(1, len(run.milestones) + 1)),
        changes=tuple(changed.items()),
    )


def _score(score: Score) -> Score:
    return replace(
        score,
        run=_run(score.run),
        step=score.run.milestones.index(score.step) + 1,
        metrics=tuple(_of_few(metric) for metric in score.metrics),
        sampling_steps=STEPS,
        bootstrap=RESAMPLES,
    )


def _of_few(metric: str) -> str:
    """`fid50k` of a few samples."""
    return re.sub(r"^([a-z]+)\d+k?", lambda match: f"{match[1]}{SAMPLES.get(match[1], FEWEST)}", metric)
