"""harness.bench: fresh processes, raw samples, OOM and failure as rows; sweeps continue, comparisons refuse."""

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from harness import bench
from harness.core import store
from harness.core.command import STOPPED, Parser
from harness.core.provenance import Provenance
from harness.core.records import LatencyRecord
from harness.core.workload import Workload
from harness.cost import clock
from harness.cost.compare import compare, ratio_interval
from harness.cost.flags import add_sweep_flags, workloads_of
from harness.cost.timing import Timing
from harness.report.sweep import measured_rows
from models import spec

SHARED = ["--keep-all", "--spread", "0"]  # tests share their machine, and count rounds
TINY = ["--model", "DiT-N/4", "DiM-N/4", "--res", "64", "--rounds", "3", "--warmup", "2", *SHARED]


def measured(capsys, path, *arguments: str) -> str:
    bench.main([*TINY, *arguments, "--records", str(path)])
    return capsys.readouterr().out


@pytest.mark.slow
def test_a_sweep_keeps_raw_samples_and_memory_beside_its_prediction_and_measures_nothing_twice(capsys, tmp_path):
    path = tmp_path / "bench.jsonl"
    out = measured(capsys, path, "--attention", "sdpa", "--action", "train")
    records = [record.row() for record in store.load(path)]
    assert [(r["model"], r["action"], r["verdict"]) for r in records] == [
        ("DiT-N/4", "train", "ok"),
        ("DiM-N/4", "train", "ok"),
    ]
    for record in records:
        assert (len(record["samples"]), len(record["warmups"])) == (3, 2)
        assert record["value"] == sorted(record["samples"])[1]
        assert record["parts"]["peak_bytes"] == pytest.approx(record["parts"]["predicted_bytes"], rel=0.05)
    assert "images/s" in out
    assert "scan: " in records[1]["note"]

    before = path.read_text()
    measured(capsys, path, "--attention", "sdpa", "--action", "train")
    assert path.read_text() == before
    measured(capsys, path, "--attention", "sdpa", "naive", "--action", "train")
    assert len(path.read_text().splitlines()) == 3  # naive attention is another question for DiT alone


