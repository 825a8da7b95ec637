"""Digits, image trees and the latent cache: preprocessing by hand arithmetic, order, damage, resumption."""

import json
import os
import warnings

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image

from harness.core.distributed import ranks
from harness.core.locks import locked
from harness.data import NAMED, autoencoder, digits, latents
from harness.data import __main__ as data
from harness.data.datasets import order
from harness.data.digits import Digits
from harness.data.images import ImageFolder, centre_crop, open_rgb
from harness.data.latents import LatentCache, encode
from harness.data.registry import CLIPS, IMAGES, open_dataset, open_videos
from harness.data.sources import open_images


class HalfSize:
    """An autoencoder by hand: the mean is 2x2 averages of three channels and their sum, the log variance is -30."""

    name, downsample = "half-size", 2

    def moments(self, images):
        small = torch.nn.functional.avg_pool2d(images, 2)
        mean = torch.cat([small, small.sum(1, keepdim=True)], dim=1)
        return torch.cat([mean, torch.full_like(mean, -30)], dim=1)

    def sample(self, moments, noise):
        raise NotImplementedError

    decode = sample


@pytest.fixture
def tree(tmp_path):
    """Three classes of four 12x9 images; every image its own random pixels."""
    rng = np.random.default_rng(0)
    root = tmp_path / "tree"
    for name in ("cat", "ant", "bee"):
        (root / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def test_digits_are_the_real_ones_at_their_native_resolution():
    digits = Digits(8)
    images, labels = digits.load(range(len(digits)), [False] * len(digits))
    assert images.shape == (1797, 1, 8, 8)
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # UCI's class counts
    assert (images.min().item(), images.max().item()) == (-1, 1)
    assert digits.pixels[0, 0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 0 0 5 13 9 1 0 0 of 16


@pytest.mark.parametrize("found", [True, False])
def test_digits_are_scikit_learn_s_wherever_it_keeps_them(found, monkeypatch):
    from sklearn.datasets import load_digits

    theirs = load_digits()
    if not found:
        monkeypatch.setattr(digits, "find_spec", lambda name: None)
    ours = Digits(8)
    assert np.array_equal(ours.pixels[:, 0].numpy(), np.round(theirs.images.astype(np.float32) * (255 / 16)))
    assert np.array_equal(ours.labels.numpy(), theirs.target)
    assert ours.classes == [str(name) for name in theirs.target_names]


def test_digits_at_another_resolution_are_pillow_s_bicubic():
    from sklearn.datasets import load_digits

    large = Digits(16)
    for index, raw in enumerate(load_digits().images[:20]):
        scaled = Image.fromarray((raw * 255 / 16).astype(np.float32)).resize((16, 16), Image.Resampling.BICUBIC)
        difference = large.pixels[index, 0].numpy() - np.asarray(scaled).clip(0, 255)
        assert np.abs(difference).max() <= 0.51  # rounding to 8 bits


def test_order_visits_everything_once_an_epoch_and_differs_between_epochs_and_seeds():
    epochs = [order(10, 0, range(e * 10, e * 10 + 10)) for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert order(10, 1, range(10)) != epochs[0]
    assert order(10, 0, range(5, 15)) == epochs[0][5:] + epochs[1][:5]  # a batch may straddle two epochs


def test_centre_crop_halves_by_boxes_then_crops_the_middle():
    """16x32 grey ramp to 8: one exact halving to 8x16 by 2x2 means, no bicubic, columns 4..11 stay."""
    ramp = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (16, 1))
    cropped = np.asarray(centre_crop(Image.fromarray(ramp), 8))
    means = ramp[0].reshape(16, 2).mean(1)
    assert cropped.shape == (8, 8)
    assert np.array_equal(cropped[0], means[4:12].round())


def test_centre_crop_scales_the_short_side_to_the_goal():
    assert centre_crop(Image.new("RGB", (300, 200)), 128).size == (128, 128)
    assert centre_crop(Image.new("RGB", (64, 100)), 128).size == (128, 128)  # smaller images are enlarged


def test_image_folder_numbers_sorted_classes_and_mirrors_on_request(tree):
    folder = ImageFolder(tree, 9)
    assert folder.classes == ["ant", "bee", "cat"]
    images, labels = folder.load([0, 11], [False, True])
    assert labels.tolist() == [0, 2]
    original = np.asarray(Image.open(tree / "cat" / "3.png"))[:, 1:10]  # floor((12 - 9) / 2) columns off the left
    mirrored = torch.from_numpy(original[:, ::-1].copy()).permute(2, 0, 1) / 127.5 - 1
    assert torch.allclose(images[1], mirrored)


def test_a_corrupt_image_is_named_and_skipped_only_on_request(tree):
    (tree / "bee" / "1.png").write_bytes((tree / "bee" / "1.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"corrupt image .*bee/1\.png.*--skip-corrupt"):
        ImageFolder(tree, 8).load(range(12), [False] * 12)
    folder = ImageFolder(tree, 8, skip_corrupt=True)
    with pytest.warns(UserWarning, match=r"bee/1\.png.*1 so far"):
        images, labels = folder.load(range(12), [False] * 12)
    assert folder.corrupt == {"bee/1.png"}
    assert torch.equal(images[5], images[6])  # the next readable one stands in
    assert len(labels) == 12


@pytest.mark.parametrize("kind", ["missing", "no classes", "no images"])
def test_a_folder_with_nothing_to_read_is_refused(tmp_path, kind):
    root = tmp_path / "tree"
    if kind != "missing":
        root.mkdir()
    if kind == "no images":
        (root / "cat").mkdir()
        (root / "cat" / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match="no data at" if kind == "missing" else kind.replace("classes", "class")):
        open_dataset(str(root), 8)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(latents, "SHARD_IMAGES", 5)


@pytest.mark.usefixtures("small_shards")
def test_cache_holds_the_moments_of_both_flips(tree, tmp_path):
    folder, where = ImageFolder(tree, 8), tmp_path / "cache"
    assert list(encode(folder, HalfSize(), where, batch=2)) == [5, 10, 12]
    cache = open_dataset(str(where), 8)
    assert isinstance(cache, LatentCache)
    assert (len(cache), cache.channels, cache.classes) == (12, 4, folder.classes)
    indices, flips = [11, 0, 5, 4], [True, False, True, False]
    images, labels = folder.load(indices, flips)
    moments, cached_labels = cache.load(indices, flips)
    assert torch.equal(labels, cached_labels)
    assert torch.allclose(moments, HalfSize().moments(images))


@pytest.mark.usefixtures("small_shards")
def test_encoding_resumes_repairs_and_refuses_other_settings(tree, tmp_path):
    folder, where = ImageFolder(tree, 8), tmp_path / "cache"
    first = next(encode(folder, HalfSize(), where, batch=4))  # interrupted after one shard
    assert first == 5
    with pytest.raises(ValueError, match="unfinished"):
        LatentCache(where)
    kept = (where / "shard-00000.safetensors").stat().st_mtime_ns
    list(encode(folder, HalfSize(), where, batch=4))
    assert (where / "shard-00000.safetensors").stat().st_mtime_ns == kept

    whole = (where / "shard-00001.safetensors").read_bytes()
    (where / "shard-00001.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"shard-00001\.safetensors is missing or damaged"):
        LatentCache(where)
    with pytest.warns(UserWarning, match=r"shard-00001\.safetensors is damaged"):
        list(encode(folder, HalfSize(), where, batch=4))
    assert (where / "shard-00001.safetensors").read_bytes() == whole

    with pytest.raises(ValueError, match="another resolution"):
        next(encode(ImageFolder(tree, 4), HalfSize(), where, batch=4))


def _encode_together(rank, world, port, root, where):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    latents.SHARD_IMAGES = 5
    with ranks(torch.device("cpu")) as here:
        list(encode(ImageFolder(root, 8), HalfSize(), where, batch=2, here=here))


@pytest.mark.usefixtures("small_shards")
def test_many_processes_encode_what_one_does_and_continue_what_one_began(tree, tmp_path):
    alone, together, world = tmp_path / "alone", tmp_path / "together", 4  # of three shards
    list(encode(ImageFolder(tree, 8), HalfSize(), alone, batch=2))
    assert next(encode(ImageFolder(tree, 8), HalfSize(), together, batch=2)) == 5  # and is interrupted
    begun = (together / "shard-00000.safetensors").stat().st_mtime_ns
    mp.spawn(_encode_together, args=(world, 33_000 + os.getpid() % 1000 + world, tree, together), nprocs=world)
    assert (together / "shard-00000.safetensors").stat().st_mtime_ns == begun, "it was whole"
    for path in sorted(alone.iterdir()):
        assert (together / path.name).read_bytes() == path.read_bytes(), path.name
    LatentCache(together)


@pytest.mark.usefixtures("small_shards")
def test_a_shard_of_another_place_or_other_settings_is_not_taken_for_one_of_these(tree, tmp_path):
    where = tmp_path / "cache"
    list(encode(ImageFolder(tree, 8), HalfSize(), where, batch=4))
    right = (where / "shard-00000.safetensors").read_bytes()
    (where / "shard-00000.safetensors").write_bytes((where / "shard-00001.safetensors").read_bytes())
    with pytest.warns(UserWarning, match="shard-00000.safetensors is damaged or of other settings"):
        list(encode(ImageFolder(tree, 8), HalfSize(), where, batch=4))
    assert (where / "shard-00000.safetensors").read_bytes() == right


def test_a_cache_that_is_open_holds_where_its_shards_begin_and_no_list_of_its_items(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "SHARD_IMAGES", 2)
    list(encode(ImageFolder(tree, 8), HalfSize(), tmp_path / "cache", batch=4))
    cache = LatentCache(tmp_path / "cache")
    cache.load([7], [False])
    assert set(cache._opened) == {0, 3}, "shards are opened when they are wanted"
    held = [value for value in vars(cache).values() if hasattr(value, "__len__") and not isinstance(value, str)]
    assert max(map(len, held)) == 7 < len(cache) == 12


@pytest.mark.usefixtures("small_shards")
def test_a_corrupt_image_stays_out_of_the_cache(tree, tmp_path):
    (tree / "bee" / "1.png").write_bytes(b"no picture")
    where = tmp_path / "cache"
    with pytest.raises(ValueError, match=r"bee/1\.png"):
        list(encode(ImageFolder(tree, 8), HalfSize(), where, batch=4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        list(encode(ImageFolder(tree, 8, skip_corrupt=True), HalfSize(), where, batch=4))
    cache = LatentCache(where)
    assert len(cache) == 11
    assert cache.load(range(11), [False] * 11)[1].tolist() == [0] * 4 + [1] * 3 + [2] * 4


def test_a_cache_of_another_resolution_is_refused(tree, tmp_path):
    list(encode(ImageFolder(tree, 8), HalfSize(), tmp_path / "cache", batch=4))
    with pytest.raises(ValueError, match="resolution 8, not 16"):
        open_dataset(str(tmp_path / "cache"), 16)


def test_encode_command_writes_a_cache_and_resumes(tree, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(autoencoder, "StableDiffusion", lambda where, device: HalfSize())
    arguments = ["encode", "--data", str(tree), "--out", str(tmp_path / "cache"), "--resolution", "8", "--batch", "3"]
    arguments += ["--vae", "anywhere", "--device", "cpu", "--skip-corrupt"]
    assert data.main(arguments) == 0
    before = (tmp_path / "cache" / "index.json").read_text()
    assert data.main(arguments) == 0
    assert (tmp_path / "cache" / "index.json").read_text() == before
    assert json.loads(before)["autoencoder"] == "half-size"
    assert "12 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [(["--data", "/nowhere"], "no such directory"), (["--data", ".", "--batch", "0"], "at least 1")],
)
def test_encode_command_refuses_in_one_line_with_exit_code_2(tmp_path, capsys, flags, complaint):
    with pytest.raises(SystemExit) as exit_:
        data.main(["encode", "--out", str(tmp_path / "cache"), *flags])
    assert exit_.value.code == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1
    assert not (tmp_path / "cache").exists()


# Damage, and one process a directory


def encode_with_half_size(monkeypatch, tree, where, *flags):
    monkeypatch.setattr(autoencoder, "StableDiffusion", lambda name, device: HalfSize())
    arguments = ["encode", "--data", str(tree), "--out", str(where), "--resolution", "8", "--device", "cpu", *flags]
    return data.main(arguments)


@pytest.mark.parametrize(
    "content", [b"[]", b"null", b"", b"\xff\xfe", b'{"format": 1}', b'{"format": 1, "shards": [[]]}']
)
def test_a_damaged_index_is_named_by_what_reads_it(tree, tmp_path, monkeypatch, capsys, content):
    where = tmp_path / "cache"
    assert encode_with_half_size(monkeypatch, tree, where) == 0
    (where / "index.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"index\.json is damaged"):
        open_dataset(str(where), 8)
    with pytest.raises(SystemExit) as exit_:
        encode_with_half_size(monkeypatch, tree, where)
    assert exit_.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "index.json is damaged" in message


def test_an_index_of_foreign_shards_is_named(tree, tmp_path, monkeypatch):
    where = tmp_path / "cache"
    assert encode_with_half_size(monkeypatch, tree, where) == 0
    index = json.loads((where / "index.json").read_text())
    (where / "index.json").write_text(json.dumps({**index, "shards": [{"file": 3}]}))
    with pytest.raises(ValueError, match=r"index\.json is damaged: .* is no shard"):
        LatentCache(where)


def test_a_second_process_in_a_cache_is_told_who_holds_it(tree, tmp_path, monkeypatch, capsys):
    with locked(tmp_path / "cache"):
        assert encode_with_half_size(monkeypatch, tree, tmp_path / "cache") == 1
    assert "is in use by process" in capsys.readouterr().err


def test_an_encoding_that_is_interrupted_continues_with_the_same_command(tree, tmp_path, monkeypatch, capsys):
    def interrupted(self, images):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(HalfSize, "moments", interrupted)
        assert encode_with_half_size(monkeypatch, tree, tmp_path / "cache") == 75
    assert capsys.readouterr().err.splitlines()[-1] == "stopped; the same command encodes the rest"
    assert encode_with_half_size(monkeypatch, tree, tmp_path / "cache") == 0


def test_the_destination_of_a_cache_is_checked_before_the_work(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SystemExit):
        encode_with_half_size(monkeypatch, "/nowhere", tmp_path / "file")
    assert "cannot write into" in capsys.readouterr().err


def test_a_flipped_bit_in_a_png_is_found(tree):
    """Pillow decodes pixels without a look at the checksums of a PNG."""
    path = tree / "ant" / "0.png"
    whole = path.read_bytes()
    for place in range(8, len(whole) - 12):  # the last chunk, IEND, has no content
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"corrupt image .*ant/0\.png"):
            open_rgb(path)
    path.write_bytes(whole)
    assert open_rgb(path).size == (12, 9)


# Data sets by name


@pytest.mark.parametrize("name", [name for name in NAMED if name != "fashion-mnist"])  # which has tests of its own
def test_a_data_set_by_name_is_learnt_from_and_compared_with(name):
    reference = (CLIPS[name] if name in CLIPS else IMAGES[name]).reference()
    learnt = open_videos(name, 16, 8, 1) if name in CLIPS else open_dataset(name, 8)
    assert reference.dtype == np.uint8
    assert reference.shape[-1] == learnt.channels
    pixels = learnt.load_clips([0], [False], [0.0])[0] if name in CLIPS else learnt.load([0], [False])[0]
    assert reference.shape[1:-1] == (*pixels.shape[1:-3], *pixels.shape[-2:])


def test_a_data_set_by_name_is_compared_with_what_metrics_have_always_had():
    """The bytes behind the committed scores."""
    assert np.array_equal(IMAGES["digits"].reference(), open_images("digits").read(0, 1797))
    clips = open_images("moving-digits", 12, 4)
    assert np.array_equal(CLIPS["moving-digits"].reference(12, 4), clips.read(0, clips.count))


def test_digits_that_do_not_fit_are_refused_with_their_size():
    with pytest.raises(ValueError, match=r"1797 digits of 100000000 x 100000000 pixels in float32 takes [\d,]+ GiB"):
        Digits(100_000_000)
