"""`python -m harness.eval`: one command from samples to numbers; resumable, the same in any number of processes."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import random_i3d, random_inception
from PIL import Image

from harness import eval as command
from harness.data.digits import Digits
from harness.diffusion import checkpoint
from models import create_model

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An empty folder of published weights: what comes with the package needs none."""
    return tmp_path_factory.mktemp("weights")


@pytest.fixture
def run(tmp_path, weights, capsys):
    """The command, called in this process; gives the records it wrote."""

    def call(*arguments, work="work"):
        records = tmp_path / "records.jsonl"
        records.unlink(missing_ok=True)
        where = ["--work-dir", tmp_path / work, "--weights-dir", weights, "--records", records, "--offline"]
        assert command.main([str(argument) for argument in (*arguments, *where)]) == 0
        return [json.loads(line) for line in records.read_text().splitlines()]

    return call


@pytest.fixture
def refused(tmp_path, weights, capsys):
    """The command, called with bad input; gives its one line of complaint, after checking that it wrote no result."""

    def call(*arguments):
        records = tmp_path / "none.jsonl"
        where = ["--work-dir", tmp_path / "work", "--weights-dir", weights, "--offline"]
        if arguments[0] != "reference":
            where += ["--records", records]
        with pytest.raises(SystemExit) as stop:
            command.main([str(argument) for argument in (*arguments, *where)])
        assert stop.value.code == 2
        assert not records.exists()
        complaint = capsys.readouterr().err.strip()
        assert "\n" not in complaint
        return complaint

    return call


