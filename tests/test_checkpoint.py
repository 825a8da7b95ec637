"""Checkpoints under damage: torn files, a full disk, foreign weights."""

import argparse
import resource

import pytest
import torch
from safetensors.torch import save_file

from harness.diffusion import checkpoint, trained
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
