"""The suites on a real Slurm of four nodes on the loopback interface, and what befalls jobs there."""

import json
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from slurm_on_loopback import Slurm, missing

from harness.core import store
from harness.core.locks import locked
from harness.suites import suite

pytest.importorskip("submitit", reason="pip install 'dim-vs-dit[cluster]'")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]
ROOT = Path(__file__).parents[1]
DONE, FAILED, TO_BE_CONTINUED = 0, 1, 75


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    slurm = Slurm(tmp_path_factory.mktemp("slurm"), nodes=4)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()


class Submission:
    """The command, with a folder of its own; `jobs` is what squeue lists of its jobs: place, stage, state, node."""

    def __init__(self, slurm: Slurm, out: Path, *flags: str) -> None:
        self.slurm, self.out = slurm, out
        where = ["--runs", str(out / "runs"), "--results", str(out)]
        self.command = [sys.executable, "-m", "harness.reproduce", "--submit", "slurm", "--time", "10", *where, *flags]

    def __call__(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command, cwd=ROOT, env=self.slurm.environment, capture_output=True, text=True, check=False
        )

    def jobs(self, stage: str = "", states: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
        listed = self.slurm.ask("squeue", "--states=all", "--array", "--noheader", "--format", "%i %j %T %N")
        rows = [[*line.split(), ""][:4] for line in listed.splitlines()]
        ours = {path.stem for path in self.out.glob("runs/slurm/*.json")}
        return [(place, state, node) for place, name, state, node in rows
                if name in ours and f"-{stage}" in name and (not states or state in states)]  # fmt: skip


def test_a_suite_that_is_disturbed_ends_complete_with_nothing_done_twice(slurm, tmp_path):
    runs = {run: scores for run, scores in suite("smoke").runs(["table7"]).items() if run.model == "DiT-P/4"}
    submit = Submission(
        slurm, tmp_path, "--suite", "smoke", "--only", "table7", "--run", *(run.name for run in runs), "--max-jobs", "2"
    )
    with ExitStack() as held:  # whoever has the right to a run makes its jobs wait, in the middle of their work
        for run in runs:
            held.enter_context(locked(tmp_path / "runs" / ".locks" / run.name))
        first = submit()
        assert first.returncode == TO_BE_CONTINUED, first.stderr
        assert [line.rsplit(": ", 1)[1] for line in first.stdout.splitlines()[:-1]] == ["submitted", "submitted"]
        slurm.until(lambda: len(submit.jobs("train", ("RUNNING",))) == 2)
        again = submit()
        assert len(submit.jobs()) == 5, "two are trained, each is scored, there are tables and figures; none is new"
        assert re.search(r"training: RUNNING, job \d+_0\n", again.stdout)

        drained, since = submit.jobs("train")[0][2], time.time()
        slurm.ask("scontrol", "update", f"nodename={drained}", "state=drain", "reason=test")
        slurm.kill_controller(since)
        blind = submit()
        assert (blind.returncode, blind.stdout) == (FAILED, "")
        assert len(blind.stderr.strip().splitlines()) == 1
        assert "squeue: " in blind.stderr
        slurm.start_controller()

    slurm.until(lambda: submit.jobs("score", ("RUNNING",)))
    assert [state for _, state, _ in submit.jobs("train")].count("COMPLETED") >= 1
    cancelled = submit.jobs("score", ("RUNNING",))[0][0]
    slurm.ask("scancel", cancelled)
    slurm.until(lambda: submit.jobs("score", ("CANCELLED",)))
    shown = submit()
    assert f"scoring failed: CANCELLED, job {cancelled}" in shown.stdout
    assert shown.stdout.count("submitted again") == 1
    while submit().returncode == TO_BE_CONTINUED:
        slurm.until(lambda: not submit.jobs(states=("PENDING", "RUNNING", "COMPLETING")))
    assert [node for _, _, node in submit.jobs("score") + submit.jobs("report")].count(drained) == 0
    assert [state for _, state, node in submit.jobs("train") if node == drained] == ["COMPLETED"]

    count = len(submit.jobs())
    last = submit()
    assert (last.returncode, last.stdout) == (DONE, "2 of 2 runs done\n")
    assert len(submit.jobs()) == count
    records = store.load(tmp_path / "measurements" / "smoke.jsonl")
    assert all(score.missing(records) == [] for scores in runs.values() for score in scores)
    rows = [record.row() for record in records]
    answers = [(r["training"]["seed"], r["step"], r["sampling"]["cfg_scale"], r["quantity"]) for r in rows]
    assert len(set(answers)) == len(answers), "nothing is scored twice"
    for run in runs:
        assert (tmp_path / "runs" / run.name / "log.txt").read_text().count("8 steps in") == 1, "nor trained twice"
    assert (tmp_path / "tables" / "smoke" / "table7.md").is_file()


def test_a_run_over_two_nodes_that_is_preempted_goes_back_and_continues_from_its_checkpoint(slurm, tmp_path):
    run = next(run for run in suite("digits").runs() if run.model == "DiT-N/8")  # long enough to be caught
    submit = Submission(slurm, tmp_path, "--suite", "digits", "--run", run.name, "--stage", "train", "--nodes", "2")
    assert submit().returncode == TO_BE_CONTINUED
    folder = tmp_path / "runs" / run.name

    def steps() -> list[int]:
        log = folder / "losses.jsonl"
        return [json.loads(line)["step"] for line in log.read_text().splitlines()] if log.exists() else []

    slurm.until(steps)
    assert "on cpu x 2" in (folder / "log.txt").read_text()
    ((place, _, _),) = submit.jobs()
    slurm.ask("scancel", "--signal", "TERM", place)  # what comes before a time limit, and in a preemption with grace
    slurm.until(lambda: list(folder.glob("checkpoints/step-*.pt")))
    slurm.until(lambda: submit.jobs(states=("PENDING",)))
    stopped = steps()[-1]
    assert (folder / "checkpoints" / f"step-{stopped:07d}.pt").is_file()
    assert f"stopped at step {stopped} of 2000" in (folder / "log.txt").read_text()
    waits = rf"{run.name}: training: PENDING( \(\w+\))?, job {place}\n"  # Slurm gives its reason a moment later
    assert re.match(waits, submit().stdout)
    slurm.until(lambda: steps()[-1] > stopped)
    assert steps() == list(range(1, steps()[-1] + 1)), "not a step is lost or repeated"

    slurm.ask("scancel", place)  # it writes a checkpoint, too, but stays away
    slurm.until(lambda: submit.jobs(states=("CANCELLED",)))
    assert submit.jobs() == [(place, "CANCELLED", submit.jobs()[0][2])]
    assert int(sorted(folder.glob("checkpoints/step-*.pt"))[-1].stem[-7:]) > stopped
