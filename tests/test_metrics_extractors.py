"""The feature extractors and their weight files, on randomly initialised networks where the real files are absent."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from networks import random_i3d, random_inception
from safetensors.torch import load_file
from torch import nn

from harness.core.distributed import Ranks
from harness.data.digits import Digits
from harness.metrics.distances import DISTANCES
from harness.metrics.features import SPACES, classifier, digits_network, train, weights
from harness.metrics.features.extractor import exact_arithmetic, open_extractor
from harness.metrics.features.i3d import I3D, i3d
from harness.metrics.features.weights import PACKAGED, WeightFile, Weights, load_weights, weights_directory
from harness.metrics.settings import Extraction

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),  # the published file is TorchScript
]

INSTALL = "pip install torch-fidelity"
INCEPTION = SPACES["inception"].weights


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    pytest.importorskip("torch_fidelity", reason=INSTALL)
    return random_inception(tmp_path_factory.mktemp("weights") / "inception.pth")


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), dtype=np.uint8))


# Inception


def test_one_pass_gives_torch_fidelitys_features_and_the_spatial_layer_channel_fastest(inception_file, images):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    from harness.metrics.features.inception_network import inception

    found = inception(load_weights(INCEPTION, path=inception_file)).extract(images)
    theirs = FeatureExtractorInceptionV3(
        "x", ["2048", "logits_unbiased"], feature_extractor_weights_path=inception_file
    )
    seen = {}
    theirs.Mixed_6d.register_forward_hook(lambda module, inputs, output: seen.update(Mixed_6d=output))
    with torch.no_grad():
        pool, logits = theirs(images.permute(0, 3, 1, 2))
    for ours, reference in ((found["pool"], pool), (found["logits"], logits)):
        assert torch.linalg.norm(ours - reference) < 1e-6 * torch.linalg.norm(reference)
    spatial, layer = found["spatial"], seen["Mixed_6d"]  # whose first channels are those of its first branch
    assert spatial.shape == (2, 17 * 17 * 7)
    for row, column, channel in ((0, 0, 0), (3, 5, 6), (9, 2, 3), (16, 16, 2)):
        flat = (row * 17 + column) * 7 + channel
        torch.testing.assert_close(spatial[:, flat], layer[:, channel, row, column], rtol=1e-4, atol=1e-5)
    assert torch.linalg.norm(spatial - layer[:, :7].permute(0, 2, 3, 1).flatten(1)) < 1e-5 * torch.linalg.norm(spatial)
    assert spatial.min() == 0  # after the ReLU


def test_the_tensorflow_resize_is_the_formula_in_numpy(images):
    pytest.importorskip("torch_fidelity", reason=INSTALL)
    from harness.metrics.features.inception_network import SIDE, _tf1

    x = images.numpy().astype(np.float32)
    rows, columns = (np.arange(SIDE, dtype=np.float32) * np.float32(n / SIDE) for n in x.shape[1:3])
    top, left = rows.astype(int), columns.astype(int)
    bottom, right = np.minimum(top + 1, x.shape[1] - 1), np.minimum(left + 1, x.shape[2] - 1)
    fy = (rows - top)[:, None, None].astype(np.float32)
    fx = (columns - left)[:, None].astype(np.float32)
    upper = x[:, top][:, :, left] + (x[:, top][:, :, right] - x[:, top][:, :, left]) * fx
    lower = x[:, bottom][:, :, left] + (x[:, bottom][:, :, right] - x[:, bottom][:, :, left]) * fx
    expected = upper + (lower - upper) * fy
    found = _tf1(images.permute(0, 3, 1, 2).float()).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(found, expected)


def test_the_clean_resize_is_clean_fids(images):
    pytest.importorskip("torch_fidelity", reason=INSTALL)
    resize = pytest.importorskip("cleanfid.resize", reason="pip install clean-fid")
    from harness.metrics.features.inception_network import _clean

    theirs = np.stack([resize.build_resizer("clean")(image) for image in images.numpy()])
    np.testing.assert_array_equal(_clean(images).permute(0, 2, 3, 1).numpy(), theirs)
    grey = images[..., :1]
    np.testing.assert_array_equal(_clean(grey), _clean(grey.repeat(1, 1, 1, 3)))


def test_features_do_not_depend_on_the_batch_in_double_precision(inception_file, images):
    from harness.metrics.features.inception_network import inception

    extractor = inception(load_weights(INCEPTION, path=inception_file), dtype=torch.float64)
    together, alone = extractor.extract(images[:2]), extractor.extract(images[1:2])
    np.testing.assert_allclose(together["pool"][1:], alone["pool"], rtol=1e-6)


def test_the_clean_recipe_is_the_same_network_after_the_other_resize(inception_file, tmp_path):
    here = Ranks(0, 1, torch.device("cpu"))
    extraction = Extraction(inception_weights=inception_file, batch=2)
    plain, clean = (open_extractor(SPACES[name], extraction, here) for name in ("inception", "cleanfid"))
    assert (plain.identity["resize"], clean.identity["resize"]) == ("tf1", "clean")
    assert plain.identity["weights_sha256"] == clean.identity["weights_sha256"]
    same = torch.randint(0, 256, (1, 299, 299, 3), dtype=torch.uint8)  # which neither resizes
    torch.testing.assert_close(plain.extract(same)["pool"], clean.extract(same)["pool"], rtol=1e-6, atol=0)


def test_a_file_that_is_not_inception_is_refused(tmp_path):
    pytest.importorskip("torch_fidelity", reason=INSTALL)
    from harness.metrics.features.inception_network import inception

    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="is not weights of this Inception"):
        inception(load_weights(INCEPTION, path=tmp_path / "other.pth"))


def test_without_torch_fidelity_one_line_says_what_to_install():
    from harness.metrics.features.inception_network import inception

    with (
        mock.patch.dict("sys.modules", {"torch_fidelity": None}),
        pytest.raises(ValueError, match=r"^Inception metrics need torch-fidelity: pip install torch-fidelity$"),
    ):
        inception(Weights(b"", "0" * 64, False))


def test_tf32_is_off_inside_and_restored_outside():
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32
    cudnn.allow_tf32 = True
    try:
        with exact_arithmetic():
            assert not cudnn.allow_tf32
            assert cudnn.deterministic
        assert cudnn.allow_tf32
    finally:
        cudnn.allow_tf32 = before


# Digits


def held_out_accuracy(network):
    data, (trained, held_out) = Digits(), Digits.split()
    assert not set(trained) & set(held_out)
    with torch.inference_mode():
        images = classifier.prepare(data.pixels[held_out].permute(0, 2, 3, 1), digits_network.SIDE)
        guessed = network(images)[1].argmax(dim=1)
    return (guessed == data.labels[held_out]).float().mean()


def opened(space):
    return open_extractor(SPACES[space], Extraction(offline=True), Ranks(0, 1, torch.device("cpu")))


def test_the_digits_network_recognises_digits_that_it_has_not_seen_at_any_resolution():
    extractor = opened("digits")
    trained, held_out = Digits.split()
    assert not set(trained) & set(held_out)
    for resolution in (8, 32):
        data = Digits(resolution)
        pixels = data.pixels[held_out].permute(0, 2, 3, 1)
        guessed = extractor.extract(pixels)["logits"].argmax(dim=1)
        assert (guessed == data.labels[held_out]).float().mean() >= 0.97
    features = extractor.extract(Digits().pixels.permute(0, 2, 3, 1))["pool"].double()
    assert torch.linalg.matrix_rank(torch.cov(features.T)) == digits_network.FEATURES


def test_the_shipped_weights_are_those_of_the_committed_records():
    """The tables' scores can be joined only by scores on the same features."""
    measured = Path(__file__).parents[1] / "results" / "measurements"
    for space, file in (("digits", "digits.jsonl"), ("moving-digits", "clips.jsonl")):
        (recorded,) = {json.loads(line)["workload"]["extractor"]["weights_sha256"] for line in (measured / file).open()}
        assert opened(space).identity["weights_sha256"] == recorded
        assert hashlib.sha256((PACKAGED / SPACES[space].weights.file).read_bytes()).hexdigest() == recorded


