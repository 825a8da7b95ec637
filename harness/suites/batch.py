"""Jobs of Slurm that are alike but for their run, and how submitit is given them.

A job is this package's own command, restricted to one run and stage, so that a job which runs again (put back by Slurm,
submitted twice) finds what is left, and does nothing twice. A job's name says what it does: it is that of a file
which is written before the job is submitted, and lists the runs in the order of the array.

The command runs in the very process that submitit starts. Slurm signals that one alone (proctrack/cgroup spares its
children), and submitit takes no notice of SIGTERM: a command in a child of it, as submitit's CommandFunction, would be
killed without a word.
"""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core import paths
from harness.core.files import read_json, write_json
from harness.suites.allocation import Allocation
from harness.suites.plan import REPORT, STAGES, Plan

CORES = 4
"""Of each process: its own and those of the threads that prepare its batches."""
LEAD_S = 180
"""How long before its time limit a job is signalled to write a checkpoint and go back to the queue."""


@dataclass(frozen=True)
class Batch:
    """One stage of some runs of a suite, an array if there are several; `dependency` as sbatch takes it.

    `places` are the folders of runs and results.
    """

    suite: str
    stage: str
    runs: tuple[str, ...]
    places: tuple[str, str]
    dependency: str = ""

    @property
    def name(self) -> str:
        """The same for the same work in the same folders, and for no other."""
        digest = hashlib.sha256(json.dumps([self.stage, self.runs, self.places]).encode()).hexdigest()
        return f"{self.suite}-{self.stage}-{digest[:12]}"


@dataclass(frozen=True)
class Submitter:
    """Gives a plan's batches to Slurm: files lie in `folder`, at most `at_a_time` jobs of an array run at once."""

    plan: Plan
    allocation: Allocation
    folder: Path
    at_a_time: int | None = None

    def submit(self, batch: Batch) -> str:
        """Submit a batch, and write its number down; returns that.

        Raises OSError with Slurm's words where it refuses, ValueError without submitit.
        """
        submitit = _submitit()
        path = self.folder / f"{batch.name}.json"
        earlier = read(path)["jobs"] if path.exists() else []
        settings = {"stage": batch.stage, "runs": list(batch.runs)}
        write_json(path, {**settings, "jobs": earlier})
        try:
            executor = submitit.SlurmExecutor(folder=self.folder / "jobs", python=python())
            executor.update_parameters(**self.parameters(batch))
            jobs = executor.map_array(be, [self.arguments(batch, run) for run in batch.runs])
        except RuntimeError as error:  # of which submitit's own errors are
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise OSError(f"Slurm took no job: {lines[0].removeprefix('sbatch: error: ')}") from error
        number = str(jobs[0].job_id).partition("_")[0]
        write_json(path, {**settings, "jobs": [*earlier, int(number)]})
        return number

    def script(self, batch: Batch) -> str:
        """What sbatch would be given, and in comments what each job then runs. Raises ValueError without submitit."""
        _submitit()
        from submitit.slurm.slurm import _make_sbatch_string  # by which SlurmExecutor writes its scripts

        settings = self.parameters(batch)
        if len(batch.runs) > 1:
            settings["map_count"] = len(batch.runs)
        folder = self.folder / "jobs"
        runner = f"{python()} -u -m submitit.core._submit {shlex.quote(str(folder))}"
        commands = [f"# {n}: python -m {shlex.join(self.arguments(batch, run))}" for n, run in enumerate(batch.runs)]
        return "\n".join([str(_make_sbatch_string(command=runner, folder=folder, **settings)), *commands])

    def parameters(self, batch: Batch) -> dict[str, Any]:
        """A batch as submitit's SlurmExecutor takes it."""
        launch, others = self.plan.launch, self.allocation.others
        cores = int(others.pop("cpus-per-task", CORES * launch.processes))
        found: dict[str, Any] = {
            "job_name": batch.name,
            "time": self.allocation.minutes,
            "nodes": self._nodes(batch),
            "ntasks_per_node": 1,
            "cpus_per_task": cores,
            "stderr_to_stdout": True,
            # srun does not take over sbatch's cores since Slurm 22.05; the nodes of a run end together
            "srun_args": [f"--cpus-per-task={cores}", "--kill-on-bad-exit=1"],
            "additional_parameters": {
                "requeue": True, "signal": f"TERM@{LEAD_S}", "kill-on-invalid-dep": "yes", **others,
            },
        }  # fmt: skip
        optional = {
            "partition": self.allocation.partition, "gpus_per_node": launch.gpus, "dependency": batch.dependency,
            "array_parallelism": self.at_a_time,
        }  # fmt: skip
        return found | {name: value for name, value in optional.items() if value}

    def arguments(self, batch: Batch, run: str) -> list[str]:
        """What stands behind `python -m` of a job: this command on one run and stage, over the nodes of the job."""
        plan = self.plan
        command = ["harness.reproduce", "--suite", batch.suite, "--only", *plan.parts, "--stage", batch.stage]
        command += ["--run", run] if batch.stage != REPORT else []
        command += ["--nodes", str(self._nodes(batch)), "--nproc-per-node", str(plan.launch.processes)]
        for flag, pairs in (("--data", plan.data), ("--ref", plan.references)):
            command += [flag, *(f"{preset}={where}" for preset, where in pairs.items())] if pairs else []
        command += ["--vae", plan.vae] if plan.vae else []
        return [*command, "--card-gib", str(plan.card_gib), "--runs", batch.places[0], "--results", batch.places[1]]

    def _nodes(self, batch: Batch) -> int:
        return 1 if batch.stage == REPORT else self.plan.launch.nodes


def be(arguments: list[str]) -> None:
    """Be `python -m ARGUMENTS`, in this process: what a job calls. It ends the process with the command's exit code."""
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


def python() -> str:
    """How a job starts Python, for its script: with this package, whatever lies in the working directory."""
    path = os.pathsep.join(filter(None, [str(paths.CHECKOUT), os.environ.get("PYTHONPATH")]))
    return shlex.join(["env", f"PYTHONPATH={path}", "PYTHONSAFEPATH=1", sys.executable])


def read(path: Path) -> dict[str, Any]:
    """What a batch is of, and its numbers. Raises ValueError, naming the file, where it is damaged."""
    found = read_json(path)
    runs, numbers = found.get("runs"), found.get("jobs")
    if (
        found.get("stage") not in STAGES
        or not isinstance(runs, list) or not all(isinstance(one, str) for one in runs)
        or not isinstance(numbers, list) or not all(type(one) is int for one in numbers)
    ):  # fmt: skip
        raise ValueError(f"{path} is damaged: it lists no jobs; remove it if none of them runs")
    return found


def _submitit() -> Any:
    try:
        import submitit
        import submitit.helpers
    except ImportError as error:
        raise ValueError("--submit slurm needs submitit: pip install 'dim-vs-dit[cluster]'") from error
    return submitit
