"""harness.reproduce: one command from nothing to scores; it continues and does nothing twice."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import reproduce
from harness.core import store
from harness.core.locks import LockedError, locked
from harness.suites import Launch, Plan, Run, budget, fitting, suite
from harness.suites.execution import claimed, trained
from models import create_model

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
ONE_SEED = [run for run in suite("smoke").runs() if run.seed == 0]
NAMES = ["--run", *(run.name for run in ONE_SEED)]


def command(out: Path, *flags: str) -> list[str]:
    where = ["--runs", str(out / "runs"), "--results", str(out / "results")]
    return [sys.executable, "-m", "harness.reproduce", "--suite", "smoke", "--max-jobs", "2", *where, *flags]


def plan(out: Path, *flags: str) -> list[str]:
    run = subprocess.run([*command(out, *flags), "--plan"], cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """One seed of the smoke suite, stopped once on its way."""
    out = tmp_path_factory.mktemp("smoke")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command(out, *NAMES), cwd=ROOT, text=True, **pipes)
    while process.poll() is None and not list(out.glob("runs/*/checkpoints/milestone-*.pt")):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out_text, _ = process.communicate()
    assert process.returncode == reproduce.STOPPED
    assert "the same command continues" in out_text
    kept = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/checkpoints/milestone-*.pt")}
    done = subprocess.run(command(out, *NAMES), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return out, kept


def test_a_stopped_suite_continues_to_the_end_and_keeps_what_it_had(reproduced):
    out, kept = reproduced
    assert kept
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
    records = store.load(out / "results" / "measurements" / "smoke.jsonl")
    for score in suite("smoke").scores():
        assert (score.missing(records) == []) == (score.run in ONE_SEED)
    rows = [record.row() for record in records]
    answers = [(r["model"], r["training"]["seed"], r["step"], r["sampling"]["cfg_scale"], r["metric"], r["quantity"])
               for r in rows]  # fmt: skip
    assert len(set(answers)) == len(answers), "nothing is scored twice"


def test_a_finished_suite_has_its_tables_and_figures(reproduced):
    results = reproduced[0] / "results"
    for number in (2, 5, 6, 7):
        table = (results / "tables" / "smoke" / f"table{number}.md").read_text()
        assert "DiM-P/4" in table
        assert "fd128@digits" in table
    assert list((results / "figures" / "smoke").glob("figure1.svg"))


def test_a_finished_suite_has_nothing_left_to_run(reproduced):
    assert plan(reproduced[0], *NAMES) == [
        "# 0 runs, 0 scores, 0 GPU-hours; wall time 0 s (nodes: 2, processes on each: 1, runs at a time: 2)"
    ]


def test_a_suite_of_which_nothing_is_left_says_so_and_where_its_tables_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Plan, "work", lambda plan: [])
    monkeypatch.setattr(reproduce.suites, "reproduce", lambda plan, jobs: [])
    assert reproduce.main(["--suite", "smoke", "--results", str(tmp_path)]) == 0
    nothing, made = capsys.readouterr().out.splitlines()
    assert nothing.startswith("nothing is left to train or to score of smoke: ")
    assert made == f"tables and figures: {tmp_path / 'tables'}, {tmp_path / 'figures'}"


def test_a_finished_suite_has_contact_sheets_of_both_families(reproduced):
    for model in ("DiT-P-4", "DiM-P-4"):
        folder = reproduced[0] / "results" / "samples" / "smoke" / model
        assert (folder / "grid.png").stat().st_size > 0
        assert json.loads((folder / "settings.json").read_text())["step"] == 8


def test_the_plan_names_each_run_once_and_only_what_is_asked_for(tmp_path):
    lines = plan(tmp_path, "--nproc-per-node", "2", "--only", "table7")
    train = [line for line in lines if "harness.train" in line]
    score = [line for line in lines if "harness.eval" in line]
    assert (len(train), len(score)) == (6, 12)  # DiT, DiM, DiM-matched; two seeds; guidance 1 and 1.5 at the last step
    assert all(line.startswith("torchrun --nproc-per-node 2 -m harness.") for line in train + score)
    assert all("milestone-0000008.pt" in line for line in score)
    assert not (tmp_path / "runs").exists()


def test_the_plan_counts_what_the_closed_form_counts():
    """DiT-B/4 costs 5.565 GMACs an image (DiT's Table 4 prints 5.56); training is 3 x 256 x 400,000 of those."""
    run = next(run for run in suite("paper").runs() if run.model == "DiT-B/4")
    assert budget.macs_per_item(run) == pytest.approx(5.56e9, rel=1e-3)
    assert budget.training_macs(run) == 3 * 256 * 400_000 * budget.macs_per_item(run)
    guided = next(score for score in suite("paper").runs()[run] if score.cfg_scale == 1.5)
    assert budget.scoring_macs(guided) == 2 * 250 * 50_000 * budget.macs_per_item(run)


def test_a_run_that_does_not_fit_a_card_recomputes_activations_and_then_takes_its_batch_in_parts():
    run = Run(preset="digits", model="DiT-N/2", milestones=(1,), changes=(("batch", 64),))
    whole = fitting.fit(run.config, run.spec, 1, 1e18)
    assert whole.flags == []
    recomputed = fitting.fit(run.config, run.spec, 1, 0.99 * whole.nbytes)
    assert (recomputed.flags, recomputed.nbytes < whole.nbytes) == (["--checkpoint-activations"], True)
    halved = fitting.fit(run.config, run.spec, 1, 0.99 * recomputed.nbytes)
    assert halved.flags == ["--checkpoint-activations", "--accumulate", "2"]
    assert halved.nbytes < recomputed.nbytes
    least = fitting.fit(run.config, run.spec, 1, 0)  # hopeless, as its own figure shows
    assert least.flags[-1] == "64"
    assert 0 < least.nbytes < halved.nbytes


def test_gradients_that_are_kept_and_joint_images_need_memory_of_their_own():
    run = Run(preset="moving-digits", model="DiT-N/4-video", milestones=(1,), changes=(("batch", 4),))
    joint = dataclasses.replace(run, changes=(("batch", 8), ("joint_images", 4)))
    alone = dataclasses.replace(run, changes=(("batch", 8),))
    assert budget.fitted(joint, 1, 1e9).nbytes > budget.fitted(alone, 1, 1e9).nbytes
    parameters = 4 * sum(p.numel() for p in create_model(run.spec, run.config.resolution, device="meta").parameters())
    kept = budget.fitted(alone, 2, 1e9).nbytes - budget.fitted(run, 1, 1e9).nbytes
    assert 0.5 * parameters < kept <= parameters  # but for those that are there at the peak anyhow


def test_the_plan_says_how_a_run_fits_a_card(tmp_path):
    chosen = suite("paper")
    run = next(run for run in chosen.runs() if run.model == "DiM-B/4")
    fits = budget.fitted(run, 8, 80)
    assert fits.flags == []
    places = {"runs": tmp_path, "results": tmp_path}
    plan = Plan(
        suite=chosen, parts=("table2",), launch=Launch(processes=8), card_gib=0.9 * fits.nbytes / 2**30, **places
    )
    assert "--checkpoint-activations" in plan.train(run)


def test_progress_is_read_off_the_log_of_losses(tmp_path):
    log = tmp_path / "losses.jsonl"
    assert trained(tmp_path) == 0
    log.write_text("".join(json.dumps({"step": step, "loss": 0.123456789}) + "\n" for step in range(1, 41)))
    assert trained(tmp_path) == 40
    log.write_text('{"step": 7, "loss"')
    assert trained(tmp_path) == 0


HOLDER = """
import sys
from pathlib import Path
from harness.core.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


def test_a_run_in_use_is_waited_for(tmp_path):
    """A child that outlives its parent keeps the lock, so that a second call never trains beside it."""
    chosen = suite("smoke")
    plan = Plan(suite=chosen, runs=tmp_path, results=tmp_path)
    name = next(iter(chosen.runs())).name
    where = tmp_path / ".locks" / name
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(where)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with pytest.raises(LockedError), locked(where):
        pass
    child.communicate("\n")
    with claimed(plan, name) as lock:
        assert lock >= 0
        with pytest.raises(LockedError), locked(where):
            pass


def test_the_right_to_a_run_is_not_the_trainers_own_lock(tmp_path):
    """harness.train locks the directory of its run while the parent holds the right to it."""
    chosen = suite("smoke")
    plan = Plan(suite=chosen, runs=tmp_path, results=tmp_path)
    for run in chosen.runs():
        with claimed(plan, run.name), locked(plan.directory(run)):
            pass


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--suite", "tiny"], "'tiny'; choose from smoke, digits"),
        (["--suite", "smoke", "--only", "table9"], "'table9'; choose from figure1, table2"),
        (["--suite", "smoke", "--only", "table3"], "suite smoke has nothing of table3"),
        (["--suite", "smoke", "--data", "imagenet256=/data"], "smoke has no preset 'imagenet256'; choose from digits"),
        (["--suite", "smoke", "--data", "/data"], "'/data' is not PRESET=WHERE"),
        (["--suite", "smoke", "--max-jobs", "0"], "must be at least 1"),
        (["--suite", "smoke", "--nproc-per-node", "3"], "16, which 3 processes cannot share; choose from 1, 2, 4, 8"),
        (["--suite", "smoke", "--card-gib", "0"], "argument --card-gib: must be at least 1, not 0"),
        (["--suite", "smoke", "--card-gib", "-1"], "argument --card-gib: must be at least 1, not -1"),
        (["--suite", "smoke", "--card-gib", "nan"], "argument --card-gib: must be a finite number, not nan"),
        (["--suite", "smoke", "--device-flops", "0"], "argument --device-flops: must be at least 1, not 0"),
        (["--suite", "smoke", "--device-flops", "1e12"], "--device-flops changes nothing without --plan"),
        (["--suite", "smoke", "--results", __file__], "argument --results: cannot write into"),
        (["--suite", "smoke", "--runs", f"{__file__}/runs"], "argument --runs: cannot write into"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(flags, complaint, capsys):
    with pytest.raises(SystemExit) as exit_:
        reproduce.main(flags)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_a_run_that_fails_is_named_and_the_exit_code_says_so(tmp_path, capsys):
    places = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    first, *names = [run.name for run in suite("smoke").runs(["table7"])]
    for name in names:
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "checkpoints").write_text("a file where a folder is to be")
    (tmp_path / "runs" / first).write_text("a file where the folder of the run and its log is to be")
    code = reproduce.main(["--suite", "smoke", "--only", "table7", "--max-jobs", "6", *places])
    assert code == 1
    complaints = capsys.readouterr().err
    assert all(f"{name}/log.txt" in complaints for name in names)
    assert f"failed: {first}: " in complaints
    assert "Traceback" not in complaints


def test_a_model_that_no_card_holds_is_shared_and_its_states_are_slices():
    """By hand: of P parameters in float32 a process keeps weights, gradients, two moments and an average, 20 P bytes;
    of W processes each has 20 P / W, beside three blocks, whatever lies outside of blocks, and activations."""
    run = Run(preset="imagenet256", model="DiT-S/8", milestones=(1,), changes=(("batch", 32),))
    parameters = budget.exact_cost(run).params
    kept = fitting.fit(run.config, run.spec, 8, 20 * parameters + 2**26)
    assert not kept.shared
    assert kept.nbytes > 20 * parameters
    shared = fitting.fit(run.config, run.spec, 8, 0.9 * 20 * parameters)
    assert shared.flags == ["--fsdp"], "what no part of a batch would fit, all of it does"
    least = fitting.fit(run.config, run.spec, 8, 0)
    assert least.flags == ["--checkpoint-activations", "--accumulate", "4", "--fsdp"]
    block = 4 * 18 * 384**2  # but for biases: 4 D^2 of attention, 8 D^2 of the MLP, 6 D^2 of the modulation
    by_hand = 20 * parameters / 8 + 3 * block + (4 * parameters - 12 * block)
    assert least.nbytes == pytest.approx(by_hand, rel=0.02), "one image's activations are next to nothing"
