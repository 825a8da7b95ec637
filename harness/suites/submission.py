"""A plan as jobs of Slurm: a job a run, one that scores it when it is trained, one for the tables and figures.

Nothing is remembered about them: what is done is read from checkpoints and records, what waits, runs or has ended from
Slurm, which job does what from its name (harness.suites.batch).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from harness.core.locks import locked
from harness.suites import slurm
from harness.suites.allocation import Allocation
from harness.suites.batch import Batch, Submitter, read
from harness.suites.plan import REPORT, SCORE, TRAIN, Plan
from harness.suites.slurm import Job

DOING = {TRAIN: "training", SCORE: "scoring", REPORT: "tables and figures"}


@dataclass
class Queue:
    """The jobs of a plan: those that Slurm knows, and those that are submitted here.

    `submit` takes a batch and returns its number in Slurm, or what stands for it where nothing is submitted.
    """

    plan: Plan
    submit: Callable[[Batch], str]
    verb: str = "submitted"
    last: dict[tuple[str, str], Job] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    @property
    def places(self) -> tuple[str, str]:
        return str(self.plan.runs.absolute()), str(self.plan.results.absolute())

    def active(self, run: str, stage: str) -> Job | None:
        """The job that does this, if one waits or runs."""
        job = self.last.get((run, stage))
        return job if job and job.active else None

    def describe(self, run: str, stage: str) -> str:
        """What Slurm says of a stage of a run that is not done."""
        job = self.last.get((run, stage))
        if job is None or job.state == "COMPLETED":
            return f"{DOING[stage]}: {self.verb}"
        if job.active:
            return f"{DOING[stage]}: {job}"
        log = self.plan.runs / ("report.txt" if stage == REPORT else f"{run}/log.txt")
        return f"{DOING[stage]} failed: {job}, {log}; {self.verb} again"

    def send(self, stage: str, runs: list[str], dependency: str = "") -> str:
        """Submit one stage of some runs; returns the number of the array."""
        return self.submit(Batch(self.plan.suite.name, stage, tuple(runs), self.places, dependency))

    def fill(self) -> int:
        """Submit what is neither done nor active; returns how many runs are not done."""
        stages = self.plan.stages
        work: dict[str, bool] = {}
        for left in self.plan.work():  # of a run there may be several, with scores of more and less need
            if self.plan.tasks(left):
                work[left.run.name] = left.train or work.get(left.run.name, False)
        train = [run for run, new in work.items() if new and TRAIN in stages and not self.active(run, TRAIN)]
        idle = {run for run, new in work.items() if new and TRAIN not in stages and not self.active(run, TRAIN)}
        score = [run for run in work if SCORE in stages and run not in idle and not self.active(run, SCORE)]
        for run, untrained in work.items():
            state = "not trained yet" if run in idle else self.describe(run, TRAIN if untrained else SCORE)
            self.lines.append(f"{run}: {state}")
        trained_by = self.send(TRAIN, train) if train else ""
        waited_for = {str(job.number) for run in work if (job := self.active(run, SCORE))}
        together = len(train) > 1 and [run for run in score if run in train] == train
        waiting: dict[str, list[str]] = {}
        for run in score:
            training = self.active(run, TRAIN)
            if run not in train:
                dependency = f"afterok:{training.place}" if training and work[run] else ""
            elif together:  # each for the member of the same index
                dependency = f"aftercorr:{trained_by}"
            else:
                dependency = f"afterok:{trained_by}" + (f"_{train.index(run)}" if len(train) > 1 else "")
            waiting.setdefault(dependency, []).append(run)
        waited_for |= {self.send(SCORE, runs, dependency) for dependency, runs in waiting.items()}
        if REPORT in stages and not work and not self.plan.reported:
            self.lines.append(self.describe(REPORT, REPORT))
        if REPORT in stages and (work or not self.plan.reported) and not self.active(REPORT, REPORT):
            self.send(REPORT, [REPORT], f"afterany:{':'.join(sorted(waited_for))}" if waited_for else "")
        return len(work)


def submit(plan: Plan, allocation: Allocation, at_a_time: int | None = None) -> tuple[list[str], bool]:
    """Submit what a plan lacks and no job does already, at most `at_a_time` jobs of an array running at once.

    Returns what to print, and whether all is done. Raises ValueError for a folder that others can write into, for what
    some job would stop at, and without submitit; LockedError when another process submits this; OSError, with Slurm's
    words, where it refuses.
    """
    folder = plan.runs.absolute() / "slurm"
    if not allocation.dry_run:
        plan.runs.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        _require_private(folder)
    submitter = Submitter(plan, allocation, folder, at_a_time)
    scripts: list[str] = []

    def show(batch: Batch) -> str:
        scripts.append(submitter.script(batch))
        return batch.name

    from harness.suites.preflight import require_inputs  # it imports numpy

    look_once = cache(lambda: require_inputs(plan))  # where there is something to submit, not whenever somebody looks

    def submit_sound(batch: Batch) -> str:
        if batch.stage != REPORT:
            look_once()
        return submitter.submit(batch)

    with locked(folder) if not allocation.dry_run else nullcontext():
        queue = Queue(plan, show, "to be submitted") if allocation.dry_run else Queue(plan, submit_sound)
        with suppress(OSError) if allocation.dry_run else nullcontext():  # it may be looked at where Slurm is not
            queue.last = look(folder)  # before the records: what has ended by now is recorded by now
        left = queue.fill()
    runs = sum(map(plan.means, plan.suite.runs(plan.parts)))
    done = f"{runs - left} of {runs} runs done"
    if allocation.dry_run:
        return [*(f"# {line}" for line in queue.lines), f"# {done}", *scripts], not queue.lines
    return [*queue.lines, done], not queue.lines


def look(folder: Path) -> dict[tuple[str, str], Job]:
    """The last job of each run and stage, as Slurm knows it. Raises OSError where Slurm cannot be read."""
    batches = {path.stem: read(path) for path in sorted(folder.glob("*.json"))} if folder.is_dir() else {}
    found: dict[tuple[str, str], Job] = {}
    known = slurm.jobs(batches, (number for batch in batches.values() for number in batch["jobs"]))
    forgotten = [
        Job(number, index if len(batch["runs"]) > 1 else None, name, "UNKNOWN", "Slurm has forgotten it")
        for name, batch in batches.items()
        for number in set(batch["jobs"]) - {job.number for job in known}
        for index in range(len(batch["runs"]))
    ]
    names = {number: name for name, batch in batches.items() for number in batch["jobs"]}
    for job in sorted([*known, *forgotten], key=lambda job: job.number):
        batch = batches.get(names.get(job.number, job.name))
        if batch and (job.index or 0) < len(batch["runs"]):
            found[batch["runs"][job.index or 0], batch["stage"]] = job
    return found


def _require_private(folder: Path) -> None:
    """Raise ValueError for a folder that others can write into: jobs run what lies there."""
    there = folder.stat()
    if there.st_uid != os.getuid() or there.st_mode & 0o022:
        raise ValueError(f"{folder} can be written by others, and jobs run what lies there: chmod go-w it, or own it")
