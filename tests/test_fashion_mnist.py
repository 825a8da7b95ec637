"""Fashion-MNIST: IDX files by hand, wherever they lie and however they are packed; damage; the real ones if there."""

import gzip
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.data import fashion_mnist
from harness.data.fashion_mnist import FILES, FashionMNIST
from harness.data.registry import open_dataset
from harness.data.sources import open_images

COUNTS, HELD_BACK = {"train": 7, "test": 2}, 3


def real_folder() -> Path:
    """Where the real files are; the test that needs them is skipped where they are not."""
    try:
        return FashionMNIST.folder()
    except ValueError as error:
        pytest.skip(str(error))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Four small files of random bytes, gzipped, in place of the published ones; PLACES has their folder alone."""
    rng, known = np.random.default_rng(0), {}
    place = tmp_path / "files"
    place.mkdir()
    for part, count in COUNTS.items():
        files = []
        for file, values in zip(FILES[part], (256, 10), strict=True):
            small = replace(file, shape=(count, *file.shape[1:]))
            content = small.header + rng.integers(values, size=small.shape, dtype=np.uint8).tobytes()
            (place / f"{file.name}.gz").write_bytes(gzip.compress(content))
            files.append(replace(small, sha256=hashlib.sha256(content).hexdigest()))
        known[part] = tuple(files)
    monkeypatch.setattr(fashion_mnist, "FILES", known)
    monkeypatch.setattr(fashion_mnist, "HELD_BACK", HELD_BACK)
    monkeypatch.setattr(fashion_mnist, "PLACES", (str(place),))
    return place


def raw(folder: Path, name: str, offset: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress((folder / f"{name}.gz").read_bytes()), np.uint8, offset=offset)


def test_an_idx_header_is_the_formats():
    """http://yann.lecun.com/exdb/mnist: magic 0x00000803 and 0x00000801, sizes big-endian."""
    images, labels = FILES["train"]
    assert images.header.hex() == "00000803" + "0000ea60" + "0000001c" + "0000001c"
    assert labels.header.hex() == "00000801" + "0000ea60"


def test_photographs_lie_in_the_middle_of_a_black_square_and_the_parts_do_not_overlap(folder):
    images = raw(folder, "train-images-idx3-ubyte", 16).reshape(7, 28, 28)
    labels = raw(folder, "train-labels-idx1-ubyte", 8)
    train, validation, test = (FashionMNIST(32, part) for part in FashionMNIST.parts)
    assert [len(data) for data in (train, validation, test)] == [4, 3, 2]
    assert np.array_equal(train.pixels[:, 0, 2:30, 2:30], images[:4])
    assert np.array_equal(validation.pixels[:, 0, 2:30, 2:30], images[4:])
    assert (train.labels.tolist(), validation.labels.tolist()) == (labels[:4].tolist(), labels[4:].tolist())
    edges = train.pixels.clone()
    edges[..., 2:30, 2:30] = 0
    assert not edges.any()
    x, y = train.load([3, 0], [False, True])
    assert np.allclose((x[1, 0].numpy() + 1) * 127.5, np.pad(images[0], 2)[:, ::-1], atol=1e-4)
    assert y.tolist() == [labels[3], labels[0]]
    assert FashionMNIST(28).pixels.shape == (4, 1, 28, 28)


