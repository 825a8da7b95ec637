"""`harness.metrics.evaluate` from Python: what it takes, how often it reads, what it refuses before any work."""

from __future__ import annotations

import collections
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import random_i3d
from PIL import Image

from harness.core.distributed import Ranks
from harness.core.locks import locked
from harness.data.digits import Digits
from harness.data.sources import ArraySource
from harness.metrics import ClipProtocol, Extraction, Settings, checks, evaluate, parse, shards, statistics
from harness.metrics.evaluation import Evaluation
from harness.metrics.moments import Gaussian

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).resolve().parents[1]
ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def digits():
    """Real digits with noise, (N, 8, 8), and what they are."""
    data, generator = Digits(), np.random.default_rng(0)
    chosen = generator.integers(0, 1797, 520)
    noisy = data.pixels.numpy()[chosen, 0] + generator.normal(0, 40, (520, 8, 8))
    return noisy.clip(0, 255).astype(np.uint8), data.labels.numpy()[chosen]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def score(work):
    def call(samples, metrics, reference=None, work=work, **options):
        extraction = Extraction(work_dir=work, offline=True)
        return evaluate(samples, reference, metrics, extraction=extraction, device="cpu", **options)

    return call


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


# What it takes


def test_an_array_a_file_a_folder_and_a_source_of_the_same_images_score_alike(score, digits, tmp_path):
    images, labels = digits[0][:60], digits[1][:60]
    np.savez(tmp_path / "s.npz", arr_0=images, arr_1=labels)
    (tmp_path / "folder").mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "folder" / f"{index:03d}.png")
    metrics = ["fd60@digits", "pr60@digits", "is60@digits"]
    sources = (images, tmp_path / "s.npz", str(tmp_path / "folder"), ArraySource("mine", images, labels=labels))
    found = [score(source, metrics) for source in sources]
    assert [record.quantity for record in found[0]] == ["fd", "precision", "recall", "inception_score"]
    for records in found[1:]:
        assert [(one.value, one.parts) for one in records] == [(one.value, one.parts) for one in found[0]]
    assert [records[0].workload["source"] for records in found] == ["samples", *map(str, sources[1:3]), "mine"]
    (accuracy,) = score(sources[3], "accuracy60@digits")
    assert accuracy.value == score(str(sources[1]), "accuracy60@digits")[0].value > 0.5


def test_any_reference_that_can_be_read_is_one(score, digits, tmp_path):
    images, others = digits[0][:60], digits[0][100:200]
    np.savez(tmp_path / "r.npz", arr_0=others)
    by_array, by_path, by_source = (
        score(images, ["fd60@digits"], reference)[0]
        for reference in (others, tmp_path / "r.npz", ArraySource("theirs", others))
    )
    assert by_array.value == by_path.value == by_source.value
    assert by_array.value != score(images, ["fd60@digits"])[0].value  # of the data set that the space is of
    assert [one.workload["n_reference"] for one in (by_array, by_path, by_source)] == [100] * 3


def test_a_source_of_ones_own_is_read_by_index_alone(score, digits):
    images = np.repeat(digits[0][:300, ..., None], 3, axis=-1)

    class Drawn:
        name, count, labels, shape = "drawn", None, None, (8, 8, 3)
        identity = {"kind": "drawn", "seed": 5}  # noqa: RUF012 - as of any object
        origin, seed = {"sampling": {"steps": 3}}, 5

        def read(self, start, stop):
            return images[start:stop]

    (record,) = score(Drawn(), "fd300@digits")
    assert record.value == score(images, "fd300@digits")[0].value
    assert (record.seed, record.workload["sampling"], record.workload["source"]) == (5, {"steps": 3}, "drawn")


