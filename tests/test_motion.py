"""Metrics of moving digits: motion in closed form, a network that knows them, and generators that cheat."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file
from scipy import stats

from harness import eval as command
from harness.core.distributed import Ranks
from harness.data.digits import Digits
from harness.data.moving_digits import MovingDigits
from harness.metrics import evaluate, recipes
from harness.metrics.distances import motion
from harness.metrics.distances.motion import lengths, turns, wasserstein
from harness.metrics.distances.trajectory import continuing
from harness.metrics.features import moving_digits_network
from harness.metrics.features.digits_in_motion_network import centres
from harness.metrics.features.extractor import open_extractor
from harness.metrics.features.moving_digits import MOVING_DIGITS
from harness.metrics.features.moving_digits_network import velocity_classes
from harness.metrics.features.weights import PACKAGED
from harness.metrics.settings import Extraction, Settings


@pytest.fixture(scope="module")
def extractor():
    """Of the network that comes with the package."""
    return open_extractor(MOVING_DIGITS, Extraction(offline=True), Ranks(0, 1, torch.device("cpu")))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def score(tmp_path, work):
    """The command on clips (N, T, H, W) with their labels; gives the records by quantity."""

    def call(clips, labels, *metrics):
        known = {} if labels is None else {"arr_1": labels}
        np.savez(tmp_path / "s.npz", arr_0=np.repeat(clips[..., None], 3, axis=-1), **known)
        records = tmp_path / "records.jsonl"
        records.unlink(missing_ok=True)
        where = ["--work-dir", work, "--records", records, "--offline"]
        arguments = ["--samples", tmp_path / "s.npz", "--metric", *metrics, *where, "--bootstrap", 4]
        assert command.main([str(argument) for argument in (*arguments, "--max-duplicates", 1)]) == 0
        return {one["quantity"]: one for one in map(json.loads, records.read_text().splitlines())}

    return call


@pytest.fixture(scope="module")
def real():
    """Clips of scans that the network has not been trained on, and their labels."""
    data = MovingDigits(part="held-out")
    return data.pixels(range(300)), data.labels(range(300)).numpy()


# Motion, without a network


def test_the_centre_of_a_dot_is_where_it_is_and_noise_below_the_threshold_changes_nothing():
    clips = torch.zeros(1, 3, 9, 11, 1, dtype=torch.uint8)
    for frame, (row, column) in enumerate([(2, 3), (4, 4), (8, 10)]):
        clips[0, frame, row, column] = 255
    noisy = clips + torch.randint(0, 60, clips.shape, dtype=torch.uint8) * (clips == 0)
    for each in (clips, noisy):
        assert centres(each)[0].tolist() == [[2, 3], [4, 4], [8, 10]]
    assert centres(clips * 0)[0, 0].tolist() == [4, 5]  # nothing there: the middle


def test_centres_step_exactly_as_the_digits_do():
    data = MovingDigits()
    clips = torch.from_numpy(data.pixels(range(50)))[..., None]
    steps = centres(clips).diff(dim=1).numpy()
    corners = np.stack([data.corners(index) for index in range(50)])
    assert np.allclose(steps, np.diff(corners, axis=1), atol=1e-9)


def test_turns_are_twice_the_speed_at_a_wall_and_nothing_elsewhere():
    steps = np.array([[[1, 2], [1, 2], [1, -2], [-1, -2]]])
    assert turns(steps).tolist() == [[0, 4, 2]]


def test_moving_is_the_range_of_the_reference_to_half_a_pixel():
    reference = np.array([[[0, 1.0], [0, 2.0]]])
    samples = np.array([[[0, 0.4], [0, 0.6], [0, 2.4], [0, 2.6], [0, 0]]])
    assert motion.moving(samples, reference).tolist() == [[False, True, True, False, False]]


def test_frames_that_know_nothing_of_each_other_move_by_chance_and_seldom_continue():
    """Of two places that digits stand at by chance, most are a step apart; of three, few lie on one path."""
    data = MovingDigits(12, part="held-out")
    clips = torch.from_numpy(data.pixels(range(300)))[..., None]
    where = centres(clips).numpy()
    generator = np.random.default_rng(0)
    apart = where[np.stack([generator.permutation(300) for _ in range(8)], axis=1), np.arange(8)]
    shares = [motion.moving(np.diff(of, axis=1), np.diff(where, axis=1)).mean() for of in (where, apart)]
    assert (shares[0], 0.6 < shares[1] < 0.75) == (1, True)
    assert (continuing(where, where).mean(), continuing(apart, where).mean() < 0.15) == (1, True)
    assert not continuing(where[:, [0] * 8], where).any()  # frozen


def test_wasserstein_is_scipy_s():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(40, 3)), generator.integers(0, 4, 77)
    assert wasserstein(a, b) == pytest.approx(stats.wasserstein_distance(a.ravel(), b), rel=1e-12)
    assert wasserstein(a, a) == 0


# The network


def test_velocities_have_nine_classes():
    corners = np.array([[[4, 4], [4 + row, 4 + column]] for row in (-4, 0, 4) for column in (-4, 0, 4)])
    assert velocity_classes(corners).flatten().tolist() == list(range(9))


def test_the_network_recognises_digits_and_velocities_that_it_has_not_seen(extractor, real):
    clips, labels = real
    streams = extractor.extract(torch.from_numpy(clips[:200, ..., None]))
    logits = streams["logits"].view(200, 8, 10)
    assert (logits.argmax(-1) == torch.from_numpy(labels[:200, None])).float().mean() >= 0.95
    assert {name: stream.shape for name, stream in streams.items()} == {
        "pool": (200, 96),
        "logits": (200, 80),
        "steps": (200, 14),
        "centres": (200, 16),
    }
    assert torch.linalg.matrix_rank(torch.cov(streams["pool"].double().T)) == 96
    backwards = extractor.extract(torch.from_numpy(clips[:200, ::-1, ..., None].copy()))
    assert torch.allclose(backwards["logits"].view(200, 8, 10), logits.flip(1), atol=1e-4)  # each frame alone
    assert torch.allclose(backwards["pool"][:, :64], streams["pool"][:, :64], atol=1e-4)
    assert (backwards["pool"][:, 64:] - streams["pool"][:, 64:]).abs().mean() > 0.1  # but motion has a direction


def shipped():
    network = moving_digits_network.network()
    network.load_state_dict(load_file(PACKAGED / MOVING_DIGITS.weights.file))
    return network


@pytest.mark.slow
@pytest.mark.parametrize("make", [shipped, moving_digits_network.train])
def test_velocities_are_read_off_the_motion_by_the_shipped_network_and_by_one_trained_again(make):
    network = make()
    data = MovingDigits(part="held-out")
    clips = torch.from_numpy(data.pixels(range(100))).float() / 255
    truth = velocity_classes(np.stack([data.corners(index) for index in range(100)]))
    with torch.inference_mode():
        guessed = network.motion(clips.unsqueeze(1))[1].argmax(-1)  # (B, T-2, 2, 1)
    assert (guessed[:, :, 0] == truth[:, :-1]).float().mean() >= 0.95
    assert (guessed[:, :, 1] == truth[:, 1:]).float().mean() >= 0.95
    with torch.inference_mode():
        seen = network(clips)[1].argmax(-1)
    assert (seen == data.labels(range(100))[:, None]).float().mean() >= 0.95


def test_the_shipped_network_is_not_trained_again(monkeypatch):
    monkeypatch.setattr(moving_digits_network, "train", lambda: pytest.fail("trained again"))
    here = Ranks(0, 1, torch.device("cpu"))
    assert open_extractor(MOVING_DIGITS, Extraction(offline=True), here).identity["published_weights"] is False


# What the metrics say of real clips, and of generators that cheat

SAMPLES = Path(__file__).resolve().parents[1] / "results" / "samples" / "clips"
METRICS = ["fvd300@moving-digits", "motion300@moving-digits", "accuracy300@moving-digits"]
MODELS = ["DiT-U-4-video-IMG", "DiM-U-4-video-IMG", "DiM-U-4-matched-video-IMG"]
"""Whose samples are committed."""


@pytest.mark.slow
def test_real_clips_score_well_and_frozen_ones_and_collapsed_ones_far_worse(score, real):
    clips, labels = real
    good = score(clips, labels, *METRICS)
    assert good["accuracy"]["value"] >= 0.95
    assert good["moving"]["value"] == 1
    assert good["step_distance"]["value"] < 0.1
    assert good["step_distance"]["unit"] == "px"
    workload = good["fvd"]["workload"]
    assert (workload["reference"], workload["n_reference"], workload["n_samples"]) == ("moving-digits", 1500, 300)
    parts = good["accuracy"]["parts"]
    assert parts["low"] < good["accuracy"]["value"] < parts["high"]
    assert parts["all_frames"] <= good["accuracy"]["value"]

    frozen = score(np.repeat(clips[:, :1], 8, axis=1), labels, *METRICS)
    assert frozen["moving"]["value"] == 0
    assert frozen["step_distance"]["value"] == pytest.approx(frozen["step_distance"]["parts"]["mean_of_reference"])
    assert frozen["accuracy"]["value"] >= 0.95  # the digits are there: only motion gives it away
    assert frozen["fvd"]["value"] > 10 * good["fvd"]["value"]

    collapsed = score(np.repeat(clips[:1], 300, axis=0), np.repeat(labels[:1], 300), *METRICS)
    assert collapsed["fvd"]["value"] > 10 * good["fvd"]["value"]

    jumping = score(clips[:, np.random.default_rng(0).permutation(8)], labels, *METRICS)  # frames out of order
    assert jumping["turn_distance"]["value"] > 1
    assert jumping["fvd"]["value"] > 1.5 * good["fvd"]["value"]


def committed(model: str) -> tuple[torch.Tensor, torch.Tensor]:
    folder = SAMPLES / model
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["model"].startswith(model.removesuffix("-IMG").replace("-4", "/4"))
    with np.load(folder / "samples.npz") as archive:
        clips, labels = torch.from_numpy(archive["arr_0"]), torch.from_numpy(archive["arr_1"])
    assert (clips.shape[1:4], labels.bincount(minlength=10).tolist()) == ((8, 12, 12), [6] * 10)
    assert len(clips.flatten(1).unique(dim=0)) == len(clips), "no two samples are the same"
    return clips, labels


@pytest.mark.parametrize("model", MODELS)
def test_the_committed_clips_are_of_the_requested_digit(extractor, model):
    clips, labels = committed(model)
    seen = extractor.extract(clips)["logits"].view(-1, 8, 10).argmax(-1)
    assert (seen == labels[:, None]).float().mean() >= 0.8


@pytest.mark.parametrize("model", MODELS)
def test_the_committed_clips_move_as_real_ones_do(extractor, model):
    clips, _ = committed(model)
    streams = extractor.extract(clips)
    data = MovingDigits(12, part="held-out")
    real = np.diff([data.corners(index) for index in range(300)], axis=1)
    steps = streams["steps"].view(-1, 7, 2).numpy()
    assert motion.moving(steps, real).mean() >= 0.7
    assert lengths(steps).mean() == pytest.approx(lengths(real).mean(), rel=1 / 3)
    frozen = motion.moving(np.zeros_like(steps), real)
    assert not frozen.any()


def test_real_clips_in_the_place_of_samples_come_in_the_size_of_the_reference(tmp_path):
    extraction = Extraction(work_dir=tmp_path, offline=True, ref_resolution=12)
    found = evaluate(
        "moving-digits:tuning", "moving-digits", ["trajectory100@moving-digits", "motion100@moving-digits"],
        settings=Settings(bootstrap=0), extraction=extraction,
    )  # fmt: skip
    assert {record.workload["resolution"] for record in found} == {12}
    values = {record.quantity: record.value for record in found}
    assert (values["continuing"], values["moving"]) == (1, 1)


@pytest.mark.parametrize("model", MODELS)
def test_steps_of_the_committed_clips_go_on_as_those_before_far_more_often_than_by_chance(model):
    clips, _ = committed(model)
    data = MovingDigits(12, part="held-out")
    real = centres(torch.from_numpy(data.pixels(range(300)))[..., None]).numpy()
    where = centres(clips).numpy()
    generator = np.random.default_rng(0)
    apart = where[np.stack([generator.permutation(len(where)) for _ in range(8)], axis=1), np.arange(8)]
    assert continuing(apart, real).mean() < 0.15
    assert continuing(where, real).mean() > 0.5


def test_shuffled_labels_are_right_by_chance_alone(score, real):
    clips, labels = real
    found = score(clips, np.random.default_rng(0).permutation(labels), "accuracy300@moving-digits")
    assert found["accuracy"]["value"] == pytest.approx(0.1, abs=0.05)


def test_image_digits_have_an_accuracy_too_and_folders_carry_their_classes(tmp_path):
    data, (_, held_out) = Digits(), Digits.split()
    (tmp_path / "s").mkdir()
    for number, index in enumerate(held_out[:100]):
        text = PngInfo()
        text.add_text("class", str(int(data.labels[index])))
        Image.fromarray(data.pixels[index, 0].numpy()).save(tmp_path / "s" / f"{number:06d}.png", pnginfo=text)
    where = ["--work-dir", tmp_path / "work", "--records", tmp_path / "r.jsonl"]
    arguments = ["--samples", tmp_path / "s", "--metric", "accuracy100@digits", *where]
    assert command.main([str(argument) for argument in arguments]) == 0
    (record,) = map(json.loads, (tmp_path / "r.jsonl").read_text().splitlines())
    assert record["value"] >= 0.95
    assert record["workload"]["reference"] is None


def test_what_cannot_be_scored_is_refused_by_name(score, real, capsys):
    clips, labels = real
    for changed, classes, metric, complaint in (
        (clips, None, "accuracy300@moving-digits", "needs the classes that samples were drawn for"),
        (clips[:, :2], labels, "fvd300@moving-digits", "at least 3 frames"),
        (clips, labels, "fvd301@moving-digits", "needs 301 samples"),
        (clips, labels, "fd300@digits", "scores images, and "),
    ):
        with pytest.raises(SystemExit) as exit_:
            score(changed, classes, metric)
        assert exit_.value.code == 2
        message = capsys.readouterr().err
        assert complaint in message
        assert message.strip().count("\n") == 0


def test_names_say_the_features():
    fvd, accuracy, moving = recipes.parse(["fvd1k@moving-digits", "accuracy1k@digits", "motion1k@moving-digits"])
    assert (fvd.distance.name, fvd.space.name, fvd.frames, fvd.of_clips) == ("fvd", "moving-digits", 0, True)
    assert (accuracy.stream, accuracy.needs_reference, accuracy.of_clips) == ("logits", False, False)
    assert (moving.stream, moving.needs_images, moving.of_clips) == ("steps", True, True)
    for name, complaint in (
        ("accuracy1k", "accuracy is defined on digits and moving-digits"),
        ("motion1k@digits", "motion is defined on moving-digits"),
        ("fvd1k_16f@moving-digits", "and no others do"),
    ):
        with pytest.raises(ValueError, match=complaint):
            recipes.parse([name])
