"""The sampler: a sample is a function of (seed, index) and weights, drawn once, written whole, and described."""

import dataclasses
import functools
import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness import sample
from harness.core.distributed import Ranks
from harness.core.locks import locked
from harness.data.autoencoder import Identity
from harness.diffusion import checkpoint, generate, trained
from harness.diffusion.album import Album
from harness.diffusion.generate import quantise
from harness.diffusion.sample_config import SampleConfig
from harness.diffusion.trained import Trained, load_trained
from models import create_model

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).resolve().parents[1]
CPU = Ranks(0, 1, torch.device("cpu"))


def random_model(name):
    """A denoiser of digits whose every layer matters: fresh ones are zero at the gates and at the head."""
    torch.manual_seed(0)
    model = create_model(name, 8, channels=1, downsample=1, num_classes=10)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def save(where, name):
    model = random_model(name)
    raw = {key: value * 1.1 for key, value in model.state_dict().items()}
    config = {"spec": dataclasses.asdict(model.spec), "resolution": 8, "vae": "identity", "dataset": "digits"}
    config["classes"] = [str(digit) for digit in range(10)]
    checkpoint.save(where / "checkpoints", {"step": 3, "config": config, "model": raw, "ema": model.state_dict()})
    return where


@pytest.fixture(scope="module", params=["DiT-N/2", "DiM-N/2"])
def trained_run(request, tmp_path_factory):
    return save(tmp_path_factory.mktemp("run"), request.param)


@pytest.fixture(scope="module")
def dit_run(tmp_path_factory):
    return save(tmp_path_factory.mktemp("run"), "DiT-N/4")


def draw(run, out, *flags):
    return sample.main(["--ckpt", str(run), "--out", str(out), "--steps", "8", "--device", "cpu", *map(str, flags)])


def images(out, count, resolution=8):
    return np.stack([image for image, _ in Album(out, resolution).first(count)])


def test_batch_size_does_not_change_a_single_byte(trained_run, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "CPU_SLOTS", 16)
    for batch in (1, 7, 16):
        draw(trained_run, tmp_path / str(batch), "--num-samples", 20, "--batch", batch)
    reference = images(tmp_path / "16", 20)
    assert len(np.unique(reference.reshape(20, -1), axis=0)) == 20
    assert np.array_equal(images(tmp_path / "1", 20), reference)
    assert np.array_equal(images(tmp_path / "7", 20), reference)


def test_latents_too_are_equal_to_the_last_bit_in_any_batch_subset_and_thread_count(trained_run, monkeypatch):
    trained = load_trained(trained_run, torch.device("cpu"))
    monkeypatch.setattr(generate, "quantise", lambda decoded: decoded.numpy().copy())
    config = SampleConfig(steps=5)

    def latents(indices, batch):
        drawn = list(generate.generate(trained, config, indices, batch, CPU))
        return dict(zip([i for s in drawn for i in s.indices], np.concatenate([s.images for s in drawn]), strict=True))

    torch.set_num_threads(2)
    whole = latents(range(80), 16)
    torch.set_num_threads(1)
    for part in (latents([70, 3, 17], 16), latents(range(57, 68), 4)):
        for index, value in part.items():
            assert np.array_equal(value, whole[index]), index


