"""A plan: which commands fill a suite, and which of them are still to be run."""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from harness.core import paper, paths, store
from harness.core.files import sha256
from harness.core.records import Record, ScoreRecord, of_earlier_weights, of_kind
from harness.suites.budget import fitted, scoring_macs, training_macs
from harness.suites.catalogue import suite
from harness.suites.launch import Launch
from harness.suites.rows import PARTS, Suite
from harness.suites.run import Run
from harness.suites.score import Score
from models.families import named

CARD_GIB = 78.0
"""What a card of 80 GB has for a process, and a little less."""
SHOWN = 60
"""Samples on a contact sheet."""
TRAIN, SCORE, REPORT = STAGES = ("train", "score", "report")
"""What is done of a run, and in the end: contact sheets, tables and figures."""

Command = list[str]
"""What stands behind `python`."""


@dataclass(frozen=True)
class Work:
    """What is left of a run: whether to train it, and its scores."""

    run: Run
    train: bool
    scores: list[Score]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One command of some work: its multiply-adds, and how many samples it draws (0 where it trains)."""

    command: Command
    macs: int
    samples: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A suite, or some `parts` of it ("table2", "figure1"), with places: of checkpoints and caches, and of results.

    `names` are of runs, if not all are meant, and `stages` of what is done of them. The processes of a `launch` share
    a run, on cards of `card_gib`. `data` and `references` say by preset where they are, `vae` where the autoencoder is
    that learns from pictures, if not where the presets say; `extraction` has fields of a
    harness.metrics.Extraction: other networks than the published ones. Raises ValueError for parts, runs and presets
    that the suite does not have, and for processes that cannot share its batches.
    """

    suite: Suite
    runs: Path = field(default_factory=paths.runs)
    results: Path = field(default_factory=paths.home)
    parts: tuple[str, ...] = PARTS
    names: tuple[str, ...] = ()
    stages: tuple[str, ...] = STAGES
    launch: Launch = Launch()  # noqa: RUF009 (it is frozen)
    card_gib: float = CARD_GIB
    data: Mapping[str, str] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)
    vae: str | None = None
    extraction: tuple[tuple[str, Path | int], ...] = ()

    def __post_init__(self) -> None:
        presets = {run.preset for run in self.suite.runs()}
        for name in (*self.data, *self.references):
            if name not in presets:
                raise ValueError(
                    f"suite {self.suite.name} has no preset {name!r}; choose from {', '.join(sorted(presets))}"
                )
        for name in self.references:
            scores = [score for score in self.suite.scores() if score.run.preset == name]
            own = sorted({score.ref for score in scores if score.ref and _is_named(score.ref)})
            if own:
                raise ValueError(
                    f"suite {self.suite.name} compares with {' and '.join(own)} of its own: "
                    f"give --data {name}=FOLDER, and no --ref"
                )
        for part in self.parts:
            if part not in PARTS:
                raise ValueError(f"unknown part {part!r}; choose from {', '.join(PARTS)}")
        if not set(self.parts) & set(self.suite.parts):
            raise ValueError(f"suite {self.suite.name} has nothing of {', '.join(self.parts)}")
        known = [run.name for run in self.suite.runs(self.parts)]
        for name in self.names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=3) or known[:3]
                raise ValueError(f"suite {self.suite.name} has no run {name!r}; nearest: {', '.join(near)}")
        batches = sorted({run.config.batch for run in self.suite.runs(self.parts)})
        for batch in batches:
            if batch % self.launch.world:
                common = math.gcd(*batches)
                fitting = [str(count) for count in range(1, common + 1) if common % count == 0]
                raise ValueError(
                    f"{self.suite.name} has batches of {batch}, which {self.launch.world} processes cannot share; "
                    f"choose from {', '.join(fitting)} in all"
                )

    @property
    def records(self) -> Path:
        return self.results / "measurements" / f"{self.suite.name}.jsonl"

    def renewed(self) -> Plan:
        """This plan with what its records have settled since: choices that are made bring new rows."""
        if not self.suite.choices:
            return self
        return replace(self, suite=suite(self.suite.name, self.recorded()))

    def directory(self, run: Run) -> Path:
        return self.runs / run.name

    def checkpoint(self, run: Run, step: int) -> Path:
        return self.directory(run) / "checkpoints" / f"milestone-{step:07d}.pt"

    def sheet(self, score: Score) -> Path:
        """Where harness.sample draws a contact sheet: another place for other settings or weights trained anew."""
        checkpoint = self.checkpoint(score.run, score.step)
        since = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        digest = hashlib.sha256(repr((sorted(score.sampling.items()), since)).encode()).hexdigest()
        return self.directory(score.run) / f"samples-{score.step}-{digest[:8]}"

    def work(self) -> list[Work]:
        """Runs with something left to do, in order of need."""
        recorded, trained = self.recorded(), set[Run]()
        works = []
        for run, scores in self.suite.stages(self.parts):
            if self.means(run) and (left := self.left(run, scores, recorded)):
                works.append(replace(left, train=left.train and run not in trained))  # once, for scores of any need
                trained |= {run} if left.train else set()
        return works

    def means(self, run: Run) -> bool:
        """Whether the plan is of this run."""
        return not self.names or run.name in self.names

    def left(self, run: Run, scores: list[Score], recorded: list[Record]) -> Work | None:
        """What is left of some scores of a run, if anything.

        Where that trains the run anew, what is recorded of the same checkpoints is left, too: it is of other weights.
        So is what an earlier checkpoint of this run gave, whichever of its averages.
        """
        own = [one for one in of_kind(recorded, ScoreRecord) if run.name in Path(str(one.get("source"))).parts]
        earlier = of_earlier_weights(own, lambda _: run.name)
        recorded = [one for one in recorded if not (isinstance(one, ScoreRecord) and one.weights_sha256 in earlier)]

        def known(score: Score) -> bool:
            return not score.missing(self._comparable(score, recorded))

        missing = [score for score in scores if not known(score)]
        train = any(not self.checkpoint(run, score.step).exists() for score in missing)
        if train:
            steps = {score.step for score in missing}
            missing += [score for score in self.suite.runs().get(run, ()) if score.step in steps and known(score)]
        return Work(run, train, missing) if missing else None

    def _comparable(self, score: Score, recorded: list[Record]) -> list[Record]:
        """Records, without those that compare with another file than the reference that is given now."""
        reference = Path(self.references.get(score.run.preset, score.ref or "")).expanduser()
        if reference.suffix != ".npz" or not reference.is_file():
            return recorded
        digest = _digest(reference, reference.stat().st_mtime_ns)
        return [record for record in recorded if record.workload.get("reference_sha256") in (None, digest)]

    def recorded(self) -> list[Record]:
        """The suite's records."""
        return store.load(self.records) if self.records.exists() else []

    def tasks(self, work: Work) -> list[Task]:
        """What some work takes in the plan's stages, one after the other."""
        tasks = []
        if work.train and TRAIN in self.stages:
            tasks.append(Task(command=self.train(work.run), macs=training_macs(work.run)))
        for alike in grouped(work.scores) if SCORE in self.stages else ():
            macs, samples = sum(map(scoring_macs, alike)), sum(score.samples for score in alike)
            tasks.append(Task(command=self.score(alike), macs=macs, samples=samples))
        return tasks

    def opened(self, run: Run) -> dict[str, str]:
        """The data and the autoencoder of a run, where they are not where its preset says."""
        found = {"data": self.data[run.preset]} if run.preset in self.data else {}
        return found | ({"vae": self.vae} if self.vae and run.config.vae != "identity" else {})

    def _autoencoder(self, run: Run) -> list[str]:
        """For a command that draws: where the autoencoder is now, if it is not where training found it."""
        vae = self.opened(run).get("vae")
        return ["--vae", vae] if vae else []

    def train(self, run: Run) -> Command:
        data = [part for name, where in self.opened(run).items() for part in (f"--{name}", where)]
        if run.small:  # memory is no matter, and times are compared: each family at its fastest
            fitting = ["--keep-operands"] * named(run.spec.family).recomputes
        else:
            fitting = fitted(run, self.launch.world, self.card_gib).flags
        return ["-m", "harness.train", *run.flags(), *data, *fitting, "--out", str(self.directory(run))]

    def reference(self, score: Score) -> tuple[str | None, int | None]:
        """What a score compares with, and at which resolution where that is a folder: real pictures have any size."""
        ref = self.references.get(score.run.preset, score.ref)
        if ref is not None and _is_named(ref):
            return self.placed(ref), None
        as_it_is = ref is None or Path(ref).suffix == ".npz"
        return ref, None if as_it_is else score.run.config.resolution

    def placed(self, named: str) -> str:
        """A part of a data set by name, or where `data` says that its files are: "FOLDER:part"."""
        from harness.data.fashion_mnist import FashionMNIST, below

        name, _, part = named.partition(":")
        folders = [self.data[run.preset] for run in self.suite.runs() if run.preset in self.data]
        if name == FashionMNIST.name and folders and below(Path(folders[0]).expanduser()) is not None:
            return f"{folders[0]}:{part}"
        return named

    def score(self, scores: list[Score]) -> Command:
        """One command for several milestones of a run that are scored alike."""
        first = scores[0]
        ref, resolution = self.reference(first)
        milestones = [str(self.checkpoint(score.run, score.step)) for score in scores]
        features = ["--work-dir", str(self.runs / "eval"), "--records", str(self.records)]
        features += [part for name, value in self.extraction for part in (f"--{name.replace('_', '-')}", str(value))]
        where = ["--ckpt", *milestones, *(["--ref", ref] if ref else [])]
        where += ["--ref-resolution", str(resolution)] if resolution else []
        return ["-m", "harness.eval", *where, *first.flags(), *features, *self._autoencoder(first.run)]

    def floor(self) -> Command | None:
        """What scores real images as if they were samples; None where nothing is to be scored."""
        floor = self.suite.floor
        if floor is None or not floor.missing(self.recorded()):
            return None
        where = ["--work-dir", str(self.runs / "eval"), "--records", str(self.records)]
        placed = replace(floor, samples=self.placed(floor.samples), ref=self.placed(floor.ref))
        return ["-m", "harness.eval", *placed.flags(), *where]

    def draw(self, score: Score) -> Command:
        """A contact sheet, as many samples of each class; small ones are packed, too, to be looked into."""
        where = ["--ckpt", str(self.checkpoint(score.run, score.step)), "--out", str(self.sheet(score))]
        how = ["--cfg-scale", str(score.cfg_scale), "--steps", str(score.sampling_steps), "--classes", "balanced"]
        how += ["--sampler", score.sampler] if score.sampler != "ddpm" else []
        how += ["--seed", str(score.sample_seed), "--num-samples", str(SHOWN)]
        return ["-m", "harness.sample", *where, *how, *self._autoencoder(score.run), *["--npz"] * score.run.small]

    @property
    def tables(self) -> Path:
        """Where the suite's tables lie; those of suites that are no table's own have a folder."""
        return self.results / "tables" / ("" if self.suite.name in paper.SUITES else self.suite.name)

    @property
    def reported(self) -> bool:
        """Whether the tables are there, and none is older than the records."""
        written = [self.tables / f"{paper.QUALITY[name].part}.md" for name in self.suite.tables]
        since = self.records.stat().st_mtime_ns if self.records.exists() else 0
        current = all(path.exists() and path.stat().st_mtime_ns >= since for path in written)
        return current and self.floor() is None

    def report(self) -> list[Command]:
        """Tables and figures from all records of `results`."""
        where = ["--suite", self.suite.name, "--records", str(self.results / "measurements")]
        below = "" if self.suite.name in paper.SUITES else self.suite.name
        candidates = ["--output", str(self.results / "tables" / self.suite.name)]
        samples = ["--samples", str(self.results / "samples")]
        return [
            ["-m", "harness.tables", "--table", *self.suite.tables, *where, "--output", str(self.tables)],
            *([["-m", "harness.tables", "--table", "tuning", *where, *candidates]] if self.suite.choices else []),
            ["-m", "harness.plots", *where, *samples, "--output", str(self.results / "figures" / below)],
        ]


def _is_named(ref: str) -> bool:
    from harness.data import is_named  # data sets by name import numpy

    return is_named(ref)


def grouped(scores: list[Score]) -> list[list[Score]]:
    """Scores of a run that differ in their milestone alone, together."""
    alike: dict[tuple[str, ...], list[Score]] = {}
    for score in scores:
        alike.setdefault((*score.flags(), score.ref or ""), []).append(score)
    return list(alike.values())


@lru_cache
def _digest(file: Path, modified_ns: int) -> str:
    """The sha256 of a file as it was then."""
    return sha256(file)
