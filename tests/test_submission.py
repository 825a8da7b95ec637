"""What is submitted to Slurm, as text, and what its answers mean; tests/test_slurm.py has a real one."""

import dataclasses
import json
import pickletools
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from harness import reproduce
from harness.core.signals import stop_on_signals
from harness.suites import Allocation, Launch, Plan, slurm, submission, suite
from harness.suites.batch import Batch, Submitter, be
from harness.suites.slurm import Job

ROOT = Path(__file__).parents[1]
SMOKE = [run.name for run in suite("smoke").runs(["table7"])]


def dry_run(tmp_path, capsys, *flags: str) -> str:
    where = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    assert (
        reproduce.main(["--suite", "smoke", "--only", "table7", "--submit", "slurm", "--dry-run", *where, *flags]) == 0
    )
    assert not list(tmp_path.iterdir()), "a dry run writes nothing"
    return capsys.readouterr().out


@pytest.fixture
def no_slurm(monkeypatch, tmp_path):
    """A machine without Slurm's commands."""
    monkeypatch.setenv("PATH", "/nowhere")


@pytest.mark.usefixtures("no_slurm")
def test_a_dry_run_prints_a_script_for_each_array_on_any_machine(tmp_path, capsys):
    pytest.importorskip("submitit")
    out = dry_run(
        tmp_path, capsys, "--nodes", "2", "--gpus-per-node", "4", "--time", "1-12:00:00", "--partition", "gpu",
        "--max-jobs", "3", "--sbatch", "account=vision", "cpus-per-task=24",
    )  # fmt: skip
    train, score, report = out.split("#!/bin/bash\n")[1:]
    for line in ("--array=0-5%3", "--nodes=2", "--gpus-per-node=4", "--time=2160", "--partition=gpu", "--requeue",
                 "--account=vision", "--cpus-per-task=24", "--signal=TERM@180", "--ntasks-per-node=1"):  # fmt: skip
        assert f"#SBATCH {line}\n" in train, line
    assert "--cpus-per-task=24 --kill-on-bad-exit=1" in train, "what srun is given, too"
    assert "--dependency" not in train
    name = train.split("--job-name=")[1].split("\n")[0]
    assert f"#SBATCH --dependency=aftercorr:{name}\n" in score, "each for the training of the same index"
    assert "--kill-on-invalid-dep=yes" in score
    assert "#SBATCH --dependency=afterany:smoke-score-" in report
    assert "#SBATCH --nodes=1\n" in report
    assert "--array" not in report
    for number, run in enumerate(SMOKE):
        assert (
            f"# {number}: python -m harness.reproduce --suite smoke --only table7 --stage train --run {run} " in train
        )
        assert "--nodes 2 --nproc-per-node 4" in train
        assert f"{run}: training: to be submitted\n" in out


TIMES = {"90": 90, "90:30": 91, "12:00:00": 720, "2-00": 2880, "1-02:03": 1563, "1-02:03:01": 1564}


@pytest.mark.parametrize(("text", "minutes"), TIMES.items())
def test_a_time_limit_is_read_as_sbatch_reads_it(text, minutes):
    assert Allocation(time=text).minutes == minutes


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--time", "soon"], "time must be minutes, HH:MM:SS or D-HH:MM:SS, not 'soon'"),
        (["--time", "0"], "time must be at least a minute, not 0"),
        (["--sbatch", "exclusive"], "sbatch takes KEY=VALUE, as in account=vision, not 'exclusive'"),
        (["--sbatch", "account=a\nrm -rf"], "must be one printable line"),
        (["--sbatch", "cpus-per-task=many"], "cpus-per-task must be a whole number, not 'many'"),
        (["--partition", ""], "must be one printable line"),
        (["--run", "digits-DiT"], "suite smoke has no run 'digits-DiT'; nearest: digits-DiT-P-4-seed"),
        (["--nodes", "3"], "batches of 16, which 3 processes cannot share"),
    ],
)  # fmt: skip
def test_bad_flags_of_a_submission_are_one_line(tmp_path, capsys, flags, complaint):
    with pytest.raises(SystemExit, match="2"):
        dry_run(tmp_path, capsys, *flags)
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("flags", [["--time", "10"], ["--partition", "gpu"], ["--dry-run"], ["--sbatch", "mem=1G"]])
def test_flags_of_slurm_are_refused_without_it(flags, capsys):
    with pytest.raises(SystemExit, match="2"):
        reproduce.main(["--suite", "smoke", *flags])
    assert f"{flags[0]} changes nothing without --submit slurm" in capsys.readouterr().err


