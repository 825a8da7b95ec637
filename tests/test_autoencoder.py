"""The autoencoder's contract, on diffusers' real class with small random weights."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from videos import write_tree

from harness.data.autoencoder import SCALE, Identity, StableDiffusion, sample_latents


def tiny_vae(where, seed=0):
    diffusers = pytest.importorskip("diffusers", reason="the autoencoder needs the extra 'vae' (diffusers)")
    torch.manual_seed(seed)
    model = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=4,
    )
    model.save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def vae_directory(tmp_path_factory):
    return tiny_vae(tmp_path_factory.mktemp("weights") / "tiny-vae")


def test_encode_and_decode_are_diffusers_own_times_the_scale(vae_directory):
    from diffusers import AutoencoderKL

    reference, ours = AutoencoderKL.from_pretrained(vae_directory).eval(), StableDiffusion(str(vae_directory))
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        posterior = reference.encode(images).latent_dist
        moments = ours.moments(images)
        assert moments.shape == (2, 8, 8, 8)
        noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
        latents = ours.sample(moments, noise)
        assert torch.allclose(latents, 0.18215 * (posterior.mean + posterior.std * noise), atol=1e-6)
        assert torch.allclose(ours.decode(latents), reference.decode(latents / 0.18215).sample, atol=1e-6)
    assert re.fullmatch("tiny-vae#[0-9a-f]{8}", ours.name)
    assert ours.downsample == 2
    assert not any(parameter.requires_grad for parameter in ours.model.parameters())


def test_missing_weights_say_which_file_where_from_and_which_flag(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no diffusion_pytorch_model\.safetensors in .*hf\.co/stabilityai.*--vae"):
        StableDiffusion(str(tmp_path))
    with pytest.raises(ValueError, match=r"no autoencoder at '/nowhere/vae'.*hf\.co/stabilityai.*--vae"):
        StableDiffusion("/nowhere/vae")


def test_latents_have_the_posterior_s_moments():
    moments = torch.cat([torch.full((1, 4, 64, 64), 2.0), torch.full((1, 4, 64, 64), 2 * torch.tensor(3.0).log())], 1)
    latents = sample_latents(moments, torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert latents.mean().item() == pytest.approx(2 * SCALE, rel=0.05)
    assert latents.std().item() == pytest.approx(3 * SCALE, rel=0.02)


def test_pixel_space_is_the_identity():
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(Identity().decode(Identity().sample(Identity().moments(images), images)), images)


def test_an_image_tree_trains_and_samples_through_the_real_class_from_tree_and_from_cache(vae_directory, tmp_path):
    """The whole latent pipeline: encode the tree, train on the tree and on the cache, sample, decode."""
    from harness import sample, train
    from harness.data import __main__ as data
    from harness.diffusion import checkpoint

    random = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for i in range(3):
            pixels = random.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "tree" / name / f"{i}.png")
    tree, cache, vae = str(tmp_path / "tree"), str(tmp_path / "cache"), str(vae_directory)
    place = ["--resolution", "16", "--device", "cpu"]
    assert data.main(["encode", "--data", tree, "--out", cache, "--vae", vae, *place]) == 0
    common = ["--preset", "imagenet256", "--model", "DiT-N/2", "--num-classes", "2", "--steps", "3", "--batch", "8"]
    assert train.main([*common, *place, "--data", tree, "--vae", vae, "--out", str(tmp_path / "a")]) == 0
    assert train.main([*common, *place, "--data", cache, "--vae", vae, "--out", str(tmp_path / "b")]) == 0
    on_tree, on_cache = ((tmp_path / run / "losses.jsonl").read_text().splitlines() for run in "ab")
    for left, right in zip(on_tree, on_cache, strict=True):
        assert json.loads(left)["loss"] == pytest.approx(json.loads(right)["loss"], rel=1e-4)
    spec = checkpoint.latest(tmp_path / "a" / "checkpoints")[1]["config"]["spec"]
    assert (spec["channels"], spec["downsample"]) == (4, 2)

    out = tmp_path / "samples"
    flags = ["--num-samples", "2", "--steps", "3", "--device", "cpu", "--out", str(out)]
    assert sample.main(["--ckpt", str(tmp_path / "b"), *flags]) == 0
    assert Image.open(out / "000001.png").size == (16, 16)
    assert json.loads((out / "settings.json").read_text())["autoencoder"].startswith("tiny-vae#")


def test_a_clip_is_encoded_and_decoded_as_so_many_images(vae_directory):
    ours = StableDiffusion(str(vae_directory))
    clips = torch.rand(2, 3, 3, 16, 16) * 2 - 1
    moments = ours.moments(clips)
    latents = ours.sample(moments, torch.randn(2, 3, 4, 8, 8))
    assert moments.shape == (2, 3, 8, 8, 8)
    for clip, of_clip, latent, decoded in zip(clips, moments, latents, ours.decode(latents), strict=True):
        assert torch.allclose(ours.moments(clip), of_clip, atol=1e-5)
        assert torch.allclose(ours.decode(latent), decoded, atol=1e-5)


def test_videos_train_and_sample_through_the_real_class(vae_directory, tmp_path):
    from harness import sample, train
    from harness.diffusion import checkpoint

    tree = write_tree(tmp_path / "ucf")
    place = ["--device", "cpu", "--vae", str(vae_directory), "--resolution", "16", "--data", str(tree)]
    size = ["--model", "DiM-N/4-video", "--num-classes", "3", "--frames", "4", "--stride", "3", "--joint-images", "2"]
    flags = ["--preset", "ucf101", "--steps", "1", "--batch", "2", "--out", str(tmp_path / "run")]
    assert train.main([*flags, *size, *place]) == 0
    spec = checkpoint.latest(tmp_path / "run" / "checkpoints")[1]["config"]["spec"]
    assert (spec["channels"], spec["downsample"], spec["frames"]) == (4, 2, 4)
    out = tmp_path / "samples"
    flags = [
        "--ckpt",
        str(tmp_path / "run"),
        "--num-samples",
        "1",
        "--steps",
        "2",
        "--device",
        "cpu",
        "--out",
        str(out),
    ]
    assert sample.main(["--ckpt", str(tmp_path / "run"), *flags]) == 0
    assert Image.open(out / "000000" / "0003.png").size == (16, 16)
    settings = json.loads((out / "settings.json").read_text())
    assert settings["cfg_channels"] == 4
    assert settings["autoencoder"].startswith("tiny-vae#")


def test_two_autoencoders_of_one_folder_name_are_two(tmp_path):
    """What is decoded by one must not stand for what the other decodes."""
    names = {StableDiffusion(str(tiny_vae(tmp_path / str(seed) / "vae", seed))).name for seed in (0, 1)}
    assert len(names) == 2
    assert {name.partition("#")[0] for name in names} == {"vae"}


def test_a_name_with_a_digest_is_held_to_it(vae_directory, monkeypatch):
    monkeypatch.chdir(vae_directory.parent)
    digest = StableDiffusion(vae_directory.name).name.partition("#")[2]
    assert StableDiffusion(f"{vae_directory.name}#{digest}").name.endswith(digest)
    with pytest.raises(ValueError, match=f"has weights of sha256 {digest}, not 00000000"):
        StableDiffusion(f"{vae_directory.name}#00000000")


def test_weights_that_lack_tensors_or_do_not_fit_their_configuration_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    where = tiny_vae(tmp_path / "vae")
    weights = where / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({name: value for name, value in tensors.items() if not name.startswith("decoder.")}, weights)
    with pytest.raises(ValueError, match=r"vae' lacks \d+ tensors, decoder\.\S+ among them"):
        StableDiffusion(str(where))
    save_file(tensors, weights)
    config = json.loads((where / "config.json").read_text())
    (where / "config.json").write_text(json.dumps({**config, "latent_channels": 8}))
    with pytest.raises(ValueError, match=r"do not fit its config\.json"):
        StableDiffusion(str(where))


def test_latents_are_decoded_by_the_autoencoder_that_made_them_or_by_one_that_is_named(vae_directory, tmp_path, capsys):
    """A cache says which it was; a preset that names another would decode something else."""
    from harness import sample, train
    from harness.data import __main__ as data

    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    (tmp_path / "tree" / "ant").mkdir(parents=True)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "tree" / "ant" / f"{number}.png")
    other, cache, run = tiny_vae(tmp_path / "other", seed=1), str(tmp_path / "cache"), str(tmp_path / "run")
    place = ["--resolution", "16", "--device", "cpu"]
    encode = ["encode", "--data", str(tmp_path / "tree"), "--vae", str(vae_directory), "--out", cache]
    assert data.main([*encode, *place]) == 0
    short = ["--preset", "imagenet256", "--model", "DiT-N/2", "--num-classes", "1", "--steps", "1", "--batch", "2"]
    assert train.main([*short, *place, "--data", cache, "--vae", str(other), "--out", run]) == 0
    draw = ["--ckpt", run, "--num-samples", "1", "--steps", "1", "--device", "cpu", "--out", str(tmp_path / "samples")]
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        sample.main(draw)
    complaint = capsys.readouterr().err
    assert re.search(r"learnt latents of tiny-vae#\S+, and other#\S+ has other weights: give --vae", complaint)
    assert sample.main([*draw, "--vae", str(vae_directory)]) == 0


def test_a_run_continues_where_its_autoencoder_and_its_tree_have_moved(vae_directory, tmp_path, capsys):
    from harness import train

    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    (tmp_path / "tree" / "ant").mkdir(parents=True)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "tree" / "ant" / f"{number}.png")
    moved = tiny_vae(tmp_path / "moved")

    def learn(steps, data, vae):
        flags = ["--model", "DiT-N/2", "--num-classes", "1", "--batch", "2", "--resolution", "16", "--device", "cpu"]
        flags += ["--steps", str(steps), "--data", str(tmp_path / data), "--vae", str(vae)]
        return train.main(["--preset", "imagenet256", *flags, "--out", str(tmp_path / "run")])

    assert learn(1, "tree", vae_directory) == 0
    (tmp_path / "tree").rename(tmp_path / "photographs")
    assert learn(2, "photographs", moved) == 0
    other = tiny_vae(tmp_path / "other", seed=1)
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        learn(3, "photographs", other)
    assert "of another run: autoencoder was" in capsys.readouterr().err
