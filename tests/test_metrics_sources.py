"""Sources, shards and references: what is read is what was written, and nothing is ever half there."""

from __future__ import annotations

import json
import os
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from harness.core.distributed import Ranks
from harness.data.clips import open_clips
from harness.data.npz import Npz
from harness.data.sources import ArraySource, open_images
from harness.metrics import errorbars, references, shards
from harness.metrics.distances.frechet import frechet_distance
from harness.metrics.evaluation import Settings, evaluate
from harness.metrics.features.extractor import Extractor
from harness.metrics.moments import Gaussian, of_block, stream
from harness.metrics.recipes import parse

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.fixture
def images(generator):
    return generator.integers(0, 256, (600, 4, 4, 3), dtype=np.uint8)


def averages(batch=64, poison=None, **identity):
    """A stand-in for a network: the mean of each channel, its square, and the mean of all."""

    def extract(items):
        x = items.double().flatten(1, -2).mean(dim=1) / 255
        if poison is not None:
            x[poison] = torch.nan
        pool = torch.cat([x, x**2, x.mean(dim=1, keepdim=True) ** 3], dim=1).float()
        return {"pool": pool, "spatial": pool[:, :2].contiguous(), "logits": pool[:, :3].contiguous()}

    about = {"network": "averages", "resize": "tf1", "published_weights": True, "weights_sha256": "0" * 64, **identity}
    return Extractor("inception", ("pool", "spatial", "logits"), about, extract, batch)


# Sources


def save_folder(root, images, extension="png"):
    root.mkdir(parents=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(root / f"{index:04d}.{extension}")
    return root


def test_an_npz_and_a_folder_of_the_same_images_read_alike(images, tmp_path):
    np.savez(tmp_path / "a.npz", arr_0=images[:5], arr_1=np.arange(5))
    np.savez_compressed(tmp_path / "b.npz", arr_0=images[:5])
    folder = save_folder(tmp_path / "folder", images[:5])
    sources = [open_images(str(path)) for path in (tmp_path / "a.npz", tmp_path / "b.npz", folder)]
    for source in sources:
        assert (source.count, source.shape) == (5, (4, 4, 3))
        np.testing.assert_array_equal(source.read(1, 4), images[1:4])
    assert list(sources[0].labels) == [0, 1, 2, 3, 4]
    assert sources[0].identity == sources[1].identity  # of the content, however it is packed
    assert isinstance(sources[0].array, np.memmap)  # ADM's files are larger than memory


def test_the_contact_sheet_beside_samples_is_not_one_of_them(images, tmp_path):
    folder = save_folder(tmp_path / "folder", images[:3])
    Image.new("RGB", (100, 50)).save(folder / "grid.png")
    assert open_images(str(folder)).count == 3


def test_the_identity_of_a_folder_follows_its_pixels_and_its_order(images, tmp_path):
    one, same = (save_folder(tmp_path / name, images[:3]) for name in "ab")
    assert open_images(str(one)).identity == open_images(str(same)).identity
    (same / "0000.png").rename(same / "9.png")
    assert open_images(str(one)).identity != open_images(str(same)).identity


def test_a_data_set_is_a_source_at_any_resolution():
    source = open_images("digits", 16)
    assert (source.count, source.shape) == (1797, (16, 16, 1))


def test_a_reference_folder_is_cropped_and_resized_on_request(generator, tmp_path):
    folder = save_folder(tmp_path / "folder", [generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)])
    assert open_images(str(folder), resolution=8).shape == (8, 8, 3)


def npz(path, **members):
    np.savez(path, **members)
    return path


def mixed(path):
    folder = save_folder(path, np.zeros((2, 4, 4, 3), np.uint8))
    Image.fromarray(np.zeros((5, 4, 3), np.uint8)).save(folder / "9.png")
    return folder


def truncated(path):
    npz(path, arr_0=np.zeros((50, 4, 4, 3), np.uint8))
    os.truncate(path, 1000)
    return path


def corrupt(path):
    """One pixel changed after the checksum was written."""
    npz(path, arr_0=np.zeros((50, 4, 4, 3), np.uint8))
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    return path


def damaged_png(path):
    folder = save_folder(path, np.zeros((1, 4, 4, 3), np.uint8))
    (folder / "0000.png").write_bytes(b"not a picture")
    return folder


