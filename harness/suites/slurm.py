"""Slurm as it answers: what became of jobs, by squeue and sacct, and how a job gives its place back.

Nothing here is remembered: a job that neither command knows is one that Slurm does not know.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.suites.launch import JOB, first_node

ENDED = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED LAUNCH_FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED RECONFIG_FAIL "
    "REVOKED TIMEOUT UNKNOWN".split()
)
"""States of a job that will not run again; in every other one it waits, runs, or is about to."""
NEVER = "DependencyNeverSatisfied"
"""Why a job waits that Slurm is about to cancel: the job that it depends on failed."""


@dataclass(frozen=True)
class Job:
    """A job, or one of an array: its number, its place in the array, its name, and its state in Slurm's words."""

    number: int
    index: int | None
    name: str
    state: str
    reason: str = ""

    @property
    def place(self) -> str:
        """As Slurm writes it."""
        return str(self.number) if self.index is None else f"{self.number}_{self.index}"

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state not in ENDED and self.reason != NEVER

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason not in ("", "None") else ""
        return f"{self.state}{why}, job {self.place}"


def jobs(names: Iterable[str], numbers: Iterable[int]) -> list[Job]:
    """This user's jobs of these names or numbers, the oldest first: what squeue lists, and what sacct alone remembers.

    Raises OSError, with Slurm's own words, where the queue cannot be read. Without accounting there is no sacct, and
    Slurm forgets a job some minutes after its end (MinJobAge).
    """
    wanted, known = set(names), set(numbers)
    found: dict[str, Job] = {}
    if known:
        columns = ["--noheader", "--parsable2", "--allocations", "--format", "JobID,JobName,State,ExitCode"]
        try:
            past = _ask("sacct", *columns, "--jobs", ",".join(map(str, sorted(known))))
        except OSError:  # no accounting
            past = ""
        found |= {job.place: job for job in _of_sacct(past)}
    listed = _ask("squeue", "--me", "--states=all", "--array", "--noheader", "--format", "%F|%K|%T|%r|%j")
    found |= {job.place: job for job in _of_squeue(listed) if job.name in wanted or job.number in known}
    return sorted(found.values(), key=lambda job: (job.number, job.index or 0))


def _of_squeue(text: str) -> Iterator[Job]:
    for line in text.splitlines():
        number, index, state, reason, name = line.split("|", 4)
        yield Job(int(number), int(index) if index.isdecimal() else None, name, state, reason)


def _of_sacct(text: str) -> Iterator[Job]:
    """Of an array, members that wait are one line with a range, which squeue separates."""
    for line in text.splitlines():
        place, name, state, code = line.split("|", 3)
        number, _, index = place.partition("_")
        if number.isdecimal() and (not index or index.isdecimal()):
            word = state.split(" ")[0] or "UNKNOWN"  # "CANCELLED by 1000"
            why = "" if code in ("", "0:0") else f"exit code {code}"
            yield Job(int(number), int(index) if index else None, name, word, why)


def in_job(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is of a job that harness.reproduce submitted."""
    return environment.get("SUBMITIT_EXECUTOR") == "slurm" and JOB in environment


def give_back(environment: Mapping[str, str] = os.environ) -> bool:
    """Put this job back into the queue, if it still runs; returns whether that was done.

    A job that is cancelled is not running any more, and stays cancelled; one that Slurm itself puts back needs no help.
    """
    if not in_job(environment) or not first_node(environment):
        return False
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    number = f"{array}_{task}" if array and task else environment[JOB]  # of one member JOB is the whole array's
    try:
        if _ask("squeue", "--noheader", "--jobs", number, "--format", "%T").strip() != "RUNNING":
            return False
        _ask("scontrol", "requeue", number)
    except OSError as error:
        print(f"job {number} stays where it is: {error}", file=sys.stderr)
        return False
    return True


def _ask(program: str, *arguments: str) -> str:
    """What a command of Slurm prints. Raises OSError with the first line of its complaint."""
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        raise OSError(f"no {program} on this machine: is it one that submits to Slurm?") from None
    except subprocess.TimeoutExpired:
        raise OSError(f"{program} gave no answer for two minutes") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise OSError(f"{program}: {lines[0].removeprefix(f'{program}: ')}")
    return done.stdout
