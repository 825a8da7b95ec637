"""Rebuild the paper's comparison: train what is missing, score it, make every table and figure.

    python -m harness.reproduce --suite digits                     embedded data, a CPU
    python -m harness.reproduce --suite paper --plan               the commands for a cluster, with their cost
    python -m harness.reproduce --suite paper --only table5 --nproc-per-node 8 --data imagenet256=/data/imagenet/train

Each run has a directory named by its settings, each score a record: nothing is done twice, a changed setting is a new
run, and the same command continues wherever it was stopped or killed. Exit codes: 0 done; 1 some run failed, and is
named; 2 bad input; 75 stopped by SIGTERM or SIGINT, to be continued.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from harness.core import paths, store
from harness.core.command import Parser, positive
from harness.data import EMBEDDED
from harness.suites.budget import fitted, macs_per_item, scoring_macs, training_macs
from harness.suites.children import Workers, locked
from harness.suites.run import Run, Score
from harness.suites.suite import SUITES, Suite, suite

STOPPED = 75
"""EX_TEMPFAIL of sysexits.h: try again."""
PARTS = {"figure1": 1, **{f"table{number}": number for number in (2, 3, 5, 6, 7)}}
SHOWN = 60
"""Samples on a contact sheet."""
LOOK_EVERY_S = 2.0
"""Between looks at how far the runs are."""
KEPT = ("grid.png", "preview.gif", "settings.json", "samples.npz")
CARD_GIB = 78.0
"""What a card of 80 GB has for a process, and a little less."""


def parser() -> Parser:
    door = Parser(prog="harness.reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    door.add_argument("--suite", choices=SUITES, default="digits", help="default: %(default)s")
    door.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    door.add_argument("--plan", action="store_true", help="print the commands and what they cost; run nothing")
    door.add_argument("--jobs", type=positive, default=1, help="runs at a time, sharing the cores (default 1)")
    door.add_argument("--nproc-per-node", type=positive, default=1, metavar="N", help="processes, under torchrun")
    door.add_argument("--card-gib", type=float, default=CARD_GIB, metavar="GIB",
                      help="memory of a card: a larger run recomputes activations, and takes its batch in parts "
                           "(default: %(default)g)")
    door.add_argument("--device-flops", type=float, default=1e14, help="FLOP/s for the plan (default: %(default).0e)")
    door.add_argument("--data", nargs="+", type=_pair, default=[], metavar="PRESET=WHERE", help="where its data is")
    door.add_argument("--ref", nargs="+", type=_pair, default=[], metavar="PRESET=WHERE", help="its reference for FID")
    door.add_argument("--runs", type=Path, default=paths.runs(), metavar="DIR", help="default: %(default)s")
    door.add_argument("--results", type=Path, default=paths.home(), metavar="DIR", help="default: %(default)s")
    return door


def _pair(text: str) -> tuple[str, str]:
    """argparse type: `imagenet256=/data/imagenet/train`."""
    name, equals, where = text.partition("=")
    if not (name and equals and where):
        raise argparse.ArgumentTypeError(f"{text!r} is not PRESET=WHERE")
    return name, where


def _shown(path: Path) -> str:
    """As commands and records name it: relative to the checkout, where commands run, if it lies inside."""
    path = path.absolute()
    return str(path.relative_to(paths.CHECKOUT) if path.is_relative_to(paths.CHECKOUT) else path)


@dataclass(frozen=True)
class Plan:
    """A suite with the places of this call: which commands fill it, and which of those are still to be run."""

    suite: Suite
    tables: tuple[int, ...]
    runs: Path
    results: Path
    processes: int
    card_gib: float
    data: dict[str, str]
    references: dict[str, str]

    @property
    def records(self) -> Path:
        return self.results / "measurements" / f"{self.suite.name}.jsonl"

    def directory(self, run: Run) -> Path:
        return self.runs / run.name

    def checkpoint(self, run: Run, step: int) -> Path:
        return self.directory(run) / "checkpoints" / f"milestone-{step:07d}.pt"

    def train(self, run: Run) -> list[str]:
        data = ["--data", self.data[run.preset]] if run.preset in self.data else []
        fitting = [] if run.preset in EMBEDDED else fitted(run, self.processes, self.card_gib)[0]
        return ["-m", "harness.train", *run.flags(), *data, *fitting, "--out", _shown(self.directory(run))]

    def score(self, scores: list[Score]) -> list[str]:
        """One command for several milestones of a run that are scored alike."""
        first = scores[0]
        ref = self.references.get(first.run.preset, first.ref)
        milestones = [_shown(self.checkpoint(score.run, score.step)) for score in scores]
        features = ["--work-dir", _shown(self.runs / "eval"), "--records", _shown(self.records)]
        where = ["--ckpt", *milestones, *(["--ref", ref] if ref else [])]
        return ["-m", "harness.eval", *where, *first.flags(), *features]

    def draw(self, score: Score) -> list[str]:
        """A contact sheet, as many samples of each class; small ones are packed, too, to be looked into."""
        where = ["--ckpt", _shown(self.checkpoint(score.run, score.step)), "--out", _shown(self.sheet(score))]
        how = ["--cfg-scale", str(score.cfg_scale), "--steps", str(score.sampling_steps), "--classes", "balanced"]
        how += ["--seed", str(score.run.seed), "--num-samples", str(SHOWN)]
        return ["-m", "harness.sample", *where, *how, *(["--npz"] if score.run.preset in EMBEDDED else [])]

    def report(self) -> list[list[str]]:
        """Tables and figures from all records of `results`; those of the embedded suites are the ones at hand."""
        where = ["--suite", self.suite.name, "--measurements", _shown(self.results / "measurements")]
        below = "" if self.suite.name in EMBEDDED else self.suite.name
        tables = [str(number) for number in sorted({row.table for row in self.suite.rows} - {1})]
        return [
            ["-m", "harness.tables", "--table", *tables, *where, "--output", _shown(self.results / "tables" / below)],
            ["-m", "harness.plots", *where, "--output", _shown(self.results / "figures" / below)],
        ]

    def sheet(self, score: Score) -> Path:
        return self.directory(score.run) / f"samples-{score.step}"

    def missing(self) -> list[tuple[Run, bool, list[Score]]]:
        """Runs with something left to do: whether to train, and which scores; in order of need."""
        records = store.load(self.records) if self.records.exists() else []
        todo = []
        for run, scores in self.suite.runs(self.tables).items():
            left = [score for score in scores if score.missing(records)]
            train = any(not self.checkpoint(run, score.step).exists() for score in left)
            if left:
                todo.append((run, train, left))
        return todo


def grouped(scores: list[Score]) -> list[list[Score]]:
    """Scores of a run that differ in their milestone alone, together."""
    alike: dict[tuple[str, ...], list[Score]] = {}
    for score in scores:
        alike.setdefault(tuple(score.flags()), []).append(score)
    return list(alike.values())


def show(plan: Plan, device_flops: float) -> Iterator[str]:
    """The plan as a shell script: what each run costs, then the lines that a scheduler would take."""
    torchrun = f"torchrun --nproc-per-node {plan.processes}" if plan.processes > 1 else "python"
    todo, hours = plan.missing(), 0.0
    for run, train, scores in tqdm(todo, desc="planning", unit="run", disable=None, leave=False):
        flags, gib = fitted(run, plan.processes, plan.card_gib)
        training = training_macs(run, recomputed=bool(flags)) * train
        macs = training + sum(map(scoring_macs, scores))
        needed = 2 * macs / device_flops / 3600
        hours += needed
        yield (
            f"# {run.name}: {macs_per_item(run) / 1e9:.4g} GMACs an item, {macs:.3g} MACs in all "
            f"({100 * training / macs:.0f} % training), {gib:.3g} GiB a card, "
            f"{needed:.3g} GPU-hours at {device_flops:.2g} FLOP/s"
        )
        if train:
            yield f"{torchrun} {shlex.join(plan.train(run))}"
        for alike in grouped(scores):
            yield f"{torchrun} {shlex.join(plan.score(alike))}"
    count = sum(len(scores) for *_, scores in todo)
    yield f"# {len(todo)} runs, {count} scores, {hours:.4g} GPU-hours at {device_flops:.2g} FLOP/s"


def trained(directory: Path) -> int:
    """How many steps a run's log of losses has."""
    try:
        with (directory / "losses.jsonl").open("rb") as file:
            file.seek(-min(file.seek(0, os.SEEK_END), 200), os.SEEK_END)
            return json.loads(file.read().splitlines()[-1])["step"]
    except (OSError, IndexError, KeyError, ValueError):  # not begun, or a line that is being written
        return 0


