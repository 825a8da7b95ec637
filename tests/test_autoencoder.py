"""The autoencoder's contract, on diffusers' real class with small random weights."""

import pytest
import torch

from harness.autoencoder import SCALE, Identity, StableDiffusion, sample_latents


@pytest.fixture(scope="module")
def vae_directory(tmp_path_factory):
    diffusers = pytest.importorskip("diffusers", reason="the autoencoder needs the extra 'latent' (diffusers)")
    torch.manual_seed(0)
    model = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=4,
    )
    where = tmp_path_factory.mktemp("weights") / "tiny-vae"
    model.save_pretrained(where)
    return where


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
    assert (ours.name, ours.downsample) == ("tiny-vae", 2)
    assert not any(parameter.requires_grad for parameter in ours.model.parameters())


def test_missing_weights_say_which_file_where_from_and_which_flag(vae_directory, tmp_path):
    (tmp_path / "config.json").write_text((vae_directory / "config.json").read_text())
    with pytest.raises(ValueError, match=r"--vae .*diffusion_pytorch_model\.safetensors.*hf\.co/stabilityai"):
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