def test_videos_in_an_array_are_cut_as_those_of_a_file(score, tmp_path):
    generator = np.random.default_rng(0)
    fake, real = (generator.integers(0, top, (8, 24, 8, 8, 3), dtype=np.uint8) for top in (200, 256))
    np.savez(tmp_path / "fake.npz", arr_0=fake)
    np.savez(tmp_path / "real.npz", arr_0=real)
    extraction = Extraction(work_dir=tmp_path / "w", i3d_weights=random_i3d(tmp_path / "i3d.pt"))
    options = {"clips": ClipProtocol(stride_fake=2, split="test"), "settings": Settings(bootstrap=0), "device": "cpu"}
    arrays, files = (
        evaluate(*pair, ["fvd8_10f"], extraction=extraction, **options)[0]
        for pair in ((fake, real), (tmp_path / "fake.npz", tmp_path / "real.npz"))
    )
    assert arrays.value == files.value
    assert (arrays.workload["stride_fake"], arrays.workload["split"]) == (2, "test")


# How often it reads


def test_every_shard_is_read_once_for_all_metrics_and_never_when_it_was_just_made(score, digits, tmp_path, reads):
    metrics = ["fd256@digits", "is256@digits", "pr256@digits"]
    first = score(digits[0], metrics, work=tmp_path)
    assert not reads
    again = score(digits[0], metrics, work=tmp_path)
    assert len(reads) == 1 + 8  # the samples' shard, and those of 1,797 real digits
    assert set(reads.values()) == {1}
    assert [(one.value, one.parts) for one in again] == [(one.value, one.parts) for one in first]


def test_metrics_of_several_counts_read_what_they_share_once(score, digits, tmp_path, reads):
    metrics = ["fd256@digits", "is500@digits", "pr520@digits"]
    together = score(digits[0], metrics, work=tmp_path)
    assert not reads
    apart = [record for metric in metrics for record in score(digits[0], metric, work=tmp_path)]
    assert [(one.value, one.parts) for one in together] == [(one.value, one.parts) for one in apart]
    assert [one.workload["samples_sha256"] for one in together] == [one.workload["samples_sha256"] for one in apart]


class Undrawn:
    """Eight samples that nobody may draw."""

    name, count, labels, identity = "drawn", 8, None, {"kind": "none"}

    def __init__(self, *shape):
        self.shape = shape

    def read(self, start, stop):
        raise AssertionError("what does not fit was not found before the samples were drawn")


def test_what_does_not_fit_is_found_before_any_sample_is_drawn(tmp_path):
    clips = Undrawn(16, 24, 24, 3)
    for number in range(48):
        (tmp_path / "real" / "a").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(tmp_path / "real" / "a" / f"{number:02d}.png")
    where = tmp_path / "i3d.pt"
    options = {"extraction": Extraction(work_dir=tmp_path / "w", i3d_weights=random_i3d(where)), "device": "cpu"}
    with pytest.raises(ValueError, match=r"samples are 24 x 24, the reference .*real is 40 x 30"):
        evaluate(clips, tmp_path / "real", "fvd8_16f", **options)
    images = Undrawn(16, 16, 3)
    with pytest.raises(ValueError, match=r"samples are 16 x 16, the reference reference is 8 x 8"):
        evaluate(images, np.zeros((9, 8, 8, 3), np.uint8), "fd8@digits", extraction=Extraction(work_dir=tmp_path / "w"))


def test_a_reference_is_gathered_once_for_several_sets_of_samples(digits, tmp_path, reads):
    extraction = Extraction(work_dir=tmp_path, offline=True)
    evaluation = Evaluation(["fd100@digits", "pr100@digits"], None, ALONE, extraction=extraction)
    for start in (0, 100, 200):
        evaluation.of(digits[0][start : start + 100])
    assert not reads
    again = Evaluation(["fd100@digits", "pr100@digits"], None, ALONE, extraction=extraction)
    for start in (0, 100, 200):
        again.of(digits[0][start : start + 100])
    assert set(reads.values()) == {1}


