"""Suite paper's whole plan at its smallest: what would stop it after days stops it here."""

import dataclasses
import platform
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver

import pytest
from PIL import Image

from harness import reproduce
from harness.core import store
from harness.data import decoding
from harness.suites import Plan, rehearsal, stand_ins, suite, warm
from harness.suites import plan as planning
from harness.suites.execution import Workers
from harness.suites.fitting import Fitting
from harness.suites.launch import Launch
from models import spec

pytest.importorskip("av", reason="pip install av")
pytest.importorskip("diffusers", reason="pip install diffusers")
pytest.importorskip("torch_fidelity", reason="pip install torch-fidelity")


def test_each_row_of_the_small_suite_is_one_of_the_whole_with_other_sizes():
    whole, small = suite("paper"), suite("rehearsal")
    assert len(whole.rows) == len(small.rows)
    for theirs, ours in zip(whole.rows, small.rows, strict=True):
        assert dataclasses.replace(ours, scores=theirs.scores) == theirs
        for large, score in zip(theirs.scores, ours.scores, strict=True):
            was, now = spec(large.run.model), spec(score.run.model)
            assert (now.family, now.patch, now.frames, now.size) == (was.family, was.patch, was.frames, "P")
            assert "matched" in score.run.model or "matched" not in large.run.model
            same = ("preset", "seed")
            assert all(getattr(score.run, name) == getattr(large.run, name) for name in same)
            same = ("cfg_scale", "ref", "protocol", "sampler", "redraw")
            assert all(getattr(score, name) == getattr(large, name) for name in same)
            same = ("num_classes", "flip", "frames", "stride", "joint_images", "decoder_nll", "short_videos", "vae")
            assert all(getattr(score.run.config, name) == getattr(large.run.config, name) for name in same)
            assert [re.sub(r"\d+k?", "", one, count=1) for one in score.metrics] == [
                re.sub(r"\d+k?", "", one, count=1) for one in large.metrics
            ]
            assert score.run.milestones.index(score.step) == large.run.milestones.index(large.step)


def flags_of(command: list[str]) -> tuple[str, frozenset[str]]:
    """The module of a command, and the names of its flags."""
    return command[1], frozenset(part for part in command if part.startswith("--"))


def test_every_command_of_the_plan_has_a_small_one_with_its_flags(tmp_path, monkeypatch):
    """And the small ones have none but those, and the flags that give sizes and places."""
    whole = Plan(suite=suite("paper"), runs=tmp_path, results=tmp_path)
    extraction = (("inception_weights", tmp_path), ("i3d_weights", tmp_path), ("batch", 4))
    small = dataclasses.replace(
        whole, suite=suite("rehearsal"), card_gib=rehearsal.CARD_GIB, vae="v", extraction=extraction,
        data={"imagenet256": "i", "ucf101": "u"},
    )  # fmt: skip
    added = {"--resolution", "--batch", "--clip-after", "--data", "--vae", "--bootstrap", "--inception-weights",
             "--i3d-weights"}  # fmt: skip
    fitted = {"--checkpoint-activations", "--accumulate", "--fsdp"}  # which are by the memory that a run takes
    small_commands = rehearsal.commands(small)
    assert any("--checkpoint-activations" in command for command in small_commands)
    monkeypatch.setattr(planning, "fitted", lambda *_: Fitting(False, 1, False, 0))  # of the largest it takes long
    flags = [
        {(module, names - added - fitted) for module, names in map(flags_of, commands)}
        for commands in (rehearsal.commands(whole), small_commands)
    ]
    assert flags[0] == flags[1]
    assert {module for module, _ in flags[0]} == {
        "harness.train", "harness.eval", "harness.sample", "harness.tables", "harness.plots"
    }  # fmt: skip


