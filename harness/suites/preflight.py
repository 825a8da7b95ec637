"""What a plan's commands read and do not make, opened before the first of them: data, networks, references.

A run of days must not end at a reference of another size. Nothing is drawn and no feature made, so that what is opened
takes minutes at most: the headers of all videos, one look at every weight file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.core.files import read_json
from harness.data import is_named
from harness.data.autoencoder import Identity, StableDiffusion, digest_in
from harness.suites.plan import SCORE, TRAIN, Plan
from harness.suites.run import Run
from harness.suites.score import Score

if TYPE_CHECKING:
    from harness.core.distributed import Ranks

OF_THE_DATA = ("data", "vae", "resolution", "num_classes", "frames", "stride", "short_videos", "resize_by")
"""Settings of a run that say what is opened, and how."""


@dataclass(frozen=True)
class Planned:
    """Samples that are still to be drawn, with what can be said of them now, as harness.data.sources.Source."""

    name: str
    count: int
    shape: tuple[int, ...]
    classes: int

    @property
    def labels(self) -> NDArray[np.int64]:
        """Any that the model has."""
        return np.arange(self.count) % self.classes

    @property
    def identity(self) -> dict[str, object]:
        """None yet."""
        return {}

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """None yet."""
        raise NotImplementedError(f"{self.name} are not drawn")

    @classmethod
    def of(cls, score: Score) -> Planned:
        """Those of a score."""
        config = score.run.config
        image = (config.resolution, config.resolution, 3)
        shape = (config.frames, *image) if config.frames else image
        return cls(f"samples of {score.run.name}", score.samples, shape, config.num_classes)


def require_inputs(plan: Plan) -> None:
    """Raise ValueError, in one line, for data, a network or a reference that some command of a plan would stop at."""
    import torch

    from harness.core.distributed import Ranks

    here = Ranks(0, 1, torch.device("cpu"))
    opened: set[object] = set()
    learnt: dict[object, str] = {}
    autoencoders: dict[str, str] = {}
    for work in plan.work():
        key: object = tuple(getattr(work.run.config, name) for name in OF_THE_DATA)
        if work.train and TRAIN in plan.stages:
            with _of(work.run, f"--data or --ref {work.run.preset}=WHERE"):
                work.run.spec.grid(work.run.config.resolution)
                if key not in learnt:
                    learnt[key] = _open_data(plan, work.run, here)
        if work.scores and SCORE in plan.stages and work.run.config.vae != Identity.name:
            with _of(work.run, "--vae WHERE"):
                latents = learnt[key] if work.train and key in learnt else _learnt(plan.directory(work.run))
                _open_autoencoder(plan.vae or work.run.config.vae, latents, autoencoders)
        for score in work.scores if SCORE in plan.stages else ():
            key = (score.metrics, plan.reference(score), score.protocol, Planned.of(score).shape)
            if key not in opened:
                flags = "--data" if score.ref and is_named(score.ref) else "--data or --ref"
                with _of(work.run, f"{flags} {work.run.preset}=WHERE"):
                    _open_reference(plan, score, here)
                opened.add(key)


@contextmanager
def _of(run: Run, flags: str) -> Iterator[None]:
    """Name the run, and the flags by which what it opens is given, in what is raised."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{run.name} would stop: {error} ({flags})") from error


def _learnt(directory: Path) -> str:
    """The autoencoder whose latents a run has learnt, where it says so."""
    path = directory / "config.json"
    return str(read_json(path).get("autoencoder", "")) if path.is_file() else ""


def _open_autoencoder(where: str, learnt: str, opened: dict[str, str]) -> None:
    """Open what decodes samples, once a place, and compare its weights with those whose latents are learnt."""
    if where not in opened:
        opened[where] = StableDiffusion(where).name
    if digest_in(learnt) not in ("", digest_in(opened[where])):
        raise ValueError(f"its latents are of {learnt}, and {opened[where]} has other weights")


def _open_data(plan: Plan, run: Run, here: Ranks) -> str:
    """Returns the autoencoder whose latents are learnt."""
    from harness.diffusion.config import Execution
    from harness.diffusion.training import open_data

    config = dataclasses.replace(run.config, **plan.opened(run))  # type: ignore[arg-type]
    return open_data(config, Execution(), here, verify=False)[1].name


def _open_reference(plan: Plan, score: Score, here: Ranks) -> None:
    from harness.metrics.evaluation import Evaluation
    from harness.metrics.settings import ClipProtocol, Extraction

    ref, resolution = plan.reference(score)
    protocol, opened = dict[str, Any](score.protocol), dict[str, Any](plan.extraction)
    clips, extraction = ClipProtocol(**protocol), Extraction(ref_resolution=resolution, **opened)
    evaluation = Evaluation(score.metrics, ref, here, clips=clips, extraction=extraction)
    evaluation.require(Planned.of(score))
