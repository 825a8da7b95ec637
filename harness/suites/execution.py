"""Carrying a plan out on this machine, or a node of a job: commands as child processes, logged, ended on request."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Protocol

from tqdm import tqdm

from harness.core import paths, store
from harness.core.files import write_atomically
from harness.core.locks import LockedError, locked
from harness.core.progress import counted, progress_bar
from harness.suites.budget import training_macs
from harness.suites.launch import NODE, Launch, first_node
from harness.suites.plan import REPORT, SCORE, Command, Plan, Task, Work
from harness.suites.run import Run
from harness.suites.score import Score

LOOK_EVERY_S = 2.0
"""Between looks at how far the runs are."""
GRACE_S = 600
"""What torchrun gives its processes to write a checkpoint, where it knows how to wait longer than 30 s."""
KEPT = ("grid.png", "preview.gif", "settings.json", "samples.npz")
"""What is kept of a contact sheet."""


class Child(Protocol):
    """A command that runs."""

    def wait(self) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


@dataclass
class Workers:
    """Runs commands as children, each launched so, of so many threads a process, and ends them on request."""

    launch: Launch
    threads: int
    stopped: threading.Event = field(default_factory=threading.Event)
    children: set[Child] = field(default_factory=set)

    def stop(self, number: int = signal.SIGTERM, frame: object = None) -> None:
        """End all children, and start no more; a handler of signals.

        Once: torchrun breaks off what it does at the second. Who types Ctrl-C twice does not want to wait.
        """
        again = self.stopped.is_set()
        self.stopped.set()
        for child in list(self.children):
            if not again:
                child.terminate()
            elif number == signal.SIGINT:
                child.kill()

    def run(self, command: Command, log: Path, lock: int | None, home: Path, alone: bool = False) -> str:
        """One command; its output goes to `log`. Returns "" or why it failed. The child keeps the lock if we die.

        One that is not for several processes is started `alone`.

        It has a session of its own, where it gets each signal once, from here: torchrun breaks off at the second.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        child = self.start(command, log, lock, home, Launch() if alone else self.launch)
        self.children.add(child)
        if self.stopped.is_set():
            child.terminate()
        code = child.wait()
        self.children.discard(child)
        if code == 0 or self.stopped.is_set():
            return ""
        lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
        return f"{shlex.join(command)} ended with {code}: {lines[-1].split(chr(13))[-1]} ({log})"

    def start(self, command: Command, log: Path, lock: int | None, home: Path, launch: Launch) -> Child:
        """Begin a command."""
        with log.open("ab") as file:
            return subprocess.Popen(
                [*launch.command(), *command], stdout=file, stderr=subprocess.STDOUT, env=self.environment(home),
                pass_fds=[] if lock is None else [lock], start_new_session=True,
            )  # fmt: skip

    def environment(self, home: Path) -> dict[str, str]:
        """Of a child: its threads, this package whatever lies in the working directory, and where results go."""
        count = str(self.threads)
        path = os.pathsep.join(filter(None, [str(paths.CHECKOUT), os.environ.get("PYTHONPATH")]))
        return {
            "OMP_NUM_THREADS": count, "NUMBA_NUM_THREADS": count, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(GRACE_S),
            "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
            **os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", paths.VARIABLE: str(home),
        }  # fmt: skip


@contextmanager
def claimed(plan: Plan, name: str, workers: Workers | None = None) -> Iterator[int | None]:
    """The right to work on a run, or on the report; waits for a child that an earlier call left behind.

    The lock lies outside the run's directory, whose own lock is the trainer's. Of the nodes of a job the first has it.
    Raises LockedError where the workers are stopped meanwhile.
    """
    if not first_node():
        yield None
        return
    wait = (lambda: not workers.stopped.is_set()) if workers else True
    with locked(plan.runs / ".locks" / name, wait) as lock:
        yield lock


def log_of(directory: Path) -> Path:
    """Where the output of a run's commands goes; of a job's further nodes, each has its own."""
    return directory / ("log.txt" if first_node() else f"log-node{os.environ[NODE]}.txt")


def trained(directory: Path) -> int:
    """How many steps a run's log of losses has."""
    try:
        with (directory / "losses.jsonl").open("rb") as file:
            file.seek(-min(file.seek(0, os.SEEK_END), 200), os.SEEK_END)
            return int(json.loads(file.read().splitlines()[-1])["step"])
    except (OSError, IndexError, KeyError, ValueError):  # not begun, or a line that is being written
        return 0


@dataclass(frozen=True)
class Scoring:
    """A command that draws samples, and its output, which begins at a byte of a log."""

    task: Task
    log: Path
    begin: int

    @classmethod
    def of(cls, task: Task, log: Path) -> Scoring:
        """A command that is about to begin."""
        return cls(task, log, log.stat().st_size if log.exists() else 0)

    @property
    def macs(self) -> float:
        """Of what its bars have counted: samples, and at first the reference, where its features are not kept yet."""
        try:
            with self.log.open("rb") as file:
                file.seek(self.begin)
                output = file.read().decode(errors="replace")
        except OSError:
            return 0.0
        return self.task.macs * min(1.0, counted(output) / self.task.samples)


@dataclass
class Progress:
    """How much of some work is done, in multiply-adds: tasks that ended, and parts of those that run.

    In `training` are all runs that are to be trained, begun or not: an earlier call may have left some steps.
    """

    plan: Plan
    done: list[int] = field(default_factory=list)
    training: set[Run] = field(default_factory=set)
    scoring: dict[Run, Scoring] = field(default_factory=dict)

    def begin(self, run: Run, task: Task) -> None:
        """A task of a run is about to begin."""
        if task.samples:
            self.scoring[run] = Scoring.of(task, log_of(self.plan.directory(run)))

    def end(self, run: Run, task: Task, failed: bool) -> None:
        """A task of a run has ended."""
        self.training.discard(run)
        self.scoring.pop(run, None)
        if not failed:
            self.done.append(task.macs)

    @property
    def macs(self) -> float:
        trained_macs = (
            training_macs(run) * trained(self.plan.directory(run)) / run.config.steps for run in list(self.training)
        )
        return sum(self.done) + sum(trained_macs) + sum(one.macs for one in list(self.scoring.values()))