@pytest.mark.usefixtures("no_slurm")
def test_a_machine_without_slurm_says_so_and_submits_nothing(tmp_path, capsys):
    where = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    assert reproduce.main(["--suite", "smoke", "--submit", "slurm", *where]) == 1
    assert "no squeue on this machine" in capsys.readouterr().err


def test_several_nodes_take_a_job(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(SystemExit, match="2"):
        reproduce.main(["--suite", "smoke", "--nodes", "2", "--runs", str(tmp_path), "--results", str(tmp_path)])
    assert "--nodes 2 takes a Slurm job" in capsys.readouterr().err


def test_torchrun_spans_the_nodes_of_a_job():
    job = {"SLURM_NODEID": "1", "SLURM_JOB_ID": "70000", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7"}
    command = Launch(nodes=2, processes=8).command(job)
    assert command[2] == "torch.distributed.run"
    flags = dict(zip(command[3::2], command[4::2], strict=True))
    assert flags == {"--nnodes": "2", "--node-rank": "1", "--master-addr": "10.0.0.7", "--master-port": "25000",
                     "--nproc-per-node": "8"}  # fmt: skip
    assert Launch().command() == [sys.executable]


def test_a_folder_that_others_can_write_into_is_refused(tmp_path, capsys):
    folder = tmp_path / "runs" / "slurm"
    folder.mkdir(parents=True)
    folder.chmod(0o775)
    with pytest.raises(SystemExit, match="2"):
        reproduce.main(["--suite", "smoke", "--submit", "slurm", "--runs", str(tmp_path / "runs"), "--results",
                        str(tmp_path)])  # fmt: skip
    assert "can be written by others, and jobs run what lies there" in capsys.readouterr().err


# What squeue and sacct of Slurm 22.05 printed of an array of four, of which two had ended, and of one cancelled job.
SQUEUE = """\
7|2|RUNNING|None|smoke-train-0123456789ab
7|3|PENDING|JobArrayTaskLimit|smoke-train-0123456789ab
8|N/A|PENDING|DependencyNeverSatisfied|smoke-score-0123456789ab
9|N/A|RUNNING|None|somebody's | own
"""
SACCT = """\
5|smoke-score-0123456789ab|CANCELLED by 0|0:0
7_0|smoke-train-0123456789ab|COMPLETED|0:0
7_1|smoke-train-0123456789ab|FAILED|1:0
7_2|smoke-train-0123456789ab|RUNNING|0:0
7_[3%3]|smoke-train-0123456789ab|PENDING|0:0
"""


@pytest.fixture
def answers(monkeypatch):
    """Slurm's answers, by command; what is None fails."""
    texts = {"squeue": SQUEUE, "sacct": SACCT}

    def ask(program, *arguments):
        if texts[program] is None:
            raise OSError(f"{program}: Slurm accounting storage is disabled")
        return texts[program]

    monkeypatch.setattr(slurm, "_ask", ask)
    return texts


def test_squeue_and_sacct_are_read_together(answers):
    jobs = slurm.jobs(["smoke-train-0123456789ab", "smoke-score-0123456789ab"], [5, 7])
    states = {job.place: (job.state, job.active) for job in jobs}
    assert states == {
        "5": ("CANCELLED", False), "7_0": ("COMPLETED", False), "7_1": ("FAILED", False), "7_2": ("RUNNING", True),
        "7_3": ("PENDING", True), "8": ("PENDING", False),
    }  # fmt: skip
    assert str(next(job for job in jobs if job.place == "7_1")) == "FAILED (exit code 1:0), job 7_1"


def test_without_accounting_the_queue_is_enough_and_without_the_queue_nothing_is_done(answers):
    answers["sacct"] = None
    assert [job.place for job in slurm.jobs(["smoke-train-0123456789ab"], [7])] == ["7_2", "7_3"]
    answers["squeue"] = None
    with pytest.raises(OSError, match="disabled"):
        slurm.jobs(["smoke-train-0123456789ab"], [7])


def test_a_job_that_slurm_has_forgotten_is_submitted_again(answers, tmp_path):
    answers |= {"squeue": "", "sacct": ""}
    batch = {"stage": "train", "runs": ["a", "b"], "jobs": [3]}
    (tmp_path / "smoke-train-0123456789ab.json").write_text(json.dumps(batch))
    job = submission.look(tmp_path)["b", "train"]
    assert (job.place, job.active) == ("3_1", False)
    assert "forgotten" in str(job)


@pytest.mark.parametrize("text", ['{"stage": "train", "runs": [1], "jobs": []}', '{"stage": "x"}', "[]", "{"])
def test_a_damaged_list_of_jobs_is_refused(answers, tmp_path, text):
    (tmp_path / "smoke-train-0123456789ab.json").write_text(text)
    with pytest.raises(ValueError, match=r"smoke-train-0123456789ab.json is damaged"):
        submission.look(tmp_path)


def queue_of(tmp_path, last, **how):
    """A plan's queue, of which these jobs are known, and the batches that it submits."""
    sent: list[Batch] = []

    def submit(batch):
        sent.append(batch)
        return str(100 + len(sent))

    plan = Plan(suite=suite("smoke"), parts=("table7",), runs=tmp_path / "runs", results=tmp_path, **how)
    queue = submission.Queue(plan, submit, last=last)
    assert queue.fill() == len(SMOKE)
    return sent, queue.lines


def test_what_waits_or_runs_is_left_alone_and_what_failed_is_submitted_again_alone(tmp_path):
    train = {(run, "train"): Job(7, n, "t", "RUNNING") for n, run in enumerate(SMOKE)}
    score = {(run, "score"): Job(8, n, "s", "PENDING", "Dependency") for n, run in enumerate(SMOKE)}
    report = {("report", "report"): Job(9, None, "r", "PENDING", "Dependency")}
    assert queue_of(tmp_path, train | score | report)[0] == []

    failed = {(SMOKE[1], "train"): Job(7, 1, "t", "FAILED"), (SMOKE[1], "score"): Job(8, 1, "s", "CANCELLED")}
    sent, lines = queue_of(tmp_path, train | score | failed | report)
    assert [(batch.stage, batch.runs, batch.dependency) for batch in sent] == [
        ("train", (SMOKE[1],), ""), ("score", (SMOKE[1],), "afterok:101"),
    ]  # fmt: skip
    assert "training failed: FAILED, job 7_1" in lines[1]

    gone = {(SMOKE[2], "score"): Job(8, 2, "s", "NODE_FAIL")}  # its training still runs
    sent, _ = queue_of(tmp_path, train | score | gone | report)
    assert [(batch.stage, batch.dependency) for batch in sent] == [("score", "afterok:7_2")]


def test_no_score_is_submitted_of_a_run_that_nothing_trains(tmp_path):
    training = {(SMOKE[0], "train"): Job(7, 0, "t", "RUNNING")}
    sent, lines = queue_of(tmp_path, training, stages=("score",))
    assert [(batch.stage, batch.runs, batch.dependency) for batch in sent] == [("score", (SMOKE[0],), "afterok:7_0")]
    assert lines[1:] == [f"{run}: not trained yet" for run in SMOKE[1:]]


def test_tables_that_are_left_are_a_job_of_their_own_and_shown_when_it_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(Plan, "work", lambda plan: [])
    plan = Plan(suite=suite("smoke"), parts=("table7",), runs=tmp_path / "runs", results=tmp_path)
    sent: list[Batch] = []
    last = {("report", "report"): Job(9, None, "r", "FAILED", "NonZeroExitCode")}
    queue = submission.Queue(plan, lambda batch: sent.append(batch) or "10", last=last)
    assert queue.fill() == 0
    assert [(batch.stage, batch.dependency) for batch in sent] == [("report", "")]
    log = tmp_path / "runs" / "report.txt"
    assert queue.lines == [f"tables and figures failed: FAILED (NonZeroExitCode), job 9, {log}; submitted again"]


def test_a_batch_has_one_name_wherever_it_is_written_down_and_another_in_other_folders():
    one = Batch("smoke", "train", ("a", "b"), ("/runs", "/results"))
    assert one.name == dataclasses.replace(one, dependency="afterok:7").name
    changes = [{"stage": "score"}, {"runs": ("a",)}, {"places": ("/other", "/results")}]
    others = [dataclasses.replace(one, **change) for change in changes]
    assert len({one.name, *(other.name for other in others)}) == 4


def test_what_submitit_stores_names_one_function_of_ours_and_texts(tmp_path):
    submitit = pytest.importorskip("submitit")
    plan = Plan(suite=suite("smoke"), runs=tmp_path, results=tmp_path)
    arguments = Submitter(plan, Allocation(), tmp_path).arguments(Batch("smoke", "train", ("a",), ("/r", "/s")), "a")
    path = tmp_path / "submitted.pkl"
    submitit.core.utils.DelayedSubmission(be, arguments).dump(path)
    names, texts = set(), []
    for code, value, _ in pickletools.genops(path.read_bytes()):
        if code.name == "STACK_GLOBAL":
            names.add(".".join(texts[-2:]))
        assert code.name not in ("GLOBAL", "INST"), "older ways to name something"
        if isinstance(value, str):
            texts.append(value)
    assert names <= {"submitit.core.utils.DelayedSubmission", "harness.suites.batch.be"}


def test_a_job_is_the_command_itself_and_ends_with_its_exit_code(tmp_path):
    code = "from harness.suites.batch import be; be(['harness.reproduce', '--suite', 'tiny'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown suite" in done.stderr or "choose from" in done.stderr


def test_nobody_but_a_job_that_runs_goes_back_to_the_queue(monkeypatch):
    calls = []

    def ask(program, *arguments):
        calls.append((program, *arguments))
        return state

    monkeypatch.setattr(slurm, "_ask", ask)
    job = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "12"}
    for where in ({}, {"SLURM_JOB_ID": "12"}, {**job, "SLURM_NODEID": "1"}):
        assert not slurm.give_back(where)
    assert calls == []
    state = "COMPLETING\n"  # cancelled, or put back by Slurm itself
    assert not slurm.give_back(job)
    state = "RUNNING\n"
    assert slurm.give_back(job)
    assert calls[-1] == ("scontrol", "requeue", "12")
    assert slurm.give_back({**job, "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"})
    assert calls[-2:] == [("squeue", "--noheader", "--jobs", "12_3", "--format", "%T"), ("scontrol", "requeue", "12_3")]


def test_a_scheduler_may_signal_again_and_again(request):
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started without it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, usual))
    with stop_on_signals() as received:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
    assert received == [signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT]
    with stop_on_signals():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):  # who types it twice does not want to wait
            signal.raise_signal(signal.SIGINT)


def test_the_folder_of_jobs_is_made_for_its_owner_alone(tmp_path, answers, monkeypatch):
    answers |= {"squeue": "", "sacct": ""}
    monkeypatch.setattr(Submitter, "submit", lambda *_: "1")
    plan = Plan(suite=suite("smoke"), parts=("table7",), runs=tmp_path / "runs", results=tmp_path)
    lines, done = submission.submit(plan, Allocation())
    assert not done
    assert lines[-1] == "0 of 6 runs done"
    assert stat.S_IMODE((tmp_path / "runs" / "slurm").stat().st_mode) == 0o700
