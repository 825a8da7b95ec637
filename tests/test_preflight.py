"""What a plan would stop at after days is found before it begins: data, autoencoders, networks, references, sizes."""

import dataclasses
import json

import numpy as np
import pytest
from networks import random_i3d
from test_autoencoder import tiny_vae
from videos import numbered, write_tree, write_video

from harness import reproduce
from harness.data.autoencoder import StableDiffusion
from harness.data.fashion_mnist import FILES
from harness.suites import Plan, Run, Score, Suite, execution, preflight, suite
from harness.suites.launch import Launch
from harness.suites.rows import Row
from harness.suites.score import is_part

pytest.importorskip("av", reason="pip install av")


def plan_of(score: Score, tmp_path, **places) -> Plan:
    row = Row(part="table3", label="one", family="DiT", contest="one", scores=(score,))
    small = Suite("smoke", "one row", (row,), 1)
    return Plan(suite=small, runs=tmp_path / "runs", results=tmp_path / "results", **places)


IMAGES = Score(
    run=Run(preset="digits", model="DiT-P/4", milestones=(1,)), step=1, metrics=("fd8@digits",), cfg_scale=1.0,
    sampling_steps=2,
)  # fmt: skip
CLIPS = Score(
    run=Run(
        preset="moving-digits", model="DiT-P/4-video", milestones=(1,),
        changes=(("resolution", 16), ("frames", 16), ("num_classes", 3)),
    ),
    step=1, metrics=("fvd4_16f",), cfg_scale=1.0, sampling_steps=2, ref="nowhere",
)  # fmt: skip


@pytest.fixture(scope="module")
def i3d(tmp_path_factory):
    return random_i3d(tmp_path_factory.mktemp("weights") / "i3d.pt")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Four classes' worth of shape: 32 x 24, of which a clip of 16 frames x stride 3 fits none but the long ones."""
    root = write_tree(tmp_path_factory.mktemp("ucf"), length=60)
    write_video(root / "Archery" / "v_Archery_g03_c01.avi", numbered(20))
    return root


def test_a_reference_of_another_size_is_found_before_anything_is_trained(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(execution.Workers, "run", lambda *arguments: ran.append(arguments) or "")
    large = tmp_path / "large.npz"  # the suite learns 16 pixels a side
    np.savez(large, arr_0=np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8))
    flags = ["--suite", "smoke", "--only", "table7", "--ref", f"digits={large}"]
    with pytest.raises(SystemExit, match="2"):
        reproduce.main([*flags, "--runs", str(tmp_path / "runs"), "--results", str(tmp_path)])
    assert not ran
    fine = Plan(suite=suite("smoke"), parts=("table7",), runs=tmp_path / "runs", results=tmp_path)
    preflight.require_inputs(fine)


def test_the_line_names_the_run_and_how_to_give_its_data_or_reference(tmp_path):
    small = tmp_path / "small.npz"
    np.savez(small, arr_0=np.zeros((20, 4, 4, 3), dtype=np.uint8))
    apart = r"samples are 8 x 8, the reference .* is 4 x 4 \(--data or --ref digits=WHERE\)$"
    with pytest.raises(ValueError, match=rf"^digits-DiT-P-4-\S+ would stop: {apart}"):
        preflight.require_inputs(plan_of(IMAGES, tmp_path, references={"digits": str(small)}))
    with pytest.raises(ValueError, match="would stop: no data at '/nowhere'"):
        preflight.require_inputs(plan_of(IMAGES, tmp_path, data={"digits": "/nowhere"}))
    only = dataclasses.replace(IMAGES, run=dataclasses.replace(IMAGES.run, changes=(("num_classes", 11),)))
    with pytest.raises(ValueError, match="digits has 10 classes, the model 11"):
        preflight.require_inputs(plan_of(only, tmp_path))
    odd = dataclasses.replace(IMAGES, run=dataclasses.replace(IMAGES.run, changes=(("resolution", 10),)))
    with pytest.raises(ValueError, match="resolution 10 is not divisible by 4"):
        preflight.require_inputs(plan_of(odd, tmp_path))


def test_stages_that_are_left_out_are_not_looked_at(tmp_path):
    nothing = {"data": {"digits": "/nowhere"}}
    preflight.require_inputs(plan_of(IMAGES, tmp_path, stages=("score", "report"), **nothing))
    with pytest.raises(ValueError, match="no data at"):
        preflight.require_inputs(plan_of(IMAGES, tmp_path, stages=("train",), **nothing))


