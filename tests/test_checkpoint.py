"""Checkpoints under damage: torn files, a full disk, foreign weights."""

import argparse
import dataclasses
import hashlib
import os
import resource
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from harness.diffusion import checkpoint, integrity, trained
from harness.diffusion.sample_config import WeightsConfig
from models import create_model


def state(step, values=8):
    return {"step": step, "config": {}, "model": {"w": torch.full((values,), float(step))}}


def test_two_rolling_checkpoints_and_every_milestone_are_kept(tmp_path):
    for step in (10, 20, 30, 40, 50):
        checkpoint.save(tmp_path, state(step), milestone=step in (20, 50))
    assert [path.name for path in checkpoint.find(tmp_path)] == [
        "milestone-0000020.pt",
        "step-0000030.pt",
        "step-0000040.pt",
        "milestone-0000050.pt",
    ]
    path, newest = checkpoint.latest(tmp_path)
    assert (path.name, newest["step"]) == ("milestone-0000050.pt", 50)


def test_what_is_written_after_damaged_checkpoints_of_later_steps_is_kept(tmp_path):
    """A run that continues from before them would else lose each checkpoint that it writes, and all its progress."""
    for name in ("step-0002000.pt", "step-0003000.pt", "step-best.pt", "step-last.pt"):
        (tmp_path / name).write_bytes(b"damaged")
    for step in (1500, 1600, 1700):
        assert checkpoint.save(tmp_path, state(step)).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-0001600.pt", "step-0001700.pt", "step-0002000.pt", "step-0003000.pt", "step-best.pt", "step-last.pt",
    ]  # fmt: skip


@pytest.mark.parametrize("kept_bytes", [0, 100, 1500])
def test_a_truncated_checkpoint_is_skipped_by_name(tmp_path, kept_bytes):
    checkpoint.save(tmp_path, state(10))
    newest = checkpoint.save(tmp_path, state(20))
    newest.write_bytes(newest.read_bytes()[:kept_bytes])
    with pytest.warns(UserWarning, match=r"step-0000020\.pt"):
        path, found = checkpoint.latest(tmp_path)
    assert (path.name, found["step"]) == ("step-0000010.pt", 10)