def test_the_files_are_found_by_name_by_folder_by_torchvisions_root_and_unpacked(folder, tmp_path):
    known = FashionMNIST(32).pixels
    root = tmp_path / "root" / "FashionMNIST" / "raw"
    root.mkdir(parents=True)
    for path in folder.glob("*.gz"):
        (root / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    for where in ("fashion-mnist", str(folder), str(tmp_path / "root")):
        assert np.array_equal(open_dataset(where, 32).pixels, known), where
        test, validation = open_images(where), open_images(f"{where}:validation")
        assert (test.count, validation.count) == (COUNTS["test"], HELD_BACK)
        assert np.array_equal(test.read(0, 2), FashionMNIST.reference())
        assert np.array_equal(validation.read(0, 3), FashionMNIST.reference(32, "validation"))


def _truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _flipped(content: bytes) -> bytes:
    plain = bytearray(gzip.decompress(content))
    plain[100] ^= 1
    return gzip.compress(bytes(plain))


def _longer(content: bytes) -> bytes:
    return gzip.compress(gzip.decompress(content) + b"0")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_truncated, r"train-images-idx3-ubyte.gz is damaged .*apt-get install dataset-fashion-mnist"),
        (_flipped, "train-images-idx3-ubyte.gz is not Fashion-MNIST's: its content has sha256"),
        (_longer, "train-images-idx3-ubyte.gz is not Fashion-MNIST's: its content has sha256"),
    ],
)
def test_a_file_that_is_damaged_or_another_is_named(folder, damage, complaint):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=complaint):
        open_dataset("fashion-mnist", 32)


def test_where_to_get_absent_files_is_said_in_one_line(folder):
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match=r"has no train-labels-idx1-ubyte.gz; get Fashion-MNIST by"):
        open_dataset(str(folder), 32)
    (folder / "train-images-idx3-ubyte.gz").unlink()
    (folder / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(
        ValueError, match=re.escape(f"no fashion-mnist in {folder}: get Fashion-MNIST by `apt")
    ) as error:
        open_dataset("fashion-mnist", 32)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("what", "complaint"),
    [
        ("fashion-mnist:tests", "no part 'tests'; choose from train, validation, test"),
        ("digits:test", "digits has no part 'test': it is one whole"),
    ],
)
def test_an_unknown_part_is_refused(folder, what, complaint):
    with pytest.raises(ValueError, match=complaint):
        open_images(what)


def test_a_square_that_is_too_small_is_refused(folder):
    with pytest.raises(ValueError, match="needs a resolution of at least 28 pixels, or of 16, 8, not 20"):
        open_dataset("fashion-mnist", 20)


@pytest.mark.parametrize("side", [16, 8])
def test_a_shrunk_photograph_is_the_mean_of_squares_of_the_whole_one(folder, side):
    """As Pillow reduces it, to half a grey value."""
    whole, shrunk = (open_dataset("fashion-mnist", resolution) for resolution in (32, side))
    for index in range(len(whole)):
        expected = Image.fromarray(whole.pixels[index, 0].numpy()).reduce(32 // side)
        assert np.abs(np.asarray(expected, dtype=int) - shrunk.pixels[index, 0].numpy()).max() <= 1
    assert torch.equal(whole.labels, shrunk.labels)


def test_the_real_files_are_those_that_torchvision_knows_by_md5():
    """Debian's files lack the gzip headers' name and time; with those of the publication their md5 is torchvision's."""
    from torchvision.datasets import FashionMNIST as Theirs

    folder = real_folder()
    assert {f"{file.name}.gz": file.md5 for files in FILES.values() for file in files} == dict(Theirs.resources)
    for files in FILES.values():
        for file in files:
            packed = file.find(folder).read_bytes()
            if packed[3] == 0:  # without a name in its header
                if file.name not in PUBLISHED:
                    continue
                time = PUBLISHED[file.name].to_bytes(4, "little")
                packed = packed[:3] + b"\x08" + time + packed[8:10] + file.name.encode() + b"\0" + packed[10:]
            assert hashlib.md5(packed).hexdigest() == file.md5, file.name


PUBLISHED = {
    "train-labels-idx1-ubyte": 1504176606,
    "t10k-images-idx3-ubyte": 1504176627,
    "t10k-labels-idx1-ubyte": 1504176627,
}
"""When published files were packed, in seconds since 1970; of the largest it is not known."""


def test_the_real_photographs_are_as_many_of_each_class():
    folder = real_folder()
    train, validation, test = (FashionMNIST(part=part, where=folder) for part in FashionMNIST.parts)
    assert test.labels.bincount().tolist() == [1000] * 10
    assert (train.labels.bincount() + validation.labels.bincount()).tolist() == [6000] * 10
    assert test.pixels.float().mean().item() == pytest.approx(255 * 0.2868 * 28**2 / 32**2, rel=1e-3)