def test_a_second_command_waits_for_the_first_and_reads_what_it_made(score, digits, tmp_path):
    score(digits[0], ["fd256@digits"], work=tmp_path / "a")
    made = {file.relative_to(tmp_path / "a"): file for file in (tmp_path / "a").rglob("*.safetensors")}
    (folder,) = {file.parent for file in made if file.name == "00000256-00000512.safetensors"}
    code = """
import sys
from pathlib import Path
import numpy as np
from harness.metrics import Extraction, evaluate
images, work = np.load(sys.argv[1]), Path(sys.argv[2])
print(evaluate(images, None, "fd256@digits", extraction=Extraction(work_dir=work), device="cpu")[0].value)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "images.npy"), str(tmp_path / "b")]
    np.save(tmp_path / "images.npy", digits[0])
    with locked(tmp_path / "b" / folder):
        second = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert "waiting for process" in second.stderr.readline()
        for name, file in made.items():
            (tmp_path / "b" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "b" / name).write_bytes(file.read_bytes())
        times = {name: (tmp_path / "b" / name).stat().st_mtime_ns for name in made}
    out, _ = second.communicate(timeout=120)
    assert float(out) == score(digits[0], ["fd256@digits"], work=tmp_path / "a")[0].value
    assert {name: (tmp_path / "b" / name).stat().st_mtime_ns for name in made} == times


# What it refuses, before any work


@pytest.fixture
def refused(score, tmp_path, monkeypatch):
    """The complaint about a call, after checking that no features were made for it."""
    monkeypatch.setattr(shards.ShardFolder, "make", lambda *_: pytest.fail("features were made"))

    def call(*arguments, **options):
        with pytest.raises(ValueError, match=r".") as refusal:
            score(*arguments, work=tmp_path / "none", **options)
        assert "\n" not in str(refusal.value)
        return str(refusal.value)

    return call


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (np.array([17] * 50), "mine has 17 for sample 0"),
        (np.array([1] * 49 + [-1]), "mine has -1 for sample 49"),
        (np.array([1.0, 2.5] * 25), "mine has 2.5 for sample 1"),
        (np.array([np.nan] * 50), "mine has nan for sample 0"),
        (np.array(["cat"] * 50), "those of mine are of type <U3"),
        (np.array([True] * 50), "those of mine are of type bool"),
    ],
)
def test_labels_that_are_no_classes_of_the_space_are_refused(refused, digits, value, complaint):
    source = ArraySource("mine", digits[0][:50], labels=value)
    found = refused(source, "accuracy50@digits")
    assert found == f"accuracy50@digits needs labels that are whole numbers from 0 to 9; {complaint}"


def test_labels_that_are_not_one_an_item_are_refused(digits, tmp_path):
    with pytest.raises(ValueError, match=r"mine: 50 images but labels of shape \(49,\)"):
        ArraySource("mine", digits[0][:50], labels=digits[1][:49])


def test_samples_without_labels_have_no_accuracy(refused, digits):
    assert "needs the classes that samples were drawn for" in refused(digits[0], "accuracy50@digits")


def test_whole_numbers_are_classes_whatever_their_type(score, digits):
    images, labels = digits[0][:50], digits[1][:50]
    kinds = [ArraySource("mine", images, labels=labels.astype(kind)) for kind in (np.uint8, np.int64, np.float32)]
    assert len({score(source, "accuracy50@digits")[0].value for source in kinds}) == 1


def test_calls_that_do_not_fit_together_are_refused(refused, digits, tmp_path):
    images = digits[0]
    assert "no metric is given" in refused(images, [])
    assert "compares with a reference: give --ref" in refused(images, "fid50")
    assert "the reference is an empty path" in refused(images, "fd50@digits", "")
    assert "the samples is an empty path" in refused("", "fd50@digits")
    assert "--stride-real is of metrics that cut clips" in refused(
        images, "fd50@digits", clips=ClipProtocol(stride_real=2)
    )
    assert "--covariance is of metrics" in refused(images, "fd50@digits", clips=ClipProtocol(covariance="sample"))
    clips = np.full((50, 8, 16, 16, 3), 9, dtype=np.uint8)
    assert "fd50@digits scores images, and reference holds clips" in refused(images, "fd50@digits", clips)
    np.savez(tmp_path / "clips.npz", arr_0=clips)
    assert "clips.npz holds clips" in refused(images, "fd50@digits", tmp_path / "clips.npz")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"bootstrap": 1}, "bootstrap must be 0 or at least 2"),
        ({"bootstrap": -3}, "bootstrap must be at least 0"),
        ({"metric_seed": -1}, "metric_seed must be at least 0"),
        ({"max_duplicates": 1.5}, "max_duplicates must be at most 1"),
        ({"max_duplicates": float("nan")}, "max_duplicates must be a finite number"),
        ({"arithmetic": "bf16"}, "choose from fp32, adm_fp16"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        Settings(**settings)


# Names


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["fd1k@digits", "fd1k@digits"], "metric 'fd1k@digits' is given twice"),
        (["fid1000", "fid1k"], "metric 'fid1k' is given twice, first as fid1000"),
        (["is1k", "is1k@inception"], "metric 'is1k@inception' is given twice, first as is1k"),
        (["adm1k", "adm1k"], "metric 'adm1k' is given twice"),
        (["fid٥٠k"], "unknown metric 'fid٥٠k'"),
        (["fvd٨_16f"], "unknown metric"),
        (["fvd8_1٦f"], "unknown metric"),
        (["fd1k@digıts"], "unknown metric"),
        (["fvd8_0f"], "state frames, as fvd2048_16f"),
        (["fvd8_16f_subsample0f"], "cannot be subsampled by 0"),
    ],
)
def test_names_of_metrics_are_exact_and_given_once(names, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse(names)


def test_what_metrics_there_are_can_be_read_without_torch():
    code = """