def noisy_digits(count, seed=0, sigma=40):
    """Real digits with noise, (N, 8, 8, 3)."""
    generator = np.random.default_rng(seed)
    pixels = Digits().pixels.numpy().transpose(0, 2, 3, 1)[generator.integers(0, 1797, count)]
    noisy = pixels + generator.normal(0, sigma, (count, 8, 8, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def save(path, array, **more):
    np.savez(path, arr_0=array, **more)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory with a tiny untrained model of digits."""
    where = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    model = create_model("DiT-N/4", 8, channels=1, downsample=1, num_classes=10)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    config = {"spec": dataclasses.asdict(model.spec), "resolution": 8, "vae": "identity", "dataset": "digits"}
    config["classes"] = [str(digit) for digit in range(10)]
    state = {"step": 3, "config": config, "model": model.state_dict(), "ema": model.state_dict()}
    checkpoint.save(where / "checkpoints", state)
    return where


# What it prints and keeps


def test_several_checkpoints_are_scored_in_turn(run, trained, capsys):
    file = next((trained / "checkpoints").glob("*.pt"))
    records = run("--ckpt", trained, file, "--metric", "is64@digits", "--steps", 3, "--cfg-scale", 1)
    assert [record["workload"]["source"] for record in records] == [str(trained), str(file)]
    assert records[0]["value"] == records[1]["value"]
    shown = capsys.readouterr().out.splitlines()
    assert shown.index(str(trained)) < shown.index(str(file))


def test_a_checkpoint_is_scored_without_a_file_of_images(run, trained, tmp_path, capsys):
    metrics = ["fd64@digits", "pr64@digits", "is64@digits"]
    sampling = ["--steps", 3, "--cfg-scale", 1, "--seed", 5]
    records = run("--ckpt", trained, "--metric", *metrics, *sampling, "--repeats", 2)
    quantities = [record["quantity"] for record in records]
    assert quantities == ["fd", "precision", "recall", "inception_score"]
    shown = capsys.readouterr().out
    assert shown.startswith(f"{trained}\nprotocol: digits network")
    assert all(f"{record['value']:.6g}" in shown for record in records)
    first = records[0]
    assert (first["workload"]["model"], first["workload"]["n_samples"], first["workload"]["n_reference"]) == (
        "DiT-N/4",
        64,
        1797,
    )
    assert len(first["samples"]) == 2
    assert first["value"] == pytest.approx(np.mean(first["samples"]))
    assert first["parts"]["standard_error"] == pytest.approx(np.std(first["samples"], ddof=1) / 2**0.5)
    assert first["seed"] == 5
    identity = first["workload"]["source_identity"]
    assert (identity["steps"], identity["seed"], identity["sampler"], len(identity["sha256"])) == (3, 5, "ddpm", 64)
    assert not list(tmp_path.rglob("*.png"))

    kept = run("--ckpt", trained, "--metric", *metrics, *sampling, "--save-samples", tmp_path / "kept", work="other")
    assert len(list((tmp_path / "kept").glob("*.png"))) == 64 + 1 - 1
    again = run("--samples", tmp_path / "kept", "--metric", *metrics, work="third")
    assert [record["value"] for record in again] == [record["value"] for record in kept]
    assert kept[0]["value"] == first["samples"][0]  # saved or piped, the same samples
    assert kept[0]["workload"]["samples_sha256"] == again[0]["workload"]["samples_sha256"]


def test_networks_that_score_one_checkpoint_see_one_drawing_which_is_gone_afterwards(
    run, trained, tmp_path, monkeypatch
):
    from harness.suites import checkpoint_source

    drawn = []

    def counted(trained, config, indices, *how):
        drawn.extend(indices)
        return generate(trained, config, indices, *how)

    generate = checkpoint_source.generate
    monkeypatch.setattr(checkpoint_source, "generate", counted)
    sampling = ["--steps", 3, "--cfg-scale", 1, "--seed", 5]
    both = ["fd50@digits", "fd50@efficientnet-lite0"]
    images = ["--ref", save(tmp_path / "real.npz", noisy_digits(60))]
    together = run("--ckpt", trained, "--metric", *both, *sampling, *images)
    assert sorted(drawn) == list(range(50))
    assert not list(tmp_path.rglob("*.png"))
    apart = [run("--ckpt", trained, "--metric", one, *sampling, *images, work="other")[0] for one in both]
    assert sorted(drawn) == sorted([*range(50)] * 3)
    assert [one["value"] for one in together] == [one["value"] for one in apart]
    run("--ckpt", trained, "--metric", *both, *sampling, *images, "--bootstrap", 5)
    assert len(drawn) == 150, "features that are there need no samples"


def test_what_was_drawn_before_a_stop_is_not_drawn_again(run, trained, tmp_path, monkeypatch):
    from harness.metrics import evaluation
    from harness.suites import checkpoint_source

    drawn = []
    generate = checkpoint_source.generate

    def counted(trained, config, indices, *how):
        drawn.extend(indices)
        return generate(trained, config, indices, *how)

    monkeypatch.setattr(checkpoint_source, "generate", counted)
    command_line = ["--ckpt", trained, "--metric", "fd50@digits", "fd50@efficientnet-lite0", "--steps", 3]
    command_line += ["--ref", save(tmp_path / "real.npz", noisy_digits(60))]

    def stopped(compared):
        raise RuntimeError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "results_of", stopped)
        with pytest.raises(RuntimeError, match="stopped"):
            run(*command_line)
    assert len(list(tmp_path.rglob("0*.png"))) == 50
    del drawn[:]
    run(*command_line)
    assert not drawn
    assert not list(tmp_path.rglob("*.png"))


def test_what_does_not_fit_is_refused_before_samples_are_drawn_to_be_kept(refused, trained, tmp_path):
    other = save(tmp_path / "other.npz", np.zeros((60, 16, 16, 3), np.uint8))
    kept = ["--save-samples", tmp_path / "kept"]
    flags = ["--ckpt", trained, "--steps", 3, "--metric", "fd50@digits", "--ref", other, *kept]
    assert "samples are 8 x 8, the reference" in refused(*flags)
    assert not list(tmp_path.rglob("*.png"))
    small = save(tmp_path / "small.npz", noisy_digits(500))
    kid = refused("--samples", save(tmp_path / "s.npz", noisy_digits(1000)), "--metric", "kid1k@digits", "--ref", small)
    assert f"kid1k@digits compares with at least 1,000 real items; {small} has 500" in kid


def test_a_reference_of_an_npz_is_not_resized(refused, tmp_path):
    images = save(tmp_path / "s.npz", noisy_digits(16))
    flags = ["--data", images, "--ref-resolution", 4, "--features", "digits", "--out", tmp_path / "out.npz"]
    assert "is taken as it is" in refused("reference", *flags)



def test_noise_is_further_from_digits_and_swapping_the_sets_changes_the_answer(run, tmp_path):
    near = save(tmp_path / "near.npz", noisy_digits(400, sigma=20))
    far = save(tmp_path / "far.npz", noisy_digits(400, seed=1, sigma=120))
    metrics = ["--metric", "fd400@digits", "pr400@digits"]
    fd_near, *_ = run("--samples", near, *metrics)
    fd_far, *_ = run("--samples", far, *metrics)
    assert fd_far["value"] > 3 * fd_near["value"]
    for record in (fd_near, fd_far):
        parts = record["parts"]
        assert parts["low"] < record["value"] < parts["high"]
        assert 0 < parts["standard_error"] < record["value"]
    forward = run("--samples", far, "--ref", near, *metrics)
    backward = run("--samples", near, "--ref", far, *metrics)
    assert forward[1]["value"] != backward[1]["value"]
    assert forward[1]["value"] == backward[2]["value"]  # precision of one is recall of the other


def test_formats_keep_every_digit(run, tmp_path, capsys):
    samples = save(tmp_path / "s.npz", noisy_digits(100))
    arguments = ["--samples", samples, "--metric", "is100@digits"]
    (record,) = run(*arguments, "--format", "json")
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["value"] == pytest.approx(record["value"], rel=1e-9)
    assert shown["samples_sha256"] == record["workload"]["samples_sha256"]
    run(*arguments, "--format", "csv")
    header, row = capsys.readouterr().out.splitlines()
    assert header.split(",")[0] == "metric"
    assert row.startswith("is100@digits,")


def test_sorted_samples_are_refused_for_the_inception_score_or_shuffled_on_request(run, refused, tmp_path):
    data = Digits()
    order = torch.argsort(data.labels, stable=True)
    pixels = data.pixels.permute(0, 2, 3, 1).numpy()[order].repeat(3, axis=0)
    pixels = (pixels // 4 * 3 + np.random.default_rng(0).integers(0, 60, pixels.shape)).astype(np.uint8)
    samples = save(tmp_path / "sorted.npz", pixels)
    arguments = ["--samples", samples, "--metric", "is5391@digits"]
    assert "sorted by class" in refused(*arguments)
    (record,) = run(*arguments, "--permute-seed", 0)
    assert record["workload"]["permute_seed"] == 0
    assert record["parts"]["chunks"] == 2


# Inception and I3D, with randomly initialised weights given by path


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory):
    pytest.importorskip("torch_fidelity", reason="pip install torch-fidelity")
    return random_inception(tmp_path_factory.mktemp("inception") / "inception.pth")


@pytest.mark.slow
def test_the_adm_path_runs_whole_and_agrees_with_torch_fidelity(run, inception_weights, tmp_path, capsys):
    from torch_fidelity import calculate_metrics

    class Images(torch.utils.data.Dataset):
        def __init__(self, array):
            self.array = array

        def __len__(self):
            return len(self.array)

        def __getitem__(self, index):
            return torch.from_numpy(self.array[index]).permute(2, 0, 1)

    generator = np.random.default_rng(0)
    samples, real = (generator.integers(0, top, (6, 32, 32, 3), dtype=np.uint8) for top in (256, 128))
    theirs = calculate_metrics(
        input1=Images(samples),
        input2=Images(real),
        isc=True,
        fid=True,
        isc_splits=1,
        samples_shuffle=False,
        feature_extractor_weights_path=str(inception_weights),
        cuda=False,
        batch_size=3,
        save_cpu_ram=True,
        cache=False,
        verbose=False,
    )
    given = ["--inception-weights", inception_weights, "--batch", 3, "--bootstrap", 0]
    paths = [save(tmp_path / "s.npz", samples), "--ref", save(tmp_path / "r.npz", real)]
    records = run("--samples", *paths, "--metric", "adm6", *given)
    found = {record["quantity"]: record for record in records}
    assert list(found) == ["fid", "sfid", "inception_score", "precision", "recall"]
    assert found["fid"]["value"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    assert found["inception_score"]["value"] == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert found["sfid"]["parts"]["dimension"] == 2023
    assert "6 samples for 2048 features" in found["fid"]["note"]
    assert found["fid"]["workload"]["extractor"]["published_weights"] is False
    assert "not published" in capsys.readouterr().out

    # with other weights than the published, a reference says so, and the real one's moments are not mixed with them
    built = tmp_path / "built.npz"
    shared = ["--work-dir", str(tmp_path / "work"), "--inception-weights", str(inception_weights), "--batch", "3"]
    assert command.main(["reference", "--data", str(tmp_path / "r.npz"), "--out", str(built), *shared]) == 0
    with np.load(built) as file:
        assert {name: file[name].shape for name in ("mu", "sigma_s")} == {"mu": (2048,), "sigma_s": (2023, 2023)}
        assert json.loads(str(file["features"]))["published_weights"] is False


def test_a_video_distance_records_every_choice_and_depends_on_it(run, refused, tmp_path):
    generator = np.random.default_rng(0)
    real = generator.integers(0, 256, (12, 24, 8, 8, 3), dtype=np.uint8)
    fake = generator.integers(0, 200, (8, 16, 8, 8, 3), dtype=np.uint8)
    for index, video in enumerate(real):
        (tmp_path / "real" / f"{index:03d}").mkdir(parents=True)
        for number, frame in enumerate(video):
            Image.fromarray(frame).save(tmp_path / "real" / f"{index:03d}" / f"{number:03d}.png")
    weights_file = random_i3d(tmp_path / "i3d.pt")
    arguments = ["--samples", save(tmp_path / "fake.npz", fake), "--ref", tmp_path / "real"]
    arguments += ["--metric", "fvd8_16f", "--i3d-weights", weights_file, "--bootstrap", 2]
    (record,) = run(*arguments, "--split", "train")
    workload = record["workload"]
    choices = ("split", "stride_real", "stride_fake", "real_videos", "offset_seed", "codec", "codec_real", "covariance")
    assert [workload[name] for name in choices] == ["train", 1, 1, "first", 0, "array", ".png", "population"]
    assert (record["quantity"], workload["n_samples"], workload["n_reference"]) == ("fvd", 8, 8)
    assert "8 samples for 400 features" in record["note"]
    values = {record["value"]}
    values.add(run(*arguments, "--covariance", "sample")[0]["value"])
    values.add(run(*arguments, "--offset-seed", 1)[0]["value"])
    (latte,) = run(*arguments, "--real-videos", "random")
    assert (latte["workload"]["real_videos"], latte["workload"]["n_reference"]) == ("random", 8)
    assert latte["value"] not in values
    (repeated,) = run(*arguments, "--repeats", 2)
    assert len(values) == 3
    assert repeated["samples"][0] == record["value"]  # repeats are further offset seeds
    assert repeated["samples"][1] in values
    spread = record["parts"]["standard_error"]
    assert repeated["parts"]["standard_error"] == pytest.approx(spread, rel=1e-6), "the samples are the same"
    assert len(set(repeated["workload"]["reference_sha256"])) == 2
    on_array = [*arguments, "--ref", save(tmp_path / "real.npz", real[:, :16])]
    assert "real.npz is taken as it is" in refused(*on_array, "--ref-resolution", 8)
    assert "fake.npz: 8 videos of 16 frames have no clip of 16 with stride 2" in refused(*arguments, "--stride-fake", 2)


# Resumable, and the same in any number of processes


def outcome(record):
    """What a run found, without who found it."""
    workload = {name: value for name, value in record["workload"].items() if name != "processes"}
    return [record["quantity"], record["value"], record["parts"], record["note"], workload]


DYING = """
import os, signal, sys
from harness.metrics import shards
whole, written = shards.write_atomically, []
def write(path, fill):
    written.append(path)
    if len(written) == 11:  # eight shards of the reference, two of the samples, and half of the next
        path.with_name(f".{path.name}.tmp").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    whole(path, fill)
shards.write_atomically = write
from harness.eval import main
main(sys.argv[1:])
"""


def test_killed_and_run_again_the_numbers_are_bit_identical(run, tmp_path, weights):
    samples = save(tmp_path / "s.npz", np.random.default_rng(0).integers(0, 256, (1500, 8, 8, 3), dtype=np.uint8))
    arguments = ["--samples", samples, "--metric", "fd1500@digits", "is1500@digits", "--bootstrap", 2, "--threads", 1]
    where = ["--work-dir", tmp_path / "killed", "--weights-dir", weights, "--records", tmp_path / "killed.jsonl"]
    command = [sys.executable, "-c", DYING, *(str(part) for part in (*arguments, *where))]
    died = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert (died.returncode, died.stdout) == (-signal.SIGKILL, b"")
    assert not (tmp_path / "killed.jsonl").exists()
    shards = sorted((tmp_path / "killed").glob("*/*.safetensors"))
    assert len(shards) == 10
    kept = {shard: shard.stat().st_mtime_ns for shard in shards}
    again = run(*arguments, work="killed")
    assert [outcome(record) for record in again] == [outcome(record) for record in run(*arguments, work="whole")]
    assert {shard: shard.stat().st_mtime_ns for shard in shards} == kept  # what was finished was not made again


@pytest.mark.slow
def test_under_torchrun_the_same_command_gives_the_same_numbers(run, tmp_path, weights, trained):
    arguments = ["--ckpt", trained, "--steps", 2, "--cfg-scale", 1, "--bootstrap", 2, "--threads", 1]
    arguments += ["--metric", "fd300@digits", "pr300@digits", "is300@digits"]
    where = ["--work-dir", tmp_path / "two", "--weights-dir", weights, "--records", tmp_path / "two.jsonl"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    command = [str(part) for part in (*launcher, "-m", "harness.eval", *arguments, *where)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    together = [json.loads(line) for line in (tmp_path / "two.jsonl").read_text().splitlines()]
    assert {record["workload"]["processes"] for record in together} == {2}
    assert [outcome(record) for record in together] == [outcome(record) for record in run(*arguments)]


# Bad input


@pytest.fixture
def samples(tmp_path):
    return save(tmp_path / "s.npz", noisy_digits(50))


def test_bad_samples_end_with_one_line_and_code_2(refused, samples, tmp_path):
    digits = ["--metric", "fd50@digits"]
    assert "--cfg-scale changes nothing with --samples" in refused("--samples", samples, *digits, "--cfg-scale", 7)
    for flag in (["--ref", "digits"], ["--arithmetic", "adm_fp16"], ["--extrapolate"]):
        said = refused("--samples", samples, "--metric", "is50@digits", *flag)
        assert f"{flag[0]} is for metrics" in said
        assert said.endswith("; is50@digits is none")
    assert "must be at most 1024, not '100000'" in refused("--samples", samples, *digits, "--threads", 100_000)
    assert "--batch: must be at most 4096" in refused("--samples", samples, *digits, "--batch", 10**9)
    assert "fd60@digits needs 60 samples; " in refused("--samples", samples, "--metric", "fd60@digits")
    assert "needs 20 samples x 3 repeats" in refused("--samples", samples, "--metric", "fd20@digits", "--repeats", 3)
    copies = save(tmp_path / "copies.npz", noisy_digits(10).repeat(5, axis=0))
    assert "40 of 50 samples are copies of an earlier one (80.0%)" in refused("--samples", copies, *digits)
    floats = save(tmp_path / "floats.npz", np.zeros((50, 8, 8, 3)))
    assert "float64 values; images must be uint8" in refused("--samples", floats, *digits)
    assert "unknown metric 'fjd50k'" in refused("--samples", samples, "--metric", "fjd50k")
    assert "kid50@digits: kid is of at least 1,000" in refused("--samples", samples, "--metric", "kid50@digits")
    assert "pr3@digits: pr is of at least 4 samples" in refused("--samples", samples, "--metric", "pr3@digits")
    extrapolated = refused("--samples", samples, "--metric", "fd15@digits", "--extrapolate")
    assert "fd15@digits: fd with --extrapolate is of at least 20 samples" in extrapolated


def test_a_reference_that_does_not_fit_ends_with_one_line_and_code_2(refused, samples, tmp_path):
    large = save(tmp_path / "large.npz", np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), dtype=np.uint8))
    complaint = refused("--samples", samples, "--ref", large, "--metric", "fd50@digits")
    assert complaint.endswith(f"samples are 8 x 8, the reference {large} is 16 x 16")
    np.savez(tmp_path / "moments.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    complaint = refused("--samples", samples, "--ref", tmp_path / "moments.npz", "--metric", "pr50@digits")
    assert "moments.npz has no arr_0, which holds the images that pr50@digits needs; it holds mu, sigma" in complaint
    assert "give --ref" in refused("--samples", samples, "--metric", "fid50")


def test_flags_that_do_not_fit_together_are_refused(refused, trained, samples, tmp_path):
    assert "one at a time" in refused("--samples", samples, "--ref", samples, "--metric", "fid50", "fvd50_16f")
    complaint = refused("--ckpt", trained, "--ref", samples, "--metric", "fvd50_16f")
    assert complaint.endswith("fvd50_16f scores clips, and DiT-N/4 draws images")
    assert "nothing to draw" in refused("--samples", samples, "--metric", "is50@digits", "--save-samples", tmp_path)
    assert "at least 2" in refused("--samples", samples, "--metric", "is50@digits", "--bootstrap", 1)
    assert "must end in .npz" in refused("reference", "--data", "digits", "--features", "digits", "--out", "r.pt")
    complaint = refused("reference", "--data", "digits", "--features", "i3d", "--out", "r.npz")
    assert complaint.endswith("a reference on disk is of images, and i3d features are of clips")
    assert "unknown features 'none'; choose from inception, " in refused(
        "reference", "--data", "digits", "--features", "none", "--out", "r.npz"
    )
    assert "no checkpoint in" in refused("--ckpt", tmp_path, "--metric", "is50@digits")


def test_absent_weights_are_named_with_where_to_put_them(refused, samples, weights):
    pytest.importorskip("torch_fidelity", reason="pip install torch-fidelity")
    complaint = refused("--samples", samples, "--ref", samples, "--metric", "fid50")
    assert "--offline forbids a download: put https://github.com/toshas/torch-fidelity/releases" in complaint
    assert f"at {weights}/weights-inception-2015-12-05-6726825d.pth" in complaint


def test_absent_weights_of_timm_are_named_with_where_they_are_had(refused, samples, weights):
    name = "vit_large_patch14_dinov2.lvd142m"
    complaint = refused("--samples", samples, "--ref", samples, "--metric", f"fd50@timm:{name}")
    assert f"put https://huggingface.co/timm/{name}/resolve/main/model.safetensors at {weights}/{name}" in complaint


def test_destinations_are_checked_before_the_work(samples, trained, tmp_path, capsys):
    digits = ["--samples", samples, "--metric", "is50@digits"]
    file = tmp_path / "file"
    file.write_text("")
    for flags, complaint in (
        ([*digits, "--records", tmp_path], f"--records is a file, and {tmp_path} is a folder"),
        ([*digits, "--records", file / "below" / "r.jsonl"], f"cannot write {file}/below/r.jsonl"),
        (["--ckpt", trained, "--metric", "is50@digits", "--save-samples", file], f"a folder, and {file} is a file"),
        (["reference", "--data", "digits", "--features", "digits", "--out", tmp_path], "it is a folder"),
    ):
        with pytest.raises(SystemExit) as stop:
            command.main([*map(str, flags), "--work-dir", str(tmp_path / "work")])
        assert stop.value.code == 2
        assert complaint in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_a_reference_never_replaces_what_it_is_made_of(refused, samples, tmp_path):
    content = samples.read_bytes()
    alias = tmp_path / "alias.npz"
    alias.symlink_to(samples)
    for out in (samples, alias, tmp_path / "work" / ".." / "s.npz"):
        complaint = refused("reference", "--data", samples, "--features", "digits", "--out", out)
        assert "--out would replace what is read" in complaint
    assert samples.read_bytes() == content


def test_flags_that_mean_nothing_here_are_refused_by_name(refused, samples):
    digits = ["--samples", samples, "--metric", "fd50@digits"]
    assert "the reference is an empty path" in refused(*digits, "--ref", "")
    assert "the samples is an empty path" in refused("--samples", "", "--metric", "fd50@digits")
    for flag in ("--stride-fake", "--stride-real"):
        assert f"{flag} is of metrics that cut clips, like fvd2048_16f; fd50@digits does not" in refused(
            *digits, flag, 2
        )
    assert "metric 'fd50@digits' is given twice" in refused(*digits, "fd50@digits")
    assert "unknown flag --bootstraps; nearest: --bootstrap" in refused(*digits, "--bootstraps", 3)
    assert "either --ckpt or --samples" in refused("--metric", "fd50@digits")
    assert "must be a whole number" in refused(*digits, "--metric-seed", "٣")
    assert "argument --bootstrap: expected one argument" in refused(*digits, "--bootstrap=--")
    assert "unknown device 'mps'; choose cpu, cuda or cuda:N" in refused(*digits, "--device", "mps")


def test_help_and_bad_input_are_answered_without_torch_or_pandas(tmp_path):
    code = """
import sys
from harness.eval import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    print(stop.code, [name for name in ("torch", "pandas") if name in sys.modules])
"""
    samples = ["--samples", str(tmp_path / "s.npz"), "--metric"]
    for flags, expected in (
        (["--help"], 0),
        (["reference", "--help"], 0),
        ([*samples, "fjd50k"], 2),
        ([*samples, "fd50@digits", "--bootstrap", "1"], 2),
        ([*samples, "fd50@digits", "--unknown"], 2),
    ):
        command = [sys.executable, "-c", code, *flags]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert found.stdout.splitlines()[-1] == f"{expected} []", flags