def test_a_full_disk_is_a_clear_error_and_leaves_the_last_good_checkpoint(tmp_path):
    good = checkpoint.save(tmp_path, state(10))
    before = good.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # a write beyond it fails, as on a full disk
    try:
        with pytest.raises(
            OSError, match=r"cannot write .*step-0000020\.pt.*last good checkpoint is .*step-0000010\.pt"
        ):
            checkpoint.save(tmp_path, state(20, values=100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == [good.name]  # no half-written file either
    assert good.read_bytes() == before


def test_foreign_files_are_refused_by_name(tmp_path):
    torch.save({"w": torch.zeros(1)}, tmp_path / "step-0000001.pt")
    with pytest.raises(ValueError, match=r"step-0000001\.pt is not a checkpoint of this trainer.*--model"):
        checkpoint.read(tmp_path / "step-0000001.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(ValueError, match=r"cannot read the checkpoint .*text\.pt"):
        checkpoint.read(tmp_path / "text.pt")


@pytest.mark.parametrize("form", ["bare", "train.py", "safetensors"])
def test_dit_state_dicts_load_in_every_published_form(tmp_path, form, monkeypatch):
    monkeypatch.setattr(
        trained, "StableDiffusion", lambda where, device: argparse.Namespace(name=where, downsample=8)
    )
    torch.manual_seed(0)
    weights = create_model("DiT-N/8", 64, num_classes=7).state_dict()
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pt")
    if form == "safetensors":
        save_file(weights, path)
    elif form == "bare":
        torch.save(weights, path)
    else:
        zeros = {key: torch.zeros_like(value) for key, value in weights.items()}
        torch.save({"model": zeros, "ema": weights, "opt": {}, "args": argparse.Namespace(lr=1e-4)}, path)
    named = WeightsConfig(model="DiT-N/8", resolution=64, num_classes=7)
    loaded = trained.load_trained(path, torch.device("cpu"), named)
    assert all(torch.equal(value, weights[key]) for key, value in loaded.model.state_dict().items())
    assert loaded.origin["autoencoder"] == "stabilityai/sd-vae-ft-ema"


def test_weights_of_another_model_are_refused_with_what_differs(tmp_path):
    torch.save(create_model("DiT-N/8", 64, num_classes=7).state_dict(), tmp_path / "weights.pt")
    load, cpu = trained.load_trained, torch.device("cpu")
    with pytest.raises(ValueError, match=r"embedding_table\.weight \(8, 64\) for \(11, 64\)"):
        load(tmp_path / "weights.pt", cpu, WeightsConfig(model="DiT-N/8", resolution=64, num_classes=10))
    with pytest.raises(ValueError, match=r"missing: blocks\.0\.mixer"):
        load(tmp_path / "weights.pt", cpu, WeightsConfig(model="DiM-N/8", resolution=64, num_classes=7))


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(ValueError, match="no such checkpoint: /nowhere"):
        trained.load_trained(tmp_path.__class__("/nowhere"), torch.device("cpu"))
    with pytest.raises(ValueError, match="no checkpoint in"):
        trained.load_trained(tmp_path, torch.device("cpu"))


# Damage


def flip(path, place, bit=3):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def run_of(where, steps=(10, 20)):
    """A run directory with whole checkpoints of a tiny model."""
    torch.manual_seed(0)
    model = create_model("DiT-P/4", 8, channels=1, downsample=1, num_classes=10)
    config = {"spec": dataclasses.asdict(model.spec), "resolution": 8, "vae": "identity", "dataset": "digits"}
    config["classes"] = [str(digit) for digit in range(10)]
    for step in steps:
        weights = {name: value + step for name, value in model.state_dict().items()}
        whole = {"step": step, "config": config, "model": weights, "ema": weights, "optimizer": {}}
        newest = checkpoint.save(where / "checkpoints", whole)
    return newest


def test_a_flipped_bit_anywhere_in_a_checkpoint_is_found(tmp_path):
    newest = run_of(tmp_path)
    whole = newest.read_bytes()
    places = [*range(0, len(whole) - integrity.TRAILER, len(whole) // 200), *range(len(whole) - 65, len(whole) - 1)]
    for place in places:
        flip(newest, place)
        with pytest.raises(ValueError, match=r"step-0000020\.pt is damaged"):
            checkpoint.read(newest)
        newest.write_bytes(whole)
    flip(newest, len(whole) - integrity.TRAILER + 5)  # the words before the digest: the archive's checksums speak
    assert torch.equal(checkpoint.read(newest)["ema"]["x_embedder.proj.bias"], torch.full((32,), 20.0))


def test_training_takes_the_newest_sound_checkpoint_and_sampling_refuses_a_damaged_one(tmp_path):
    newest = run_of(tmp_path)
    flip(newest, newest.stat().st_size // 2)
    with pytest.warns(UserWarning, match=r"skipped: .*step-0000020\.pt is damaged: its content"):
        path, _ = checkpoint.latest(tmp_path / "checkpoints", checkpoint.FOR_TRAINING)
    assert path.name == "step-0000010.pt"
    with pytest.raises(ValueError, match=r"step-0000020\.pt is damaged"):
        trained.load_trained(tmp_path, torch.device("cpu"))
    assert trained.load_trained(path, torch.device("cpu")).origin["step"] == 10


@pytest.mark.parametrize("kind", ["older than digests", "official"])
def test_files_without_a_digest_are_verified_by_the_checksums_of_their_archive(tmp_path, kind):
    torch.manual_seed(0)
    weights = create_model("DiT-P/8", 64, num_classes=7).state_dict()
    path = tmp_path / "weights.pt"
    torch.save({"format": 1, "step": 1, "config": {}, "model": weights} if kind != "official" else weights, path)
    assert integrity.verified(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert torch.equal(checkpoint.load(path).get("model", weights)["pos_embed"], weights["pos_embed"])
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    flip(path, largest.header_offset + largest.file_size // 2)
    loaded = torch.load(path, weights_only=True)
    loaded = loaded.get("model", loaded)
    assert not all(torch.equal(value, weights[name]) for name, value in loaded.items()), "torch takes it as it is"
    with pytest.raises(ValueError, match=r"weights\.pt is damaged"):
        integrity.verified(path)
    named = WeightsConfig(model="DiT-P/8", resolution=64, num_classes=7)
    with pytest.raises(ValueError, match=r"weights\.pt is damaged"):
        trained.load_trained(path, torch.device("cpu"), named)


def test_an_archive_that_unpacks_to_more_than_it_holds_is_refused(tmp_path):
    torch.save({"w": torch.zeros(1000)}, tmp_path / "stored.pt")
    with zipfile.ZipFile(tmp_path / "stored.pt") as stored, zipfile.ZipFile(tmp_path / "packed.pt", "w") as packed:
        for member in stored.infolist():
            packed.writestr(member.filename, stored.read(member), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"packed\.pt is damaged"):
        integrity.verified(tmp_path / "packed.pt")


def damaged(where, kind):
    """Make the newest checkpoint of a run something else."""
    newest = run_of(where)
    state = torch.load(newest, weights_only=True)
    if kind == "text":
        newest.write_text("this is no checkpoint\n")
    elif kind == "another format":
        torch.save({**state, "format": 101}, newest)
    elif kind in ("config", "optimizer", "step", "ema"):
        torch.save({name: value for name, value in state.items() if name != kind}, newest)
    elif kind == "a foreign field":
        torch.save({**state, "config": {**state["config"], "spec": {**state["config"]["spec"], "colour": 3}}}, newest)
    elif kind == "a list":
        torch.save([1, 2], newest)
    elif kind == "code":
        torch.save({**state, "hook": os.getcwd}, newest)
    return newest


KINDS = ["text", "another format", "config", "optimizer", "step", "ema", "a foreign field", "a list", "code"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_whole_checkpoint_is_skipped_where_there_is_an_older_one_and_else_one_line(tmp_path, kind):
    newest = damaged(tmp_path, kind)
    with pytest.warns(UserWarning, match=r"skipped: .*step-0000020\.pt"):
        path, _ = checkpoint.latest(tmp_path / "checkpoints", checkpoint.FOR_TRAINING)
    assert path.name == "step-0000010.pt"
    path.unlink()
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(ValueError, match="is sound") as refused:
        checkpoint.latest(tmp_path / "checkpoints", checkpoint.FOR_TRAINING)
    if kind != "optimizer":  # which samples do not need
        with pytest.raises(ValueError, match=r"step-0000020\.pt") as of_sampling:
            trained.load_trained(newest, torch.device("cpu"))
        assert "weights_only" not in str(of_sampling.value)
        assert "\n" not in str(of_sampling.value)
    assert "weights_only" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff" * 200, b"\x08\0\0\0\0\0\0\0{}      " * 3])
def test_garbage_by_the_name_of_safetensors_is_one_line(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read the checkpoint .*weights\.safetensors") as refused:
        trained.load_trained(path, torch.device("cpu"), WeightsConfig(model="DiT-P/8", resolution=64, num_classes=7))
    assert "\n" not in str(refused.value)