@pytest.mark.slow
def test_two_gloo_processes_draw_the_same_bytes_as_one(trained_run, tmp_path):
    draw(trained_run, tmp_path / "one", "--num-samples", 100)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    flags = ["--ckpt", str(trained_run), "--out", str(tmp_path / "two"), "--steps", "8", "--num-samples", "100"]
    command = [*launcher, "harness.sample", *flags, "--device", "cpu", "--npz"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    assert np.array_equal(images(tmp_path / "two", 100), images(tmp_path / "one", 100))
    with np.load(tmp_path / "two" / "samples.npz") as archive:
        assert np.array_equal(archive["arr_0"], images(tmp_path / "one", 100))


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_a_compiled_network_draws_every_step_with_and_without_guidance(trained_run, tmp_path, monkeypatch, scale):
    calls = []

    def backend(graph, inputs):
        return lambda *values: (calls.append(1), graph(*values))[1]

    monkeypatch.setattr(
        torch.nn.Module, "compile", functools.partialmethod(torch.nn.Module.compile, backend=backend, fullgraph=True)
    )
    draw(trained_run, tmp_path / "eager", "--num-samples", 4, "--cfg-scale", scale)
    assert not calls
    draw(trained_run, tmp_path / "compiled", "--num-samples", 4, "--cfg-scale", scale, "--compile")
    assert len(calls) == 8, "one graph, called once a step"
    compiled, eager = (images(tmp_path / name, 4).astype(int) for name in ("compiled", "eager"))
    assert abs(compiled - eager).max() <= 1
    assert json.loads((tmp_path / "compiled" / "settings.json").read_text())["provenance"]["compiled"] is True


def test_the_same_command_draws_only_what_is_missing_or_damaged(dit_run, tmp_path, monkeypatch):
    draw(dit_run, tmp_path, "--num-samples", 20)
    before = images(tmp_path, 20)
    kept = (tmp_path / "000003.png").stat().st_mtime_ns
    (tmp_path / "000005.png").unlink()
    (tmp_path / "000018.png").write_bytes((tmp_path / "000018.png").read_bytes()[:70])
    Image.new("RGB", (8, 8)).save(tmp_path / "000019.png")  # no sample: it lacks its class
    damaged = bytearray((tmp_path / "000007.png").read_bytes())
    damaged[11] ^= 8  # the length of the first chunk
    (tmp_path / "000007.png").write_bytes(damaged)
    drawn = []
    real = Album.write
    monkeypatch.setattr(Album, "write", lambda out, samples: (drawn.extend(samples.indices), real(out, samples)))
    draw(dit_run, tmp_path, "--num-samples", 22)
    assert drawn == [5, 7, 18, 19, 20, 21]
    assert np.array_equal(images(tmp_path, 20), before)
    assert (tmp_path / "000003.png").stat().st_mtime_ns == kept


def test_a_folder_of_other_samples_is_never_touched(dit_run, tmp_path, capsys):
    draw(dit_run, tmp_path, "--num-samples", 2)
    with pytest.raises(SystemExit) as exit_:
        draw(dit_run, tmp_path, "--num-samples", 4, "--seed", 1)
    assert exit_.value.code == 2
    assert "seed is 0, requested 1; choose another --out" in capsys.readouterr().err
    assert not (tmp_path / "000003.png").exists()


def test_settings_say_what_the_samples_are(dit_run, tmp_path):
    draw(dit_run, tmp_path, "--num-samples", 1, "--weights", "raw", "--sampler", "ddim", "--precision", "bf16")
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["weights"] == "raw"
    assert settings["sampler"] == "ddim"
    assert settings["precision"] == "bf16"
    assert settings["autoencoder"] == "identity"
    assert settings["model"] == "DiT-N/4"
    assert settings["step"] == 3


def test_ema_and_raw_weights_draw_different_samples(dit_run, tmp_path):
    draw(dit_run, tmp_path / "ema", "--num-samples", 4)
    draw(dit_run, tmp_path / "raw", "--num-samples", 4, "--weights", "raw")
    assert not np.array_equal(images(tmp_path / "ema", 4), images(tmp_path / "raw", 4))


@pytest.mark.parametrize(("scale", "rows"), [(1.0, 64), (1.5, 128)])
def test_guidance_costs_one_batched_forward_a_step_and_none_at_scale_1(dit_run, scale, rows):
    trained = load_trained(dit_run, torch.device("cpu"))
    seen = []
    trained.model.x_embedder.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    list(generate.generate(trained, SampleConfig(steps=5, cfg_scale=scale), range(16), 16, CPU))
    assert seen == [rows] * 5


def test_guidance_extrapolates_from_the_null_class():
    """By hand on the guided output: null + scale (conditional - null) on the noise; the variance is conditional."""
    model = random_model("DiT-N/4").eval()
    trained = Trained(model, Identity(), [], {}, {}, 5)
    x, t, y = torch.randn(3, 1, 8, 8), torch.tensor([999, 500, 3]), torch.tensor([1, 2, 3])
    with torch.no_grad():
        guided = generate.denoiser(trained, SampleConfig(cfg_scale=4.0), y, torch.device("cpu"))(x, t)
        conditional, null = model(x, t, y), model(x, t, torch.full_like(y, 10))
    assert torch.allclose(guided[:, :1], null[:, :1] + 4 * (conditional[:, :1] - null[:, :1]), atol=1e-5)
    assert torch.allclose(guided[:, 1:], conditional[:, 1:], atol=1e-5)


def test_classes_are_uniform_balanced_or_listed(dit_run):
    trained = load_trained(dit_run, torch.device("cpu"))

    def labels(classes, count=20):
        config = SampleConfig(steps=1, classes=classes)
        return [int(y) for s in generate.generate(trained, config, range(count), 16, CPU) for y in s.labels]

    assert labels("balanced") == [*range(10), *range(10)]
    assert labels((3, 1, 4)) == [3, 1, 4] * 6 + [3, 1]
    uniform = labels("uniform", 400)
    assert np.bincount(uniform, minlength=10).min() > 20
    assert uniform[:20] == labels("uniform")


def test_the_noise_of_a_sample_does_not_depend_on_how_classes_are_chosen(dit_run, monkeypatch):
    trained = load_trained(dit_run, torch.device("cpu"))
    first = next(generate.generate(trained, SampleConfig(steps=4), range(16), 16, CPU))
    listed = SampleConfig(steps=4, classes=tuple(first.labels.tolist()))
    again = next(generate.generate(trained, listed, range(16), 16, CPU))
    assert np.array_equal(first.images, again.images)


def test_quantiser_rounds_halves_up_and_clamps():
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, 3 / 255 - 1, -1 + 0.99 / 127.5]).view(1, 1, 1, -1)
    assert quantise(values)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255, 2, 1]
    every_level = torch.arange(256).view(1, 1, 1, -1) / 127.5 - 1
    assert quantise(every_level)[0, 0, :, 2].tolist() == list(range(256)), "8-bit images survive the round trip"


