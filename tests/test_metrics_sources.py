"""Sources, shards and references: what is read is what was written, and nothing is ever half there."""

from __future__ import annotations

import collections
import io
import json
import os
import weakref
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from harness.core.distributed import Ranks
from harness.data import npz as reader
from harness.data.clips import open_clips
from harness.data.npz import Npz
from harness.data.sources import ArraySource, open_images
from harness.metrics import errorbars, references, shards, statistics
from harness.metrics.distances.distance import Comparison
from harness.metrics.distances.frechet import frechet_distance
from harness.metrics.distances.kernel import kernel_distances
from harness.metrics.evaluation import results_of
from harness.metrics.features.extractor import Extractor
from harness.metrics.moments import Gaussian, of_block, stream
from harness.metrics.recipes import parse
from harness.metrics.results import Result, combine
from harness.metrics.settings import Settings
from harness.metrics.shards import ShardFolder, spans
from harness.metrics.statistics import Needs, gather, gather_each

ALONE = Ranks(0, 1, torch.device("cpu"))
ROWS = Needs(rows=frozenset(["pool"]))
BOTH = Needs(moments=frozenset(["pool", "spatial"]), rows=frozenset(["pool"]))


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
    return Extractor(about, extract, batch)


# Sources


def save_folder(root, images, extension="png"):
    root.mkdir(parents=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(root / f"{index:04d}.{extension}")
    return root


def test_an_npz_and_a_folder_of_the_same_images_read_alike(images, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "LOADED_BYTES", 200)
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


def test_a_flipped_bit_in_stored_moments_is_refused(tmp_path):
    path = tmp_path / "reference.npz"
    np.savez(path, mu=np.arange(64.0), sigma=np.eye(64))
    whole = path.read_bytes()
    start = whole.index(np.arange(64.0).tobytes())
    for place in (start, start + 100, start + 511):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="Bad CRC-32"):
            Npz(path).array("mu")


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
    "unknown": (
        lambda p: p / "cifar",
        r"give an .npz, a folder, or a data set \(digits, fashion-mnist, moving-digits, bouncing-digits\)",
    ),
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


def member(shape, data, descr="|u1"):
    """An array's file content with any header."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue() + data


def packed(path, content, method=zipfile.ZIP_STORED, name="arr_0.npy"):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, content)
    return path


def marked(path, local, central, value):
    """A field of the zip's two headers changed."""
    content = bytearray(packed(path, member((2, 2), b"1234")).read_bytes())
    content[local] |= value
    content[content.index(b"PK\x01\x02") + central] |= value
    path.write_bytes(content)
    return path


STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
HOSTILE = {
    "encrypted": (lambda p: marked(p, 6, 8, 1), "arr_0: arr_0 is encrypted"),
    "unknown method": (lambda p: marked(p, 8, 10, 77), "arr_0: That compression method is not supported"),
    "negative shape": (
        lambda p: packed(p, member((-1, 4), b"1234")),
        r"its header declares the shape \(-1, 4\)",
    ),
    "huge shape": (
        lambda p: packed(p, member((10**12, 10**9), b"12")),
        r"header declares 1,000,000,.* has 2",
    ),
    "short": (lambda p: packed(p, member((2, 2), b"123")), "arr_0: its header declares 4 bytes .* it has 3"),
    "negative, packed": (lambda p: packed(p, member((-1,), b"1234"), DEFLATED), "declares the shape"),
    "huge, packed": (lambda p: packed(p, member((2**40,), b"1"), DEFLATED), "declares 1,099,511,627,776 bytes"),
    "long, packed": (lambda p: packed(p, member((2, 2), b"12345"), DEFLATED), "declares 4 bytes .* it has 5"),
    "bomb": (
        lambda p: packed(p, member((90 << 20,), bytes(90 << 20)), DEFLATED),
        "would grow to 94,371,840,",
    ),
    "no array": (lambda p: packed(p, b"hello"), "cannot read arr_0: "),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_npz_is_refused_by_file_and_member(case, tmp_path):
    make, complaint = HOSTILE[case]
    path = make(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=complaint) as refusal:
        Npz(path).array("arr_0")
    assert str(refusal.value).startswith(f"{path}: cannot read arr_0: ")
    assert "\n" not in str(refusal.value)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = packed(tmp_path / "a.npz", member((90 << 20,), bytes(90 << 20)), DEFLATED)
    unpacked = []
    real = zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda self, n=-1: (unpacked.append(n), real(self, n))[1])
    with pytest.raises(ValueError, match="as no data does"):
        Npz(path).array("arr_0")
    assert max(unpacked) < 1000