def carry_out(plan: Plan, workers: Workers, jobs: int) -> list[str]:
    """Train and score what is missing; returns the failures, each in a line. A failure ends its run, not the others."""
    todo = plan.missing()
    untrained = {run for run, train, _ in todo if train}
    done: list[int] = []
    failures: list[str] = []
    total = sum(training_macs(run) * train + sum(map(scoring_macs, scores)) for run, train, scores in todo)

    def work(run: Run, train: bool, scores: list[Score]) -> None:
        if workers.stopped.is_set():
            return
        with locked(plan.directory(run), run.name) as lock:
            log = plan.directory(run) / "log.txt"
            steps = [(plan.train(run), training_macs(run))] if train else []
            steps += [(plan.score(alike), sum(map(scoring_macs, alike))) for alike in grouped(scores)]
            for command, macs in steps:
                bar.set_postfix_str(run.name, refresh=True)
                failure = workers.run(command, log, lock)
                untrained.discard(run)
                if workers.stopped.is_set():
                    return
                if failure:
                    failures.append(failure)
                    tqdm.write(failure, file=sys.stderr)
                    return
                done.append(macs)

    def so_far() -> float:
        begun = (training_macs(run) * trained(plan.directory(run)) / run.config.steps for run in list(untrained))
        return sum(done) + sum(begun)

    with (
        tqdm(
            total=total, initial=so_far(), unit="MAC", unit_scale=True, desc=plan.suite.name, smoothing=0
        ) as bar,
        ThreadPoolExecutor(jobs) as pool,
    ):
        pending = {pool.submit(work, *item) for item in todo}
        while pending:
            finished, pending = wait(pending, timeout=LOOK_EVERY_S, return_when=FIRST_COMPLETED)
            bar.update(max(0, so_far() - bar.n))
            for future in finished:
                future.result()
    return failures