def test_shipped_weights_that_are_damaged_are_refused(tmp_path, monkeypatch):
    content = bytearray((PACKAGED / "digits.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "digits.safetensors").write_bytes(content)
    monkeypatch.setattr(weights, "PACKAGED", tmp_path)
    with pytest.raises(ValueError, match="is not the shipped digits file: its sha256 is"):
        opened("digits")
    with pytest.raises(ValueError, match=r"missing from this installation: no .*moving-digits\.safetensors"):
        opened("moving-digits")


def test_training_a_shipped_network_again_gives_one_that_is_as_good(tmp_path, capsys):
    """Other versions of torch may give other bytes, but not another network."""
    out = tmp_path / "digits.safetensors"
    assert train.main(["digits", "--out", str(out)]) == 0
    network = digits_network.DigitsNetwork()
    network.load_state_dict(load_file(out))
    assert held_out_accuracy(network) >= 0.98
    same = out.read_bytes() == (PACKAGED / "digits.safetensors").read_bytes()
    expected = (
        f"{out}: sha256 {hashlib.sha256(out.read_bytes()).hexdigest()}, {'' if same else 'not '}the shipped weights"
    )
    assert capsys.readouterr().out.strip() == expected


# The lists


def test_every_distance_reads_a_stream_that_its_spaces_have():
    for distance in DISTANCES.values():
        for space in distance.spaces:
            assert SPACES[space.name] is space
            assert distance.stream in space.streams
            assert distance.labels != "required" or space.classes


@pytest.mark.parametrize("name", ["digits", "moving-digits"])
def test_a_space_gives_the_streams_that_it_lists(name):
    space = SPACES[name]
    items = torch.zeros((2, *([4] * (space.items == "clips")), 16, 16, 1), dtype=torch.uint8)
    found = opened(name).extract(items)
    assert tuple(found) == space.streams
    assert found["logits"].shape[1] % space.classes == 0


# I3D

def test_i3d_is_called_as_stylegan_v_calls_it(tmp_path):
    network = i3d(load_weights(I3D.weights, path=random_i3d(tmp_path / "i3d.pt")))
    clips = torch.randint(0, 256, (2, 16, 24, 32, 3), dtype=torch.uint8)
    features = network.extract(clips)["pool"]
    assert features.shape == (2, 400)
    module = torch.jit.load(str(tmp_path / "i3d.pt"))
    arranged = clips.permute(0, 4, 1, 2, 3).float()
    with torch.no_grad():
        np.testing.assert_array_equal(features, module(arranged, True, True, True))
        assert not torch.allclose(features, module(arranged, False, True, True))
    with pytest.raises(ValueError, match="at least 10 frames, not 9"):
        network.extract(clips[:, :9])


def test_a_file_that_is_not_torchscript_is_refused(tmp_path):
    (tmp_path / "i3d.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is not a TorchScript network"):
        i3d(load_weights(I3D.weights, path=tmp_path / "i3d.pt"))


def test_a_network_with_other_features_is_refused(tmp_path):
    class Other(nn.Module):
        def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
            return x.mean(dim=(2, 3, 4))

    torch.jit.save(torch.jit.script(Other()), tmp_path / "i3d.pt")
    with pytest.raises(ValueError, match=r"gave features \(1, 3\), not \(1, 400\)"):
        i3d(load_weights(I3D.weights, path=tmp_path / "i3d.pt")).extract(torch.zeros(1, 16, 8, 8, 3, dtype=torch.uint8))


# Weight files


@pytest.fixture
def entry(tmp_path):
    source = tmp_path / "published.bin"
    source.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    return WeightFile(name="toy", file="toy.bin", sha256=digest, licence="MIT", url=source.as_uri())


def test_a_missing_file_is_named_with_where_to_put_it(entry, tmp_path):
    with pytest.raises(ValueError, match=f"--offline forbids a download: put {entry.url} at {tmp_path}/w/toy.bin"):
        load_weights(entry, directory=tmp_path / "w", offline=True)


def test_a_download_is_verified_and_kept(entry, tmp_path):
    found = load_weights(entry, directory=tmp_path / "w")
    assert (found.content, found.known) == (b"weights", True)
    assert (tmp_path / "w" / "toy.bin").read_bytes() == b"weights"
    Path(tmp_path / "published.bin").write_bytes(b"changed")
    assert load_weights(entry, directory=tmp_path / "w", offline=True) == found
    with pytest.raises(ValueError, match="nothing was kept"):
        load_weights(entry, directory=tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_every_load_is_verified(entry, tmp_path):
    (tmp_path / "toy.bin").write_bytes(b"weighty")
    with pytest.raises(ValueError, match="is not the published toy file: its sha256 is"):
        load_weights(entry, directory=tmp_path)
    given = load_weights(entry, path=tmp_path / "toy.bin")  # any file may be given by path, and is marked so
    assert (given.known, given.sha256) == (False, hashlib.sha256(b"weighty").hexdigest())
    assert isinstance(given.open(), io.BytesIO)
    with pytest.raises(ValueError, match="no toy weights at"):
        load_weights(entry, path=tmp_path / "absent")


def test_the_weights_directory_is_the_flag_then_the_variable_then_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path / "variable"))
    assert weights_directory(tmp_path / "flag") == tmp_path / "flag"
    assert weights_directory() == tmp_path / "variable"
    monkeypatch.delenv(weights.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights_directory() == tmp_path / "dim-vs-dit"


def test_the_registered_hash_begins_as_the_file_name_says():
    assert INCEPTION.file.endswith(f"-{INCEPTION.sha256[:8]}.pth")
    files = [space.weights for space in SPACES.values()]
    assert all(file.licence for file in files)
    assert all(len(file.sha256) == 64 or file.had_at for file in files), "what is downloaded or shipped is verified"