def test_npz_is_adms(dit_run, tmp_path):
    draw(dit_run, tmp_path, "--num-samples", 5, "--npz", "--classes", "balanced", "--cfg-scale", 1, "--cfg-channels", 4)
    with np.load(tmp_path / "samples.npz") as archive:
        assert (archive["arr_0"].dtype, archive["arr_0"].shape) == (np.uint8, (5, 8, 8, 3))
        assert (archive["arr_1"].dtype, archive["arr_1"].tolist()) == (np.int64, [0, 1, 2, 3, 4])
        assert np.array_equal(archive["arr_0"], images(tmp_path, 5))
    assert np.load(io.BytesIO((tmp_path / "samples.npz").read_bytes()))["arr_0"].shape == (5, 8, 8, 3)


def test_grid_shows_the_samples_in_order_of_class(dit_run, tmp_path):
    draw(dit_run, tmp_path, "--num-samples", 12, "--classes", 7, 2)
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    first_of_class_2 = images(tmp_path, 2)[1]
    assert np.array_equal(grid[18 : 18 + 48, 4:52], first_of_class_2.repeat(6, 0).repeat(6, 1))
    assert grid.shape == (2 * (48 + 4 + 14) + 4, 10 * (48 + 4) + 4, 3)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--num-samples", "0"], "1 to 1,000,000 samples, not 0"),
        (["--steps", "1001"], "steps must lie in 1..1000"),
        (["--classes", "cat"], "unknown classes 'cat'"),
        (["--classes", "3", "10"], "no class 10: the model has 0..9"),
        (["--cfg-scale", "-1"], "must be at least 0"),
        (["--model", "DiT-N/4", "--resolution", "32"], "leave out --model"),
        (["--vae", "/nowhere/vae"], "draws pixels and needs no autoencoder: leave out --vae /nowhere/vae"),
        (["--ckpt", "/nowhere/model.pt"], "no such checkpoint"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(dit_run, tmp_path, capsys, flags, complaint):
    with pytest.raises(SystemExit) as exit_:
        draw(dit_run, tmp_path / "out", *flags)
    assert exit_.value.code == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_bare_state_dict_samples_once_it_is_named(tmp_path, monkeypatch):
    class Vae:
        name, downsample = "vae", 8

        def decode(self, latents):
            return torch.nn.functional.interpolate(latents[:, :3], scale_factor=8)

    monkeypatch.setattr(trained, "StableDiffusion", lambda where, device: Vae())
    torch.save(create_model("DiM-N/2", 16, num_classes=5).state_dict(), tmp_path / "weights.pt")
    flags = ["--model", "DiM-N/2", "--resolution", 16, "--num-classes", 5, "--num-samples", 1]
    assert draw(tmp_path / "weights.pt", tmp_path / "out", *flags) == 0
    assert images(tmp_path / "out", 1, 16).shape == (1, 16, 16, 3)
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["autoencoder"] == "vae"


def test_a_bare_state_dict_of_pixels_samples_once_its_autoencoder_is_none(tmp_path):
    model = create_model("DiT-N/4", 8, num_classes=5, channels=1, downsample=1)
    torch.save({"ema": model.state_dict()}, tmp_path / "weights.pt")
    flags = ["--model", "DiT-N/4", "--resolution", 8, "--num-classes", 5, "--num-samples", 1, "--vae", "identity"]
    assert draw(tmp_path / "weights.pt", tmp_path / "out", *flags) == 0
    assert images(tmp_path / "out", 1, 8).shape == (1, 8, 8, 3)


# What is not finite


def with_weights(run, where, change):
    """A copy of a run whose weights are changed."""
    path = checkpoint.find(run / "checkpoints")[-1]
    state = checkpoint.read(path)
    state["ema"] = {name: change(name, value) for name, value in state["ema"].items()}
    checkpoint.save(where / "checkpoints", {name: value for name, value in state.items() if name != "format"})
    return where


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        draw(*arguments)
    assert exit_.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    return lines[0]


def test_weights_that_are_not_finite_draw_nothing(dit_run, tmp_path, capsys):
    def poison(name, value):
        return value.index_fill(0, torch.tensor([0]), float("nan")) if name == "final_layer.linear.bias" else value

    run = with_weights(dit_run, tmp_path / "run", poison)
    message = refused(capsys, run, tmp_path / "out", "--num-samples", 3)
    assert "sample 0 is not finite after step 1 of 8; 1 tensors of the weights are not finite either" in message
    assert not list((tmp_path / "out").glob("*.png"))


def test_guidance_that_overflows_is_named_with_step_and_sample(dit_run, tmp_path, capsys):
    message = refused(capsys, dit_run, tmp_path / "out", "--num-samples", 3, "--cfg-scale", "1e30")
    assert re.search(r"sample 0 is not finite after step \d of 8; guidance is 1e\+30", message)
    assert draw(dit_run, tmp_path / "out", "--num-samples", 3) == 0, "a folder without samples is of nobody"


def test_only_the_bad_sample_is_to_blame(dit_run, monkeypatch):
    trained = load_trained(dit_run, torch.device("cpu"))
    decode = trained.autoencoder.decode

    def broken(latents):
        images = decode(latents).clone()
        images[5] = float("inf")
        return images

    monkeypatch.setattr(trained.autoencoder, "decode", broken)
    with pytest.raises(ValueError, match=r"sample 5 is not finite once it is decoded; guidance is 1\.5"):
        list(generate.generate(trained, SampleConfig(steps=2), range(8), 8, CPU))
    assert len(list(generate.generate(trained, SampleConfig(steps=2), range(4), 8, CPU))) == 1


# What cannot be, and what goes wrong on the way


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--num-samples", 10**9], "a folder holds 1 to 1,000,000 samples, not 1,000,000,000"),
        (["--num-samples", "1e9"], "must be a whole number, not '1e9'"),
        (["--cfg-scale", "nan"], "must be a finite number"),
        (["--cfg-scale", "inf"], "must be a finite number"),
        (["--device", "meta"], "unknown device 'meta'"),
        (["--device", "mps"], "unknown device 'mps'"),
        (["--seed", 2**70], "must be at most"),
        (["--resolution", 32], "--resolution is of a bare state dict"),
        (["--num-classes", 5], "--num-classes is of a bare state dict"),
        (["--model", "DiT-N/4", "--weights", "raw"], "--weights raw is of a checkpoint of harness.train"),
        (["--model", "DiT-Q/4"], "unknown model 'DiT-Q/4'"),
        (["--model", "DiT-N/2"], "is a checkpoint of this trainer, which states its model: leave out --model"),
        (["--vae", "some/hub-name"], "draws pixels and needs no autoencoder: leave out --vae some/hub-name"),
        (["--out", "a\0b"], "must be a path"),
    ],
)
def test_what_cannot_be_is_one_line_that_names_the_offender(dit_run, tmp_path, capsys, flags, complaint):
    assert complaint in refused(capsys, dit_run, tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_a_batch_that_does_not_fit_is_refused_with_its_size(dit_run, monkeypatch):
    trained = load_trained(dit_run, torch.device("cpu"))
    monkeypatch.setattr(generate, "slots_of", lambda *_: 10**13)
    with pytest.raises(ValueError, match=r"a batch of 10,000,000,000,000 samples and their noise takes [\d,]+ GiB"):
        next(generate.generate(trained, SampleConfig(steps=2), range(4), 8, CPU))


def test_a_destination_is_checked_before_anything_is_loaded(dit_run, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    assert "cannot write into" in refused(capsys, "/nowhere", tmp_path / "file")
    assert "cannot write into" in refused(capsys, "/nowhere", tmp_path / "file" / "samples")


@pytest.mark.parametrize("content", [b"[]", b"null", b"\xff\xfe", b'{"seed": 0', b""])
def test_damaged_settings_are_named(dit_run, tmp_path, capsys, content):
    draw(dit_run, tmp_path, "--num-samples", 1)
    (tmp_path / "settings.json").write_bytes(content)
    assert f"{tmp_path}/settings.json is damaged" in refused(capsys, dit_run, tmp_path, "--num-samples", 2)
    assert not (tmp_path / "000001.png").exists()


def test_a_second_process_in_a_folder_of_samples_is_told_who_holds_it(dit_run, tmp_path, capsys):
    with locked(tmp_path):
        assert draw(dit_run, tmp_path, "--num-samples", 1) == 1
    assert f"{tmp_path} is in use by process" in capsys.readouterr().err
    assert not (tmp_path / "settings.json").exists()


def test_an_interrupt_is_one_line_and_the_same_command_draws_the_rest(dit_run, tmp_path, capsys, monkeypatch):
    draw(dit_run, tmp_path / "whole", "--num-samples", 70)
    real = Album.write

    def write_and_be_interrupted(album, samples):
        real(album, samples)
        monkeypatch.setattr(Album, "write", real)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Album, "write", write_and_be_interrupted)
    capsys.readouterr()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        assert draw(dit_run, tmp_path / "parts", "--num-samples", 70) == 75
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err.splitlines()[-1] == "stopped; the same command draws the rest"
    assert 0 < len(list((tmp_path / "parts").glob("0*.png"))) < 70
    assert draw(dit_run, tmp_path / "parts", "--num-samples", 70) == 0
    assert np.array_equal(images(tmp_path / "parts", 70), images(tmp_path / "whole", 70))