def finish(plan: Plan, workers: Workers) -> list[str]:
    """Contact sheets, tables and figures from what there is."""
    failures = []
    for score in plan.suite.shown:
        if not plan.checkpoint(score.run, score.step).exists() or workers.stopped.is_set():
            continue
        joint = "-IMG" if score.run.config.joint_images else ""
        kept = plan.results / "samples" / plan.suite.name / (score.run.model.replace("/", "-") + joint)
        with locked(plan.directory(score.run), score.run.name) as lock:
            failure = workers.run(plan.draw(score), plan.directory(score.run) / "log.txt", lock)
            if failure:
                failures.append(failure)
            elif not workers.stopped.is_set():
                kept.mkdir(parents=True, exist_ok=True)
                for file in plan.sheet(score).glob("*.*"):
                    if file.name in KEPT:
                        shutil.copyfile(file, kept / file.name)
    for command in plan.report():
        if not workers.stopped.is_set():
            with locked(plan.runs, "the results") as lock:
                failures += filter(None, [workers.run(command, plan.runs / "report.txt", lock)])
    return failures


def main(arguments: Sequence[str] | None = None) -> int:
    door = parser()
    asked = door.parse_args(arguments)
    tables = tuple(PARTS[part] for part in asked.only)
    chosen = suite(asked.suite)
    presets = {row.scores[0].run.preset for row in chosen.rows}
    for name, _ in [*asked.data, *asked.ref]:
        if name not in presets:
            door.error(f"suite {chosen.name} has no preset {name!r}; choose from {', '.join(sorted(presets))}")
    if not any(row.table in tables for row in chosen.rows):
        door.error(f"suite {chosen.name} has nothing of {', '.join(asked.only)}")
    for batch in sorted({run.config.batch for run in chosen.runs(tables)}):
        if batch % asked.nproc_per_node:
            door.error(f"{chosen.name} has batches of {batch}, which {asked.nproc_per_node} processes cannot share")
    plan = Plan(
        suite=chosen, tables=tables, runs=asked.runs, results=asked.results, processes=asked.nproc_per_node,
        card_gib=asked.card_gib, data=dict(asked.data), references=dict(asked.ref),
    )  # fmt: skip
    if asked.plan:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it quietly
        for line in show(plan, asked.device_flops):
            print(line)
        return 0
    workers = Workers(asked.nproc_per_node, max(1, (os.cpu_count() or 1) // (asked.jobs * asked.nproc_per_node)))
    previous = {number: signal.signal(number, workers.stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        failures = carry_out(plan, workers, asked.jobs)
        failures += finish(plan, workers)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if workers.stopped.is_set():
        print("stopped; the same command continues", flush=True)
        return STOPPED
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
