"""A checkpoint as a source of samples: what joins the models that draw and the metrics that score."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.core.distributed import Ranks, barrier, exclusively
from harness.core.locks import locked
from harness.diffusion.album import Album
from harness.diffusion.flags import open_sampling
from harness.diffusion.generate import QUANTISER, draw_labels, generate, slots_of
from harness.diffusion.numerics import scan_backend
from harness.diffusion.sample_config import SampleConfig
from harness.diffusion.trained import Trained
from harness.metrics.evaluation import Evaluation
from harness.metrics.recipes import Recipe, needed

BATCH = 64


@dataclass(frozen=True)
class CheckpointSource:
    """`count` samples of a checkpoint, as harness.data.sources.Source: item i is sample i of the configuration.

    Those in an `album` are read from there; the others are drawn when they are read, and kept in the album if there is
    one.
    """

    name: str
    trained: Trained
    config: SampleConfig
    here: Ranks
    count: int
    album: Album | None = None

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """The classes that samples are drawn for."""
        return draw_labels(self.config, self.count, self.trained.model.spec.num_classes)

    @cached_property
    def identity(self) -> dict[str, object]:
        """Checkpoint, settings, and the rows of a network batch, on which pixels may depend."""
        return {"kind": "samples", **self.settings, "batch": slots_of(self.trained, BATCH, self.here.device)}

    @property
    def settings(self) -> dict[str, object]:
        """As harness.sample writes them beside its samples, so that its folders can be scored and continued."""
        return {**self.trained.origin, **dataclasses.asdict(self.config), "quantiser": QUANTISER}

    @property
    def origin(self) -> dict[str, object]:
        """For the record: the settings that weights and samples follow from, and the seconds that training took."""
        return {
            "step": self.trained.origin.get("step"),
            "training": self.trained.training,
            "sampling": dataclasses.asdict(self.config) | {"weights": self.trained.origin.get("weights")},
            "scan": scan_backend(self.trained.model.spec, self.here.device),
            **{f"training_{name}": value for name, value in self.trained.spent.items()},
        }

    @property
    def seed(self) -> int:
        """Of the samples."""
        return self.config.seed

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample, ([T,] H, W, 3)."""
        return Album.of(self.trained, Path()).shape

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Samples [start, stop)."""
        album, span = self.album, range(start, stop)
        missing = [index for index in span if album is None or not album.present(index)]
        drawn: dict[int, NDArray[np.uint8]] = {}
        for samples in generate(self.trained, self.config, missing, BATCH, Ranks(0, 1, self.here.device)):
            if album is not None:
                album.write(samples)
            drawn |= zip(samples.indices, samples.images, strict=True)
        return np.stack([drawn[i] if i in drawn or album is None else album.read(i)[0] for i in span])

    def save(self, folder: Path) -> CheckpointSource:
        """This source with its samples in a folder: those that are missing are drawn, each process its share.

        Raises LockedError when another process writes into the folder.
        """
        album = Album.of(self.trained, folder)
        with exclusively(folder, self.here):
            if self.here.first:
                album.begin(self.settings)
            barrier()
            album.fill(self.trained, self.config, self.count, BATCH, self.here)
        return dataclasses.replace(self, album=album)


    @contextmanager
    def kept(self, root: Path) -> Iterator[CheckpointSource]:
        """This source with a folder below `root` that keeps what is read, so that several networks see one drawing.

        The folder is emptied at the end. If the work is stopped before, the same command continues with what is there;
        a second command that draws the same waits.
        """
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()
        album = Album.of(self.trained, root / f"drawn-{digest[:16]}")
        with locked(album.folder, wait=True) if self.here.first else nullcontext():
            if self.here.first:
                album.begin(self.settings)
            barrier()
            yield dataclasses.replace(self, album=album)
            barrier()
            if self.here.first:
                album.clear()


def open_checkpoint(ckpt: Path, sampling: argparse.Namespace, evaluation: Evaluation) -> CheckpointSource:
    """A checkpoint with as many samples as an evaluation scores, drawn as the flags of `sampling` state.

    Raises ValueError for what cannot be opened, for images where clips are scored, and for clips of other frames.
    """
    trained, config = open_sampling(argparse.Namespace(**{**vars(sampling), "ckpt": ckpt}), evaluation.here)
    for recipe in evaluation.recipes:
        _check(recipe, trained, evaluation.clips.resolved(recipe.stride).stride_fake)
    count = needed(evaluation.recipes, evaluation.settings.repeats)
    return CheckpointSource(str(ckpt), trained, config, evaluation.here, count)


def _check(recipe: Recipe, trained: Trained, stride: int | None) -> None:
    spec = trained.model.spec
    if recipe.of_clips != bool(spec.frames):
        drawn, scored = ("clips", "images") if spec.frames else ("images", "clips")
        raise ValueError(f"{recipe.name} scores {scored}, and {spec.name} draws {drawn}")
    if recipe.frames and recipe.frames != spec.frames:
        raise ValueError(f"{recipe.name} scores {recipe.frames} frames, and {spec.name} draws {spec.frames}")
    learnt = trained.training.get("stride", 1)
    if recipe.space.data and spec.frames and learnt != 1:
        raise ValueError(
            f"{recipe.name} compares with clips of every frame, and {spec.name} learnt every {learnt}. frame of them"
        )
    if recipe.frames and stride != 1:
        raise ValueError(
            f"{recipe.name} scores every {stride}. frame, and {spec.name} draws no others: --stride-fake 1"
        )