BAD = {
    "no such file": (lambda p: p / "a.npz", "no such file: .*a.npz"),
    "no images": (lambda p: p, "has no images"),
    "unknown": (lambda p: p / "cifar", r"give an .npz, a folder, or a data set \(digits, moving-digits\)"),
    "no arr_0": (lambda p: npz(p / "a.npz", mu=np.zeros(2)), "has no arr_0, which holds the images; it holds mu"),
    "floats": (lambda p: npz(p / "a.npz", arr_0=np.zeros((2, 4, 4, 3))), "holds float64 values; images must be uint8"),
    "shape": (lambda p: npz(p / "a.npz", arr_0=np.zeros((2, 3, 4, 4), np.uint8)), r"images are \(N, H, W, 3\)"),
    "objects": (lambda p: npz(p / "a.npz", arr_0=np.array([None])), "cannot read arr_0"),
    "mixed sizes": (lambda p: mixed(p / "f"), "mixes sizes: 0000.png and 9.png are 4 x 4 and 4 x 5"),
    "truncated": (lambda p: truncated(p / "a.npz"), "not a whole .npz file .*: truncated or damaged"),
    "corrupt": (lambda p: corrupt(p / "a.npz"), "Bad CRC-32"),
    "damaged picture": (lambda p: damaged_png(p / "f"), "corrupt image .*0000.png"),
    "labels": (
        lambda p: npz(p / "a.npz", arr_0=np.full((2, 4, 4, 3), 9, np.uint8), arr_1=np.zeros(3)),
        r"2 images but labels of shape \(3,\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_images_are_refused_by_name(case, tmp_path):
    make, complaint = BAD[case]
    path = make(tmp_path)

    def read_all():
        source = open_images(str(path))
        source.read(0, source.count)

    with pytest.raises(ValueError, match=complaint):
        read_all()


def test_images_of_range_zero_to_one_are_warned_of(tmp_path):
    npz(tmp_path / "a.npz", arr_0=np.ones((2, 4, 4, 3), np.uint8))
    with pytest.warns(UserWarning, match="no pixel exceeds 1"):
        open_images(str(tmp_path / "a.npz"))


def test_an_npz_of_any_layout_is_read_as_numpy_reads_it(generator, tmp_path):
    arrays = {"c": generator.random((3, 4)), "fortran": np.asfortranarray(generator.random((3, 4)))}
    arrays |= {"scalar": np.array(7), "text": np.array("word"), "empty": np.zeros((0, 3))}
    file = Npz(npz(tmp_path / "a.npz", **arrays))
    for name, array in arrays.items():
        np.testing.assert_array_equal(file.array(name), array)
    assert file.digest("c") != file.digest("fortran")


# Clips


@pytest.fixture
def videos(generator):
    return generator.integers(0, 256, (5, 20, 6, 6, 3), dtype=np.uint8)


def test_clips_of_an_array_and_of_frame_folders_are_the_same_frames(videos, tmp_path):
    npz(tmp_path / "a.npz", arr_0=videos)
    for index, video in enumerate(videos):
        save_folder(tmp_path / "folders" / f"video{index}", video)
    sources = [open_clips(str(tmp_path / name), 4, 3, stride=3) for name in ("a.npz", "folders")]
    for source in sources:
        assert (source.count, source.shape) == (3, (4, 6, 6, 3))
        np.testing.assert_array_equal(source.read(0, 3), videos[:3, 0:12:3])
    assert sources[1].identity["codec"] == ".png"


def test_real_clips_begin_where_the_seed_says(videos, tmp_path):
    npz(tmp_path / "a.npz", arr_0=videos)
    first, again, other = (open_clips(str(tmp_path / "a.npz"), 4, 5, offset_seed=seed) for seed in (1, 1, 2))
    assert first.starts == again.starts != other.starts
    assert first.identity == again.identity != other.identity
    starts = [
        start
        for seed in range(100)
        for start in open_clips(str(tmp_path / "a.npz"), 4, 5, stride=2, offset_seed=seed).starts
    ]
    assert (min(starts), max(starts)) == (0, 20 - 1 - 3 * 2)  # 0 .. L - T s + s - 1
    np.testing.assert_array_equal(first.read(2, 3)[0], videos[2, first.starts[2] : first.starts[2] + 4])


def test_short_real_videos_are_passed_over_and_short_samples_refused(videos, tmp_path):
    for index, video in enumerate(videos):
        save_folder(tmp_path / f"video{index}", video[: 8 if index == 1 else 20])
    assert open_clips(str(tmp_path), 10, 3, offset_seed=0).videos == ("video0", "video2", "video3")
    with pytest.raises(ValueError, match=r"video1 has 8 frames; a clip of 10 with stride 1 needs more"):
        open_clips(str(tmp_path), 10, 3)


def test_video_files_are_decoded(videos, tmp_path):
    av = pytest.importorskip("av", reason="pip install av")
    with av.open(str(tmp_path / "video.mkv"), "w") as container:
        lossless = container.add_stream("ffv1", rate=8)
        lossless.width, lossless.height, lossless.pix_fmt = 6, 6, "bgr0"
        for frame in videos[0]:
            container.mux(lossless.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")))
        container.mux(lossless.encode())
    source = open_clips(str(tmp_path), 5, 10, stride=2)
    assert source.identity["codec"] == ".mkv"
    np.testing.assert_array_equal(source.read(0, 1)[0], videos[0, 0:10:2])
    (tmp_path / "video.mkv").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"corrupt video .*video\.mkv"):
        open_clips(str(tmp_path), 5, 10)


def test_a_folder_without_clips_is_refused(videos, tmp_path):
    save_folder(tmp_path / "flat", videos[0])
    with pytest.raises(ValueError, match="neither frame folders nor video files"):
        open_clips(str(tmp_path / "flat"), 4, 1)
    with pytest.raises(ValueError, match="no clips at"):
        open_clips(str(tmp_path / "absent"), 4, 1)


# Shards


def test_shards_do_not_depend_on_who_made_them_nor_on_where_the_set_ends(images, tmp_path):
    source = ArraySource("images", images, {"kind": "test"})
    whole = shards.extract(source, averages(), 0, 600, tmp_path / "a", ALONE)
    assert whole.spans() == [(0, 256), (256, 512), (512, 600)]
    for rank in (1, 0):  # as two processes would, one after the other
        shared = shards.extract(source, averages(), 0, 600, tmp_path / "b", Ranks(rank, 2, torch.device("cpu")))
    assert shared.rows("pool").tobytes() == whole.rows("pool").tobytes()
    assert shared.digest() == whole.digest()
    part = shards.extract(source, averages(), 0, 300, tmp_path / "c", ALONE)
    assert part.rows("pool").tobytes() == whole.rows("pool")[:300].tobytes()
    later = shards.extract(source, averages(), 300, 600, tmp_path / "c", ALONE)
    assert later.spans() == [(300, 512), (512, 600)]
    assert later.rows("pool").tobytes() == whole.rows("pool")[300:].tobytes()


def test_finished_shards_are_kept_and_damaged_ones_made_again(images, tmp_path):
    source = ArraySource("images", images, {"kind": "test"})
    features = shards.extract(source, averages(), 0, 600, tmp_path, ALONE)
    before, rows = features.digest(), features.rows("pool")
    files = sorted(features.directory.glob("*.safetensors"))
    content = bytearray(files[1].read_bytes())
    content[-100] ^= 1
    files[1].write_bytes(content)
    files[2].write_bytes(b"")
    read = []

    class Watched(ArraySource):
        def read(self, start, stop):
            read.append(start)
            return super().read(start, stop)

    with pytest.warns(UserWarning, match="is damaged; it will be made again"):
        again = shards.extract(Watched("images", images, {"kind": "test"}), averages(), 0, 600, tmp_path, ALONE)
    assert min(read) == 256
    assert again.digest() == before
    assert again.rows("pool").tobytes() == rows.tobytes()


def test_features_of_other_weights_or_other_pixels_are_never_mixed(images, tmp_path):
    source = ArraySource("images", images[:10], {"kind": "test"})
    other = ArraySource("images", images[:10], {"kind": "other"})
    places = {
        shards.extract(s, e, 0, 10, tmp_path, ALONE).directory
        for s in (source, other)
        for e in (averages(), averages(weights_sha256="1" * 64), averages(batch=32))
    }
    assert len(places) == 6


def test_features_that_are_not_finite_are_refused_and_nothing_is_written(images, tmp_path):
    source = ArraySource("images", images, {"kind": "test"})
    with pytest.raises(ValueError, match="the pool features of item 3 of images are not finite"):
        shards.extract(source, averages(poison=3), 0, 600, tmp_path, ALONE)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_duplicates_are_counted(images, tmp_path):
    images[100:150] = images[7]
    features = shards.extract(ArraySource("images", images, {"kind": "test"}), averages(), 0, 600, tmp_path, ALONE)
    assert features.duplicates() == 50


# References


def test_a_built_reference_is_read_back_as_adms_evaluator_reads_it(images, tmp_path):
    source = ArraySource("images", images, {"kind": "test"})
    extractor = averages()
    features = shards.extract(source, extractor, 0, 600, tmp_path / "w", ALONE)
    out = tmp_path / "ref.npz"
    digest = references.build(source, extractor, features, out)
    with np.load(out) as file:
        rows = features.rows("pool").astype(np.float64)
        np.testing.assert_allclose(file["mu"], rows.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(file["sigma"], np.cov(rows, rowvar=False), rtol=1e-9, atol=1e-15)
        assert file["mu_s"].shape == (2,)
        assert file["sigma_s"].shape == (2, 2)
        np.testing.assert_array_equal(file["arr_0"], images)
    assert json.loads((tmp_path / "ref.npz.json").read_text())["sha256"] == digest
    recipes = parse(["fid100", "sfid100", "pr100"])
    direct = references.of_source(source, extractor, ["pool", "spatial"], tmp_path / "w", ALONE)
    stored = references.open_reference(str(out), recipes, extractor, tmp_path / "w", ALONE)
    assert (stored.sha256, stored.count, stored.images, stored.side) == (digest, 600, 600, (4, 4))
    for name in ("pool", "spatial"):
        np.testing.assert_array_equal(stored.gaussians[name].covariance, direct.gaussians[name].covariance)
    np.testing.assert_array_equal(stored.features("pool"), direct.features("pool"))


def test_precision_and_recall_use_ten_thousand_images_in_a_fixed_choice():
    chosen = references.subset(50_000)
    assert len(np.unique(chosen)) == 10_000
    np.testing.assert_array_equal(chosen, references.subset(50_000))
    assert list(references.subset(7)) == list(range(7))


def adm(path, images, extractor):
    """As ADM's own files: no mark and no count."""
    rows = extractor.extract(torch.from_numpy(images))
    members = {}
    for name, (mean, covariance) in references.MEMBERS.items():
        gaussian = of_block(rows[name].numpy()).gaussian()
        members |= {mean: gaussian.mean.astype(np.float32), covariance: gaussian.covariance}
    return npz(path, arr_0=images[:50], **members)


def test_adms_own_reference_gives_moments_of_all_and_features_of_its_images(images, tmp_path):
    extractor = averages()
    path = adm(tmp_path / "VIRTUAL.npz", images, extractor)
    found = references.open_reference(str(path), parse(["adm100"]), extractor, tmp_path / "w", ALONE)
    assert (found.count, found.images) == (None, 50)
    whole = of_block(extractor.extract(torch.from_numpy(images))["pool"].numpy()).gaussian()
    np.testing.assert_allclose(found.gaussians["pool"].covariance, whole.covariance, rtol=1e-12)


def test_stored_moments_of_other_features_are_not_used(images, tmp_path):
    path = adm(tmp_path / "VIRTUAL.npz", images, averages())
    own = averages(published_weights=False)
    with pytest.warns(UserWarning, match="moments of its arr_0 are used instead"):
        found = references.open_reference(str(path), parse(["fid100"]), own, tmp_path / "w", ALONE)
    assert found.count == 50
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "bare.npz", "w") as bare:
        for name in ("mu.npy", "sigma.npy"):
            bare.writestr(name, archive.read(name))
    with pytest.raises(
        ValueError, match=r"bare.npz has no arr_0, which holds the images that pr100 needs; it holds mu"
    ):
        references.open_reference(str(tmp_path / "bare.npz"), parse(["pr100"]), averages(), tmp_path / "w", ALONE)
    with pytest.raises(ValueError, match=r"no arr_0, which sfid100 needs where there are no stored moments"):
        references.open_reference(str(tmp_path / "bare.npz"), parse(["sfid100"]), averages(), tmp_path / "w", ALONE)
    fine = references.open_reference(str(tmp_path / "bare.npz"), parse(["fid100"]), averages(), tmp_path / "w", ALONE)
    assert fine.features is None


# Evaluation and its error bars


def test_a_recipe_gives_the_distance_of_its_stream(images, tmp_path):
    extractor = averages()
    source = ArraySource("images", images, {"kind": "test"})
    reference = references.of_source(source, extractor, ["pool", "spatial"], tmp_path, ALONE)
    samples = shards.extract(source, extractor, 0, 300, tmp_path, ALONE)
    for recipe in parse(["fid300", "sfid300"]):
        (result,) = evaluate(recipe, samples, reference, Settings(bootstrap=5))
        expected = frechet_distance(
            stream([samples.rows(recipe.stream)]).gaussian(), reference.gaussians[recipe.stream]
        ).value
        assert result.value == expected
        assert result.error.standard_error > 0
    precision, recall = evaluate(parse(["pr300"])[0], samples, reference, Settings())
    assert (precision.quantity, precision.value) == ("precision", 1.0)  # the samples are half of the reference
    assert (recall.reference, recall.samples) == (600, 300)


def test_the_bootstrap_error_is_the_spread_over_fresh_samples(generator):
    truth = Gaussian(np.zeros(4), np.eye(4))

    def distance(moments):
        return frechet_distance(moments.gaussian(), truth).value

    def draw():
        return generator.standard_normal((400, 4)) * 1.3

    fresh = [distance(of_block(draw())) for _ in range(60)]
    rows = draw()
    value = distance(of_block(rows))
    error = errorbars.of_bootstrap(value, errorbars.bootstrap_moments(rows, distance, 60, seed=0))
    assert error.standard_error == pytest.approx(np.std(fresh), rel=0.5)
    assert error.bias > 0  # duplicates push a distance up, and the interval is moved back
    assert error.low < value < error.high


def test_the_error_of_a_share_is_binomial():
    assert errorbars.of_share(0.8, 400).standard_error == pytest.approx(0.02)