def test_made_up_photographs_and_videos_have_the_oddities_of_the_real_ones(tmp_path):
    for number in range(8):
        stand_ins.write_photograph(tmp_path / "photographs" / f"{number}.JPEG", number)
        stand_ins.write_video(tmp_path / "videos" / "Class" / f"v_{number}.avi", number)
    opened = [Image.open(path) for path in sorted((tmp_path / "photographs").iterdir())]
    assert {(one.format, one.mode) for one in opened} == {
        ("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB")
    }  # fmt: skip
    assert len({one.size for one in opened}) == 4
    videos = decoding.find(tmp_path / "videos")
    lengths = [decoding.length_of(video) for video in videos]
    assert (min(lengths), sum(length < 48 for length in lengths)) == (29, 2)
    (frame,) = decoding.decode(videos[0], [7])
    assert frame.width / frame.height == 320 / 240


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--suite", "digits"], "suite digits is small already; --rehearse is of paper"),
        (["--suite", "paper", "--plan"], "--rehearse runs on this machine: without --plan and --submit"),
        (["--suite", "paper", "--submit", "slurm"], "--rehearse runs on this machine: without --plan and --submit"),
        (["--suite", "paper", "--vae", "somewhere"], "--rehearse makes its own data and networks: leave out"),
        (["--suite", "paper", "--run", next(iter(suite("paper").runs())).name], "not of single runs"),
    ],
)  # fmt: skip
def test_what_cannot_be_rehearsed_is_one_line(flags, complaint, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        reproduce.main([*flags, "--rehearse", "--runs", str(tmp_path), "--results", str(tmp_path)])
    error = capsys.readouterr().err
    assert re.search(complaint, error)
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_fails_is_kept_with_its_log_and_what_ends_well_is_removed(tmp_path, monkeypatch):
    plan = Plan(suite=suite("paper"), runs=tmp_path / "runs", results=tmp_path)
    monkeypatch.setattr(rehearsal, "at_smallest", lambda plan, name, folder: plan)
    for failures in ([], ["it failed (log.txt)"]):
        monkeypatch.setattr(rehearsal, "reproduce", lambda *arguments, found=failures: found)
        assert rehearsal.rehearse(plan) == failures
        assert len(list((tmp_path / "runs").glob("rehearsal-*"))) == len(failures)


def test_a_command_that_starts_while_another_ends_leaves_its_exit_code_alone(tmp_path, monkeypatch):
    """The exit code lies in a pipe until one reads it; here the reader is slow."""
    reading, read = threading.Event(), forkserver.read_signed
    reads = []

    def read_slowly(descriptor):
        reads.append(descriptor)
        if len(reads) == 2:  # the first is the process's number
            reading.set()
            time.sleep(0.5)
        return read(descriptor)

    monkeypatch.setattr(forkserver, "read_signed", read_slowly)
    workers = warm.WarmWorkers(Launch(), threads=1)
    command, logs = ["-m", "platform"], (tmp_path / "first.txt", tmp_path / "second.txt")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(workers.run, command, logs[0], None, tmp_path)
        assert reading.wait(120)
        second = workers.run(command, logs[1], None, tmp_path)
        assert (first.result(), second) == ("", "")
    assert all(log.read_text().strip() == platform.platform() for log in logs)


@pytest.mark.slow
def test_the_whole_of_suite_paper_runs_at_its_smallest(tmp_path, monkeypatch, capsys):
    """Trained, scored by Inception and I3D, drawn, tabulated and plotted, by the one command, from nothing."""
    kept = tmp_path / "kept"
    monkeypatch.setattr(rehearsal, "rmtree", lambda folder, ignore_errors: folder.rename(kept))
    where = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results"), "--max-jobs", "2"]
    code = reproduce.main(["--suite", "paper", "--rehearse", *where])
    printed = capsys.readouterr()
    assert code == 0, printed.err[-3000:]
    assert "all commands of suite paper were rehearsed, and ended well" in printed.out
    assert not list((tmp_path / "runs").iterdir())
    records = store.load(kept / "results" / "measurements" / "rehearsal.jsonl")
    for score in suite("rehearsal").scores():
        assert score.missing(records) == []
    videos = [record for record in records if record.quantity == "fvd"]
    assert {(one.get("stride_real"), one.get("real_videos"), one.get("resolution")) for one in videos} == {
        (3, "random", 32)
    }  # fmt: skip
    tables = kept / "results" / "tables" / "rehearsal"
    for number in (2, 3, 5, 6, 7):
        assert "DiM-" in (tables / f"table{number}.md").read_text()
    assert list((kept / "results" / "figures" / "rehearsal").glob("figure1.svg"))


def test_workers_are_cold_where_several_processes_share_a_run(tmp_path, monkeypatch):
    kinds = []
    monkeypatch.setattr(rehearsal, "at_smallest", lambda plan, name, folder: plan)
    monkeypatch.setattr(rehearsal, "reproduce", lambda plan, jobs, kind: kinds.append(kind) or [])
    plan = Plan(suite=suite("paper"), runs=tmp_path, results=tmp_path)
    rehearsal.rehearse(plan)
    rehearsal.rehearse(dataclasses.replace(plan, launch=dataclasses.replace(plan.launch, processes=2)))
    assert [kind is Workers for kind in kinds] == [False, True]