def heed_interrupts() -> None:
    """A shell starts background jobs with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_clips_are_measured_by_the_clip(capsys, tmp_path):
    records = tmp_path / "bench.jsonl"
    arguments = ["--model", "DiM-N/4-video", "--frames", "2", "--res", "64", "--rounds", "2", "--warmup", "1", *SHARED]
    bench.main([*arguments, "--records", str(records), "--format", "csv"])
    header, row = capsys.readouterr().out.splitlines()[-2:]
    assert "clips/s" in header.split(",")
    assert row.startswith("DiM-N/4-video(frames=2),64,1,")
    assert [record.row()["frames"] for record in store.load(records)] == [2]


def test_a_sweep_stopped_before_its_first_result_says_so_and_no_more(tmp_path, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(clock, "time_together", stop)
    assert bench.main([*TINY, "--model", "DiT-N/4", "--res", "64", "--records", str(tmp_path / "b.jsonl")]) == STOPPED
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "the same command continues" in captured.err


@pytest.mark.slow
def test_a_sweep_stopped_in_the_middle_continues(tmp_path):
    path = tmp_path / "bench.jsonl"
    command = [sys.executable, "-m", "harness.bench", *TINY, "--model", "DiT-N/4", "--res", "64", "128"]
    command += ["--records", str(path)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
    )
    while process.poll() is None and (not path.exists() or not path.read_text().endswith("\n")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate()
    assert process.returncode == STOPPED
    assert "the same command continues" in errors
    assert "DiT-N/4" in out, "what was measured"
    kept = path.read_text()
    assert len(kept.splitlines()) == 2, "sdpa and naive at 64 pixels, which share their rounds"
    subprocess.run(command, check=True, capture_output=True)
    assert path.read_text().startswith(kept)
    assert len(path.read_text().splitlines()) == 4


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA bounds what is mapped on Linux alone")
def test_out_of_memory_is_a_row_and_the_sweep_goes_on(capsys, tmp_path):
    path = tmp_path / "bench.jsonl"
    arguments = ["--model", "DiT-S/2", "DiT-N/8", "--res", "2048", "--attention", "naive", "--rounds", "1"]
    bench.main([*arguments, "--warmup", "1", "--memory-limit", "2GiB", *SHARED, "--records", str(path)])
    rows = {record.get("model"): record for record in store.load(path)}
    assert {name: record.verdict for name, record in rows.items()} == {"DiT-S/2": "oom", "DiT-N/8": "ok"}
    met, predicted = rows["DiT-S/2"].note.split("; ")  # the scores of six heads, 16384 tokens against 16384
    assert met.startswith("met: bmm in blocks.*.attn: 6.00 GiB beyond ")
    assert predicted == "predicted: bmm in blocks.*.attn: 6x16384x16384 float32, 6.00 GiB"
    assert "oom" in capsys.readouterr().out


def test_a_timeout_is_a_row_with_its_reason(monkeypatch):
    hurried = clock.threading.Timer
    monkeypatch.setattr(clock.threading, "Timer", lambda seconds, act: hurried(0.01, act))
    found = clock.time_apart(Workload(spec=spec("DiT-N/4"), resolution=64), Timing(rounds=1, warmup=1, timeout=5))
    assert (found.verdict, found.note) == ("error", "no answer within 5 s")


@pytest.mark.slow
def test_any_other_failure_is_a_row_with_its_text():
    workload = Workload(spec=spec("DiM-N/4"), resolution=64, implementation="no such scan")
    found = clock.time_apart(workload, Timing(rounds=1, warmup=1, timeout=120))
    assert found.verdict == "error"
    assert "no such scan" in found.note


def test_throughput_and_flops_follow_from_latency():
    workload = Workload(spec=spec("DiT-XL/2"), resolution=256, batch=4, action="sample")
    parts = {"peak_bytes": 2**30, "predicted_bytes": 2**30, "flops": 4 * 2 * 2 * 118.62e9}
    record = LatencyRecord(
        quantity="latency", value=0.5, unit="s", method="", workload=workload.settings(), parts=parts,
        samples=[0.5, 0.5, 0.5], provenance=Provenance.here(),
    )  # fmt: skip
    (row,) = measured_rows([record], steps=250)
    assert row["images/s"] == 8
    assert row["full samples/s"] == pytest.approx(4 / 125)
    assert row["TFLOP/s"] == pytest.approx(4 * 4 * 118.62e9 / 0.5 / 1e12)


def test_predictions_name_the_card_the_tensor_and_what_makes_it_fit(capsys, tmp_path):
    """At 1024 pixels DiT-S/2 has 4096 tokens and 6 heads: a tensor of its scores is 6 x 4096 x 4096 x 4 bytes."""
    path = tmp_path / "memory.jsonl"
    arguments = ["--predict", "--model", "DiT-S/2", "--res", "1024", "--device-memory", "2.5GiB", "80GiB"]
    bench.main([*arguments, "--records", str(path)])
    out = capsys.readouterr().out
    sdpa, naive = (line for line in out.splitlines() if line.startswith("DiT-S/2  1024"))
    assert "OOM" not in sdpa
    assert "OOM 0" in naive
    (broken,) = (line for line in out.splitlines() if line.startswith("  2.5 GiB: "))
    assert "in blocks.*.attn: 6x4096x4096 float32, 0.38 GiB; fits with sdpa attention (0.19 GiB)" in broken
    assert "bmm in blocks.*.attn 0.38 GiB (4" in out
    assert "2 GiB are left to the CUDA context" in out
    record = json.loads(path.read_text().splitlines()[0])
    assert record["verdict"] == "estimated"
    assert sum(record["parts"].values()) == record["value"]



def test_predictions_as_rows_have_batches_with_and_without_checkpointing(capsys, tmp_path):
    arguments = ["--predict", "--model", "DiT-N/4", "--res", "64", "--attention", "sdpa", "--action", "train"]
    bench.main([*arguments, "--device-memory", "3GiB", "--format", "json", "--records", str(tmp_path / "m.jsonl")])
    (row,) = json.loads(capsys.readouterr().out)
    assert row["3 GiB"] == "fits"
    assert 2 < row["batch, 3 GiB"] < row["batch, 3 GiB, checkpointing"]


def test_what_fits_a_card_is_one_line_an_answer(capsys):
    bench.main(["--fits", "24GiB", "2.001GiB", "--model", "DiT-N/4", "--res", "64", "--action", "train",
                "--attention", "sdpa"])  # fmt: skip
    large, small, margin = capsys.readouterr().out.splitlines()
    question = "DiT-N/4 train at 64 px, float32, sdpa attention, on "
    answers = r"24 GiB: batch (\d+) fits, peak (\S+) GiB; with checkpointing batch (\d+) fits, peak (\S+) GiB"
    found = re.fullmatch(question + answers, large)
    batch, peak, recomputed, its_peak = map(float, found.groups())
    assert 1000 < batch < recomputed
    assert (peak, its_peak) == (22, 22)
    assert small.startswith(f"{question}2.001 GiB: no batch fits, one takes 0.0")
    assert "does not fit even with bfloat16 and checkpointing (" in small
    assert margin.startswith("Of each card 2 GiB are left")


def test_equal_macs_adds_the_depth_of_equal_cost(capsys, tmp_path):
    arguments = ["--predict", "--model", "DiT-S/2", "DiM-S/2", "--res", "512", "--attention", "sdpa", "--equal-macs"]
    bench.main([*arguments, "--device-memory", "80GiB", "--records", str(tmp_path / "m.jsonl")])
    assert "DiM-S/2(depth=13)" in capsys.readouterr().out


@pytest.mark.slow
def test_the_gpu_preset_is_the_sweep_of_both_families_and_runs_at_a_tiny_size(capsys, tmp_path):
    parser = Parser()
    add_sweep_flags(parser)
    parser.set_defaults(**bench.PRESETS["gpu-sweep"][0])
    workloads = workloads_of(parser.parse_args([]), set())
    assert {w.spec.name for w in workloads} == {"DiT-XL/2", "DiM-XL/2", "DiM-XL/2-matched"}
    assert {(w.resolution, w.action, w.dtype) for w in workloads} == {
        (r, a, d) for r in (256, 512, 1024, 2048) for a in ("forward", "train") for d in ("bfloat16", "float32")
    }
    path = tmp_path / "bench.jsonl"
    tiny = ["--device", "cpu", "--rounds", "1", "--warmup", "1", "--dtype", "bfloat16", "--action", "train"]
    measured(capsys, path, "--preset", "gpu-sweep", *tiny, "--attention", "sdpa")
    assert [record.row()["verdict"] for record in store.load(path)] == ["ok", "ok"]


# ---------------------------------------------------------------------------------------------------------- comparing


def records(path, median: float, device: str = "cpu: one", n: int = 30, model: str = "DiT-N/4"):
    samples = list(median * np.random.default_rng(0).normal(1, 0.02, n))
    workload = Workload(spec=spec(model), resolution=64)
    found = clock.Found("ok", samples=samples)
    settings = {"device": device, **Timing(rounds=n, warmup=1).settings()}
    store.append(path, [clock.latency_record(workload, found, settings)])
    return path


@pytest.mark.parametrize(
    ("factor", "n", "change"),
    [(1.2, 30, "slower"), (0.8, 30, "faster"), (1.001, 200, "same"), (1.012, 10, "ambiguous"), (1.2, 5, "ambiguous")],
)
def test_compare_says_faster_slower_same_or_ambiguous(tmp_path, factor, n, change):
    """Five samples decide nothing; ten that scatter by 2 % do not tell 1.2 %."""
    a, b = records(tmp_path / "a", 1.0, n=n), records(tmp_path / "b", factor, n=n)
    assert [row["change"] for row in compare(store.load(a), store.load(b))] == [change]


def test_a_comparison_names_models_and_answers_first_and_what_all_share_once(tmp_path, capsys):
    for name, factor in (("a", 1.0), ("b", 1.2)):
        records(tmp_path / name, factor, model="DiT-N/4")
        records(tmp_path / name, factor, model="DiM-XL/2-matched")
    assert bench.main(["--compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    shared, _, table = capsys.readouterr().out.partition("\n\n")
    assert "action forward, dtype float32" in " ".join(shared.split())
    header, _, *rows = table.splitlines()
    assert header.split() == "model resolution before ms after ms ratio 99% interval change".split()
    assert [row.split()[0] for row in rows[:2]] == ["DiT-N/4", "DiM-XL/2-matched"]
    assert [row.split()[-1] for row in rows[:2]] == ["slower", "slower"]
    assert max(map(len, (*shared.splitlines(), *table.splitlines()))) <= 80


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        a, b = (generator.normal(1, 0.1, 40).tolist() for _ in range(2))
        _, low, high = ratio_interval(a, b, seed=trial)
        covered += low <= 1 <= high
    assert covered >= 190


def test_unlike_things_are_not_compared(tmp_path):
    a = records(tmp_path / "a", 1.0)
    with pytest.raises(ValueError, match="device is 'cpu: one' in one and 'cpu: two' in the other"):
        compare(store.load(a), store.load(records(tmp_path / "b", 1.0, device="cpu: two")))
    with pytest.raises(ValueError, match="rounds is 30 in one and 20"):
        compare(store.load(a), store.load(records(tmp_path / "c", 1.0, n=20)))
    with pytest.raises(ValueError, match="no workload in common"):
        compare(store.load(a), store.load(records(tmp_path / "d", 1.0, model="DiM-N/4")))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--model", "DiM-XL/3"], "nearest"),
        (["--device-memory", "80 potatoes"], "is not a size such as 80GiB"),
        (["--device-memory", "0GiB"], "is not a size"),
        (["--action", "sleep"], "invalid choice"),
        (["--scan", "quick"], "unknown scan backend 'quick'; choose from auto"),
        (["--rounds", "0"], "must be at least 1, not 0"),
        (["--timeout", "0"], "must be at least 1, not 0"),
        (["--timeout", "nan"], "must be a finite number, not nan"),
        (["--memory-limit", "1"], "must be at least 1MiB and at most 1048576GiB, not '1'"),
        (["--device-memory", "2000000GiB"], "must be at least 1MiB and at most 1048576GiB"),
        (["--device-memory", "80GiB"], "--device-memory changes nothing without --predict"),
        (["--predict", "--rounds", "3"], "--rounds changes nothing with --predict"),
        (["--fits", "24GiB", "--batch", "3"], "--batch changes nothing with --fits"),
        (["--weights", "bfloat16", "--action", "train", "--dtype", "bfloat16"], "--weights bfloat16 is of --dtype"),
        (["--operands", "kept"], "--operands kept is of --action train of a DiM"),
        (["--steps", "50"], "--steps changes nothing without --action sample"),
        (["--model", "DiT-N/4", "--scan", "naive"], "--scan is of none of the models DiT-N/4"),
        (["--model", "DiT-N/4", "--equal-macs"], "no model here stands beside its counterpart"),
        (["--checkpointing"], "--checkpointing is of --action train"),
        (["--device", "cuda", "--memory-limit", "1GiB"], "a memory limit is of processes on a CPU"),
        (["--cuda-graph"], "a CUDA graph is of --device cuda, not of cpu"),
        (["--spread", "2"], "must be at most 1, not 2"),
        (["--predict", "--cache", "cold"], "--cache changes nothing with --predict"),
        (["--compare", "a.jsonl", "b.jsonl"], "--records changes nothing with --compare"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, tmp_path, arguments, complaint):
    path = tmp_path / "bench.jsonl"
    with pytest.raises(SystemExit) as stopped:
        bench.main([*arguments, "--records", str(path)])
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert len(captured.err.splitlines()) == 1
    assert complaint in captured.err
    assert not path.exists()


def test_a_comparison_of_no_files_is_one_line_and_exit_code_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        bench.main(["--compare", "no-such-a.jsonl", "no-such-b.jsonl"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "harness.bench: error: no records at no-such-a.jsonl\n"


def test_records_that_are_a_folder_are_refused_before_any_work(capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        bench.main(["--records", str(tmp_path)])
    assert stopped.value.code == 2
    assert "it is a folder" in capsys.readouterr().err


def test_a_missing_gpu_is_said_in_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "_nvidia_smi", lambda query: "")
    with pytest.raises(SystemExit) as stopped:
        bench.main([*TINY, "--device", "cuda", "--records", str(tmp_path / "b.jsonl")])
    assert stopped.value.code == 2
    assert "no CUDA device" in capsys.readouterr().err