def test_a_damaged_stream_of_a_compressed_member_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8)
    np.savez_compressed(tmp_path / "a.npz", arr_0=noise)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[60:2000] = bytes(1940)
    (tmp_path / "a.npz").write_bytes(content)
    for read in (Npz(tmp_path / "a.npz").array, Npz(tmp_path / "a.npz").digest):
        with pytest.raises(ValueError, match=r"a\.npz"):
            read("arr_0")


@pytest.mark.parametrize(("old", "new"), [(b", }", b",  "), (b"(5000,)", b"(5000,'"), (b"'descr'", b"[desc] ")])
def test_a_damaged_header_is_named_whatever_numpy_raises(tmp_path, old, new):
    np.savez(tmp_path / "a.npz", arr_0=np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8))
    content = (tmp_path / "a.npz").read_bytes()
    assert content.count(old) == 1
    (tmp_path / "a.npz").write_bytes(content.replace(old, new))
    with pytest.raises(ValueError, match=r"a\.npz: cannot read arr_0: its header is damaged: "):
        Npz(tmp_path / "a.npz").array("arr_0")


def test_pictures_of_more_than_8_bits_are_refused_not_clipped(tmp_path):
    Image.fromarray(np.full((8, 8), 500, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png: it has more than 8 bits a channel"):
        open_images(str(tmp_path)).read(0, 1)


def test_a_data_set_whose_name_a_folder_has_says_which_is_read(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "digits" / "0.png")
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match=r"digits is the data set; .* write \./digits"):
        assert open_images("digits").count == 1797
    assert open_images("./digits").count == 1


def test_a_shard_of_a_network_that_had_fewer_streams_is_made_again(images, tmp_path):
    whole, source = averages(), ArraySource("images", images)
    fewer = replace(whole, extract=lambda x: {"pool": whole.extract(x)["pool"]})
    span, root = (0, 100), tmp_path / "w"
    gather(source, fewer, {span: Needs(frozenset({"pool"}))}, root, ALONE)
    found = gather(source, whole, {span: Needs(frozenset({"spatial"}))}, root, ALONE)
    assert found[span].moments["spatial"].count == 100


MOMENTS = {
    "not square": ({"sigma": np.eye(4)}, r"mu and sigma have shapes \(7,\) and \(4, 4\), not \(D,\) and \(D, D\)"),
    "no vector": ({"mu": np.zeros((7, 1))}, r"mu and sigma have shapes \(7, 1\)"),
    "scalar": ({"mu": np.array(1.0)}, r"mu and sigma have shapes \(\)"),
    "text": ({"mu": np.array(["a"] * 7)}, "mu must hold finite numbers"),
    "complex": ({"sigma": np.eye(7, dtype=complex)}, "sigma must hold finite numbers"),
    "not finite": ({"mu": np.full(7, np.nan)}, "mu must hold finite numbers"),
    "count": ({"count": np.array([1, 2])}, "count must be one whole number"),
}


@pytest.mark.parametrize("case", MOMENTS)
def test_odd_moments_are_refused_by_file_and_member(case, tmp_path):
    members, complaint = MOMENTS[case]
    path = npz(tmp_path / "ref.npz", **{"mu": np.zeros(7), "sigma": np.eye(7), **members})
    with pytest.raises(ValueError, match=rf"ref\.npz: {complaint}"):
        references.open_reference(str(path), parse(["fid100"]), averages(), tmp_path / "w", ALONE)


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


def test_drawn_real_videos_are_any_that_are_long_enough_each_once_by_the_seed(generator, tmp_path):
    """Latte's random.sample of those that are not too short: 2 of 5 in 300 draws, so each in two fifths of them."""
    videos = generator.integers(0, 256, (6, 12, 2, 2, 3), dtype=np.uint8)
    for index, video in enumerate(videos):
        save_folder(tmp_path / f"video{index}", video[: 8 if index == 1 else 12])
    draws = [open_clips(str(tmp_path), 10, 2, offset_seed=seed, drawn=True).videos for seed in range(300)]
    assert draws[7] == open_clips(str(tmp_path), 10, 2, offset_seed=7, drawn=True).videos
    counts = collections.Counter(video for draw in draws for video in draw)
    assert all(len(set(draw)) == 2 for draw in draws)
    assert set(counts) == {f"video{index}" for index in (0, 2, 3, 4, 5)}
    assert all(90 < count < 150 for count in counts.values())  # 120, give or take 8.5
    assert sorted(open_clips(str(tmp_path), 10, 99, offset_seed=0, drawn=True).videos) == sorted(counts)


def test_drawn_videos_of_an_array_are_read_from_their_own_rows(videos, tmp_path):
    npz(tmp_path / "a.npz", arr_0=videos, arr_1=np.arange(5))
    drawn = open_clips(str(tmp_path / "a.npz"), 4, 3, stride=2, offset_seed=3, drawn=True)
    assert (drawn.count, drawn.shape, len(set(drawn.rows))) == (3, (4, 6, 6, 3), 3)
    assert drawn.rows != [0, 1, 2]
    for index, (row, start) in enumerate(zip(drawn.rows, drawn.starts, strict=True)):
        np.testing.assert_array_equal(drawn.read(index, index + 1)[0], videos[row, start : start + 8 : 2])
    assert drawn.labels.tolist() == drawn.rows
    first = open_clips(str(tmp_path / "a.npz"), 4, 3, stride=2, offset_seed=3)
    assert first.rows == [0, 1, 2]
    assert "rows" not in first.identity
    assert drawn.identity["rows"] == drawn.rows


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


# Shards, and the one pass over them


def test_shards_do_not_depend_on_who_made_them_nor_on_where_the_set_ends(images, tmp_path):
    source = ArraySource("images", images, {"kind": "test"})
    assert spans(0, 600) == [(0, 256), (256, 512), (512, 600)]
    whole = gather(source, averages(), {(0, 600): ROWS}, tmp_path / "a", ALONE)[0, 600]
    for rank in (1, 0):  # as two processes would, one after the other
        here = Ranks(rank, 2, torch.device("cpu"))
        shared = gather(source, averages(), {(0, 600): ROWS}, tmp_path / "b", here)
        assert bool(shared) == here.first
    assert shared[0, 600].rows["pool"].tobytes() == whole.rows["pool"].tobytes()
    assert shared[0, 600].sha256 == whole.sha256
    part = gather(source, averages(), {(0, 300): ROWS}, tmp_path / "c", ALONE)[0, 300]
    assert part.rows["pool"].tobytes() == whole.rows["pool"][:300].tobytes()
    later = gather(source, averages(), {(300, 600): ROWS}, tmp_path / "c", ALONE)[300, 600]
    assert spans(300, 600) == [(300, 512), (512, 600)]
    assert later.rows["pool"].tobytes() == whole.rows["pool"][300:].tobytes()


class Watched(ArraySource):
    """Notes which items are read."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.seen = []

    def read(self, start, stop):
        self.seen += range(start, stop)
        return super().read(start, stop)


def test_finished_shards_are_kept_and_damaged_ones_made_again(images, tmp_path):
    source = ArraySource("images", images, {"kind": "test"})
    before = gather(source, averages(), {(0, 600): BOTH}, tmp_path, ALONE)[0, 600]
    files = sorted(tmp_path.glob("*/*.safetensors"))
    whole = [file.read_bytes() for file in files]
    content = bytearray(whole[1])
    content[-100] ^= 1
    files[1].write_bytes(content)
    files[2].write_bytes(b"")
    watched = Watched("images", images, {"kind": "test"})
    with pytest.warns(UserWarning, match="is damaged; it will be made again") as caught:
        again = gather(watched, averages(), {(0, 600): BOTH}, tmp_path, ALONE)[0, 600]
    assert [str(files[index]) in str(warning.message) for index, warning in enumerate(caught, 1)] == [True, True]
    assert watched.seen == list(range(256, 600))
    assert again.sha256 == before.sha256
    assert again.rows["pool"].tobytes() == before.rows["pool"].tobytes()
    assert again.moments["pool"].scatter.tobytes() == before.moments["pool"].scatter.tobytes()
    assert shards.read(files[1]).streams["pool"].tobytes() == before.rows["pool"][256:512].tobytes()


@pytest.fixture
def reads(monkeypatch):
    """How often each shard file has been read."""
    counts = collections.Counter()

    def read(path, streams):
        if path.is_file():
            counts[path] += 1
        return shards.read(path, streams)

    monkeypatch.setattr(statistics, "read", read)
    return counts


def test_what_was_just_made_is_not_read_back_and_what_is_there_is_read_once(images, tmp_path, reads):
    source = ArraySource("images", images, {"kind": "test"})
    made = gather(source, averages(), {(0, 600): BOTH}, tmp_path, ALONE)[0, 600]
    assert not reads
    read = gather(source, averages(), {(0, 600): BOTH}, tmp_path, ALONE)[0, 600]
    assert sorted(reads.values()) == [1, 1, 1]
    assert (read.sha256, read.duplicates) == (made.sha256, made.duplicates)
    assert read.rows["pool"].tobytes() == made.rows["pool"].tobytes()
    assert read.moments["spatial"].scatter.tobytes() == made.moments["spatial"].scatter.tobytes()


@pytest.mark.parametrize("capacity", [0, 1 << 30])
def test_the_first_of_several_processes_reads_only_what_others_made_or_memory_did_not_hold(
    images, tmp_path, reads, monkeypatch, capacity
):
    monkeypatch.setattr(statistics, "KEPT_BYTES", capacity)
    source = ArraySource("images", images, {"kind": "test"})
    gather(source, averages(), {(0, 600): BOTH}, tmp_path, Ranks(1, 2, torch.device("cpu")))
    assert [file.name for file in tmp_path.glob("*/*.safetensors")] == ["00000256-00000512.safetensors"]
    gather(source, averages(), {(0, 600): BOTH}, tmp_path, Ranks(0, 2, torch.device("cpu")))
    assert sorted(reads.values()) == ([1] if capacity else [1, 1, 1])


def test_sets_of_several_sizes_share_their_shards_and_draw_every_item_once(images, tmp_path, reads):
    sizes = [(0, 300), (0, 600), (0, 290)]
    alone = [
        gather(ArraySource("images", images, {"kind": "test"}), averages(), {size: BOTH}, tmp_path / str(size), ALONE)
        for size in sizes
    ]
    reads.clear()
    watched = Watched("images", images, {"kind": "test"})
    together = gather(watched, averages(), dict.fromkeys(sizes, BOTH), tmp_path / "together", ALONE)
    assert watched.seen == list(range(600))
    assert not reads
    again = gather(watched, averages(), dict.fromkeys(sizes, BOTH), tmp_path / "together", ALONE)
    assert set(reads.values()) == {1}
    assert len(watched.seen) == 600
    for size, expected in zip(sizes, alone, strict=True):
        for found in (together[size], again[size]):
            assert found.sha256 == expected[size].sha256
            assert found.rows["pool"].tobytes() == expected[size].rows["pool"].tobytes()
            assert found.moments["pool"].scatter.tobytes() == expected[size].moments["pool"].scatter.tobytes()


def test_disjoint_sets_come_one_by_one(images, tmp_path, reads):
    """Repeats of a metric never have their rows in memory together."""
    source = ArraySource("images", images, {"kind": "test"})
    sets = dict.fromkeys([(0, 200), (200, 400), (400, 600)], BOTH)
    whole = gather(source, averages(), sets, tmp_path, ALONE)
    for span, found in gather_each(source, averages(), sets, tmp_path, ALONE):
        assert sum(reads.values()) == {(0, 200): 1, (200, 400): 3, (400, 600): 5}[span]
        assert found.rows["pool"].tobytes() == whole[span].rows["pool"].tobytes()


def test_moments_alone_keep_no_rows_however_large_the_set(images, tmp_path):
    """A set of a million images would not fit, were anything but one shard and one block of rows held."""
    source = ArraySource("images", np.tile(images, (10, 1, 1, 1)), {"kind": "test"})
    needs = {(0, 6000): Needs(moments=frozenset(["pool"]))}
    gather(source, averages(), needs, tmp_path, ALONE)
    held = weakref.WeakSet()
    whole = shards.Shard

    class Counted(whole):
        most = 0

        def __init__(self, *arguments):
            super().__init__(*arguments)
            held.add(self)
            Counted.most = max(Counted.most, len(held))

        __hash__ = object.__hash__

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "Shard", Counted)
        found = gather(source, averages(), needs, tmp_path, ALONE)[0, 6000]
    assert found.rows == {}
    assert 1 <= Counted.most <= 2


def test_features_of_other_weights_or_other_pixels_are_never_mixed(images, tmp_path):
    source = ArraySource("images", images[:10], {"kind": "test"})
    other = ArraySource("images", images[:10], {"kind": "other"})
    places = {
        ShardFolder(s, e, tmp_path, ALONE).path
        for s in (source, other)
        for e in (averages(), averages(weights_sha256="1" * 64), averages(batch=32))
    }
    assert len(places) == 6


def test_features_that_are_not_finite_are_refused_and_nothing_is_written(images, tmp_path):
    source = ArraySource("images", images, {"kind": "test"})
    with pytest.raises(ValueError, match="the pool features of item 3 of images are not finite"):
        gather(source, averages(poison=3), {(0, 600): BOTH}, tmp_path, ALONE)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_duplicates_are_counted(images, tmp_path):
    images[100:150] = images[7]
    source = ArraySource("images", images, {"kind": "test"})
    assert gather(source, averages(), {(0, 600): Needs()}, tmp_path, ALONE)[0, 600].duplicates == 50


# References


def test_a_built_reference_is_read_back_as_adms_evaluator_reads_it(images, tmp_path):
    source = ArraySource("images", images, {"kind": "test"})
    extractor = averages()
    found = gather(source, extractor, {(0, 600): BOTH}, tmp_path / "w", ALONE)[0, 600]
    out = tmp_path / "ref.npz"
    digest = references.write(source, extractor, found, out)
    with np.load(out) as file:
        rows = found.rows["pool"].astype(np.float64)
        np.testing.assert_allclose(file["mu"], rows.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(file["sigma"], np.cov(rows, rowvar=False), rtol=1e-9, atol=1e-15)
        assert file["mu_s"].shape == (2,)
        assert file["sigma_s"].shape == (2, 2)
        np.testing.assert_array_equal(file["arr_0"], images)
    assert json.loads((tmp_path / "ref.npz.json").read_text())["sha256"] == digest
    recipes = parse(["fid100", "sfid100", "pr100"])
    direct = references.of_source(source, extractor, BOTH, tmp_path / "w", ALONE)
    stored = references.open_reference(str(out), recipes, extractor, tmp_path / "w", ALONE)
    assert (stored.sha256, stored.count, stored.images, stored.side) == (digest, 600, 600, (4, 4))
    for name in ("pool", "spatial"):
        np.testing.assert_array_equal(stored.gaussians[name].covariance, direct.gaussians[name].covariance)
    np.testing.assert_array_equal(stored.rows["pool"], direct.rows["pool"])


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
    assert fine.rows == {}


# Evaluation and its error bars


def test_a_recipe_gives_the_distance_of_its_stream(images, tmp_path):
    extractor = averages()
    source = ArraySource("images", images, {"kind": "test"})
    reference = references.of_source(source, extractor, BOTH, tmp_path, ALONE)
    recipes = parse(["fid300", "sfid300", "pr300"])
    needs = Needs.of_samples(recipes, Settings())
    samples = gather(source, extractor, {(0, 300): needs}, tmp_path, ALONE)[0, 300]

    def results(recipe, **settings):
        compared = {"recipe": recipe, "samples": samples, "reference": reference}
        return results_of(Comparison(settings=Settings(**settings), **compared))

    for recipe in recipes[:2]:
        (result,) = results(recipe, bootstrap=5)
        expected = frechet_distance(
            stream([samples.rows[recipe.stream]]).gaussian(), reference.gaussians[recipe.stream]
        ).value
        assert result.value == expected
        assert result.error.standard_error > 0
    precision, recall = results(recipes[2])
    assert (precision.quantity, precision.value) == ("precision", 1.0)  # the samples are half of the reference
    assert (recall.reference, recall.samples) == (600, 300)


def test_a_large_reference_keeps_the_rows_of_its_subsets_alone(images, tmp_path):
    small, large = references.subset(600, 100), references.subset(600, 200)
    chosen = np.union1d(small, large)
    source = ArraySource("images", images, {"kind": "test"})
    wanted = replace(BOTH, sizes=frozenset({100, 200}))
    reference = references.of_source(source, averages(), wanted, tmp_path, ALONE)
    whole = gather(source, averages(), {(0, 600): BOTH}, tmp_path, ALONE)[0, 600]
    assert 200 < reference.images == len(chosen) < 300
    np.testing.assert_array_equal(reference.rows["pool"], whole.rows["pool"][chosen])
    for size, those in ((100, small), (200, large)):
        np.testing.assert_array_equal(reference.rows_of("pool", size), whole.rows["pool"][those])
    np.testing.assert_array_equal(reference.gaussians["pool"].mean, whole.moments["pool"].mean)


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


def test_intervals_are_students_by_hand():
    """Quantiles of t at 97.5 %, from a printed table: 2.776 with 4 degrees of freedom, 4.303 with 2."""
    error = errorbars.of_bootstrap(10.0, [1.0, 2.0, 3.0, 4.0, 5.0])
    assert (error.standard_error, error.bias) == (pytest.approx(2.5**0.5), -7)
    assert (error.low, error.high) == pytest.approx((10 - 2.776 * 2.5**0.5, 10 + 2.776 * 2.5**0.5), rel=1e-3)
    error = errorbars.of_repeats([1.0, 2.0, 3.0])
    assert error.standard_error == pytest.approx(3**-0.5)
    assert (error.low, error.high) == pytest.approx((2 - 4.303 * 3**-0.5, 2 + 4.303 * 3**-0.5), rel=1e-3)


def test_repeats_of_one_set_of_samples_keep_the_error_of_the_samples():
    """Other cuts of the reference say nothing of what other samples would give."""
    own = errorbars.of_bootstrap(10.0, [9.0, 10.0, 11.0])
    runs = [[Result("fvd8_16f", "fvd", value, "lower", own, 8, 8)] for value in (10.0, 10.2, 10.4)]
    (same,), (disjoint,) = combine(runs, same_samples=True), combine(runs)
    assert (same.value, disjoint.value) == (pytest.approx(10.2), pytest.approx(10.2))
    assert same.error.standard_error == own.standard_error
    assert (same.error.low, same.error.high) == pytest.approx((own.low + 0.2, own.high + 0.2))
    assert same.details["sd"] == pytest.approx(0.2)
    assert disjoint.error.standard_error == pytest.approx(0.2 / 3**0.5)


def test_the_error_of_a_kernel_distance_is_the_spread_over_fresh_samples(generator):
    def draw(shift):
        return generator.standard_normal((600, 4)) + shift

    fresh, errors = [], []
    for _ in range(40):
        found = kernel_distances(samples=draw(0.3), reference=draw(0), subsets=40, size=200)
        fresh.append(np.mean(found))
        errors.append(errorbars.of_subsets(found, 200, 600).standard_error)
    assert np.mean(errors) == pytest.approx(np.std(fresh), rel=0.35)
    assert errorbars.of_subsets(found, 200, 200) is None, "all subsets are the same"


def test_the_error_of_a_share_is_binomial():
    assert errorbars.of_share(0.8, 400).standard_error == pytest.approx(0.02)