def test_a_folder_is_brought_to_the_size_of_the_samples_and_nothing_else_is(tmp_path):
    plan = plan_of(CLIPS, tmp_path, references={"moving-digits": "some/folder"})
    command = plan.score([CLIPS])
    assert command[command.index("--ref-resolution") + 1] == "16"
    for ref in ("set.npz", "fashion-mnist:test"):
        assert "--ref-resolution" not in plan_of(CLIPS, tmp_path, references={"moving-digits": ref}).score([CLIPS])
    ucf = next(score for score in suite("paper").scores(["table3"]))
    command = " ".join(plan_of(ucf, tmp_path).score([ucf]))
    assert "--ref ucf101 --ref-resolution 256 --metric fvd2048_16f" in command
    assert "--stride-real 3 --real-videos random --split train+test" in command


def test_real_clips_are_opened_as_they_will_be_cut(tmp_path, videos, i3d, monkeypatch):
    """With stride 3 the video of 20 frames has no clip; where no video has any, that is said now."""
    monkeypatch.setattr(preflight, "TRAIN", "nothing")  # moving digits have one channel, and three classes too many
    places = {"references": {"moving-digits": str(videos)}, "extraction": (("i3d_weights", i3d),)}
    protocol = (("stride_real", 3), ("real_videos", "random"))
    preflight.require_inputs(plan_of(dataclasses.replace(CLIPS, protocol=protocol), tmp_path, **places))
    sparse = dataclasses.replace(CLIPS, protocol=(("stride_real", 4),))
    with pytest.raises(ValueError, match="no video has the 64 frames of a clip"):
        preflight.require_inputs(plan_of(sparse, tmp_path, **places))
    places["extraction"] = (("i3d_weights", tmp_path / "absent.pt"),)
    with pytest.raises(ValueError, match="no i3d weights at"):
        preflight.require_inputs(plan_of(CLIPS, tmp_path, **places))


def test_files_that_are_elsewhere_are_learnt_from_and_compared_with_by_their_part(tmp_path):
    """By --data alone: a --ref would have settings chosen on what is scored."""
    for file in (file for pair in FILES.values() for file in pair):
        (tmp_path / f"{file.name}.gz").touch()
    place, records = {"fashion-mnist": str(tmp_path)}, {"runs": tmp_path / "runs", "results": tmp_path}
    plan = Plan(suite=suite("fashion", []), data=place, **records)
    tuned = next(iter(plan.suite.scores()))
    assert plan.reference(tuned) == (f"{tmp_path}:validation", None)
    floor = plan.floor()
    assert [floor[floor.index(flag) + 1] for flag in ("--samples", "--ref")] == [
        f"{tmp_path}:validation", f"{tmp_path}:test",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"of its own: give --data fashion-mnist=FOLDER, and no --ref$"):
        Plan(suite=suite("fashion", []), data=place, references=place, **records)


@pytest.mark.parametrize(
    ("recorded", "same"),
    [("fashion-mnist:validation", True), ("/data/fmnist:validation", True), ("/data/fmnist:test", False),
     ("/data/fmnist", False), ("fashion-mnist:test", False), ("moving-digits:validation", False)],
)  # fmt: skip
def test_a_part_is_the_same_wherever_its_files_are(recorded, same):
    assert is_part("fashion-mnist:validation", recorded) is same


def test_a_score_that_its_records_do_not_answer_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(execution.Workers, "run", lambda *arguments: "")  # it ends well, and records nothing
    (failure,) = execution.carry_out(plan_of(IMAGES, tmp_path), execution.Workers(Launch(), 1), 1)
    assert failure == f"{IMAGES.run.name} was scored, and no record in {tmp_path}/results/measurements/smoke.jsonl " \
        "answers fd8@digits"


def test_an_autoencoder_that_decodes_is_opened_first_and_compared_with_the_latents_that_are_learnt(
    tmp_path, monkeypatch
):
    first, second = (tiny_vae(tmp_path / name, seed) for seed, name in enumerate(("one", "two")))
    run = Run(preset="digits", model="DiT-P/2", milestones=(1,), changes=(("vae", str(first)), ("resolution", 8)))
    score = dataclasses.replace(IMAGES, run=run)
    plan = plan_of(score, tmp_path, stages=("score",))
    preflight.require_inputs(plan)
    assert "--vae" not in plan.score([score])
    moved = plan_of(score, tmp_path, stages=("score",), vae=str(second))
    assert moved.score([score])[-2:] == moved.draw(score)[-3:-1] == ["--vae", str(second)]
    preflight.require_inputs(moved)
    config = plan.directory(run) / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"autoencoder": StableDiffusion(str(first)).name}))
    with pytest.raises(ValueError, match=r"its latents are of one#.*, and two#.* has other weights \(--vae WHERE"):
        preflight.require_inputs(moved)
    gone = plan_of(score, tmp_path, stages=("score",), vae=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"would stop: no autoencoder at .*nowhere"):
        preflight.require_inputs(gone)