import json, sys
from harness.metrics import DISTANCES, SPACES, parse
names = [recipe.name for recipe in parse(["adm50k", "fd1k@digits"])]
print(json.dumps([names, list(DISTANCES), list(SPACES), [m for m in ("torch", "pandas", "scipy") if m in sys.modules]]))
"""
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names, distances, spaces, heavy = json.loads(out)
    assert names == ["fid50k", "sfid50k", "is50k", "pr50k", "fd1k@digits"]
    assert {"fid", "is", "motion"} <= set(distances)
    assert {"inception", "digits"} <= set(spaces)
    assert heavy == []


def test_a_resolution_of_a_reference_that_is_taken_as_it_is_is_refused(digits, tmp_path):
    np.savez(tmp_path / "reference.npz", arr_0=digits[0][:64])
    extraction = Extraction(work_dir=tmp_path / "work", offline=True, ref_resolution=16)
    with pytest.raises(ValueError, match=r"--ref-resolution crops .*reference\.npz is taken as it is"):
        evaluate(digits[0], tmp_path / "reference.npz", ["fd64@digits"], extraction=extraction, device="cpu")


def test_stored_moments_of_another_width_than_inceptions_are_refused():
    fid, sfid, fd = (parse([name])[0] for name in ("fid5k", "sfid5k", "fd5k@digits"))
    for recipe, stream, width in ((fid, "pool", 2048), (sfid, "spatial", 2023), (fd, "pool", 64)):
        checks.widths(recipe, "adm.npz", {stream: Gaussian(np.zeros(width), np.eye(width), None)})
    with pytest.raises(ValueError, match=r"pytorch-fid.npz holds moments of 768 features, and fid5k compares 2,048"):
        checks.widths(fid, "pytorch-fid.npz", {"pool": Gaussian(np.zeros(768), np.eye(768), None)})


def test_a_reference_may_be_any_object_with_the_properties_of_a_source(score, digits):
    @dataclasses.dataclass
    class Mine:  # it has no hash
        array: np.ndarray
        name: str = "mine"
        labels: None = None

        @property
        def count(self):
            return len(self.array)

        @property
        def shape(self):
            return self.array.shape[1:]

        @property
        def identity(self):
            return {"kind": "mine"}

        def read(self, start, stop):
            return self.array[start:stop]

    metrics = ["fd50@digits", "pr50@digits"]
    pixels = np.repeat(digits[0][:150, :, :, None], 3, axis=3)
    own, array = (score(pixels[:50], metrics, reference) for reference in (Mine(pixels[50:]), pixels[50:]))
    assert [one.value for one in own] == [one.value for one in array]