def carry_out(plan: Plan, workers: Workers, jobs: int) -> list[str]:
    """Train and score what is missing; returns the failures, each in a line. A failure ends its run, not the others.

    What is left is looked up after each run: a choice that its scores complete brings further ones.
    """
    todo = plan.work()
    progress = Progress(plan, training={work.run for work in todo if work.train})
    failures: list[str] = []
    begun: set[tuple[Run, tuple[Score, ...]]] = set()
    failed: set[Run] = set()

    def fail(run: Run, failure: str) -> None:
        failed.add(run)
        failures.append(failure)
        tqdm.write(failure, file=sys.stderr)

    def diverged(run: Run) -> str:
        """Why a candidate has no score; "" for a run that is no candidate or failed for another reason."""
        from harness.diffusion.config import DIVERGED  # it imports numpy

        path = plan.directory(run) / DIVERGED
        return path.read_text() if path.exists() and run in plan.suite.candidates else ""

    def work_on(work: Work) -> None:
        run = work.run
        with claimed(plan, run.name, workers) as lock:
            left = plan.left(run, work.scores, plan.recorded())  # anew: whoever held the claim may have done it
            for task in plan.tasks(left) if left else ():
                if workers.stopped.is_set():
                    return
                bar.set_postfix_str(f"{'scoring' if task.samples else 'training'} {run.name}", refresh=False)
                progress.begin(run, task)
                failure = workers.run(task.command, log_of(plan.directory(run)), lock, plan.results)
                if workers.stopped.is_set():
                    return
                progress.end(run, task, failed=bool(failure))
                if left and failure and not task.samples and (reason := diverged(run)):
                    store.append(plan.records, [one for score in left.scores for one in score.diverged(reason)])
                    tqdm.write(f"a candidate is not chosen: {run.name} diverged: {reason}", file=sys.stderr)
                    return
                if failure:
                    fail(run, failure)
                    return

    total = sum(task.macs for work in todo for task in plan.tasks(work))
    with (
        progress_bar(
            total, "MAC", plan.suite.name, initial=progress.macs, unit_scale=True, smoothing=0
        ) as bar,
        ThreadPoolExecutor(jobs) as pool,
    ):  # fmt: skip
        running: dict[Future[None], Run] = {}
        while True:
            for work in todo:
                key = (work.run, tuple(work.scores))
                if len(running) == jobs or workers.stopped.is_set():
                    break
                if key not in begun and work.run not in failed and work.run not in running.values():
                    begun.add(key)
                    running[pool.submit(work_on, work)] = work.run
            if not running:
                break
            finished, _ = wait(running, timeout=LOOK_EVERY_S, return_when=FIRST_COMPLETED)
            bar.update(max(0, progress.macs - bar.n))
            for future in finished:
                run = running.pop(future)
                try:
                    future.result()
                except LockedError:
                    if not workers.stopped.is_set():  # whoever is stopped waits for nobody
                        raise
                except OSError as error:  # its log cannot be written, or its folder cannot be made
                    fail(run, f"{run.name}: {error}")
            if finished and not workers.stopped.is_set():
                plan = plan.renewed()
                todo = plan.work()
                new = {work.run for work in todo if work.train} - failed - set(running.values())
                progress.training |= {run for run in new if not any(run == known for known, _ in begun)}
                further = sum(task.macs for work in todo for task in plan.tasks(work))
                bar.total = max(bar.total, sum(progress.done) + further)
    if SCORE in plan.stages and not failures and not workers.stopped.is_set():
        failures += [
            f"{work.run.name} was scored, and no record in {plan.records} answers {work.scores[0].metrics[0]}"
            for work in plan.work()
            if (work.run, tuple(work.scores)) in begun
        ]
    return failures


def _copy(source: Path, target: IO[bytes]) -> None:
    target.write(source.read_bytes())


def finish(plan: Plan, workers: Workers) -> list[str]:
    """The floor, contact sheets, tables and figures from what there is; returns the failures."""
    failures = []
    floor = plan.floor()
    if floor and not workers.stopped.is_set():
        with claimed(plan, REPORT, workers) as lock:
            failure = workers.run(floor, plan.runs / "report.txt", lock, plan.results)
            failures += [failure] if failure else []
    for score in plan.suite.shown:
        if not plan.checkpoint(score.run, score.step).exists() or workers.stopped.is_set():
            continue
        joint = "-IMG" if score.run.config.joint_images else ""
        kept = plan.results / "samples" / plan.suite.name / (score.run.model.replace("/", "-") + joint)
        with claimed(plan, score.run.name, workers) as lock:
            failure = workers.run(plan.draw(score), log_of(plan.directory(score.run)), lock, plan.results)
            if failure:
                failures.append(failure)
            elif not workers.stopped.is_set():
                kept.mkdir(parents=True, exist_ok=True)
                for file in plan.sheet(score).glob("*.*"):
                    if file.name in KEPT:
                        write_atomically(kept / file.name, partial(_copy, file))
    for command in plan.report():
        if not workers.stopped.is_set():
            with claimed(plan, REPORT, workers) as lock:
                failure = workers.run(command, plan.runs / "report.txt", lock, plan.results, alone=True)
                failures += [failure] if failure else []
    return failures
