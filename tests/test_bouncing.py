"""Digits at several speeds: no frame follows from the one before it, and what copies frames is found out."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from harness.core.distributed import Ranks
from harness.data import digits_in_motion
from harness.data.bouncing_digits import SPEEDS, BouncingDigits
from harness.data.digits import SIDE, Digits
from harness.data.digits_in_motion import paths
from harness.data.sources import ArraySource, open_images
from harness.metrics import evaluate
from harness.metrics.distances.trajectory import continuing, speeds, walls
from harness.metrics.features import bouncing_digits_network
from harness.metrics.features.bouncing_digits import BOUNCING_DIGITS
from harness.metrics.features.bouncing_digits_network import velocity_classes
from harness.metrics.features.digits_in_motion_network import centres
from harness.metrics.features.extractor import open_extractor
from harness.metrics.features.weights import PACKAGED
from harness.metrics.settings import Extraction, Settings

REAL = np.array([[[0, 5], [3, 3], [6, 1], [3, 3], [0, 5]]])  # in 0..8 at 3 and 2 pixels a frame, by hand


def where(clips):
    """The ink's centres of clips (N, T, H, W)."""
    return centres(torch.from_numpy(clips)[..., None]).numpy()


@pytest.fixture(scope="module", autouse=True)
def _few():
    """References of 400 clips, for speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits_in_motion, "REFERENCE_CLIPS", 400)
        yield


@pytest.fixture(scope="module")
def real():
    """Centres of the reference."""
    return where(BouncingDigits.reference()[..., 0])


@pytest.fixture(scope="module")
def held_out():
    """Clips of other scans."""
    return BouncingDigits(part="held-out").pixels(range(300))


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Values by quantity of clips (N, T, H, W), and of their labels."""
    extraction = Extraction(work_dir=tmp_path_factory.mktemp("work"), offline=True)

    def call(clips, *metrics, labels=None):
        source = ArraySource("clips", clips[..., None], labels=labels)
        settings = Settings(bootstrap=0, max_duplicates=1.0)
        return {one.quantity: one for one in evaluate(source, None, metrics, settings=settings, extraction=extraction)}

    return call


# The data


def test_each_axis_keeps_its_speed_and_turns_round_before_it_would_leave_the_square():
    assert np.array_equal(paths(np.array([0, 5]), np.array([3, -2]), 5, span=8), REAL[0])
    data = BouncingDigits()
    corners = np.stack([data.corners(index) for index in range(200)])
    assert (corners.min(), corners.max()) == (0, 8)
    steps = np.abs(np.diff(corners, axis=1))
    assert (steps == steps[:, :1]).all()
    assert np.unique(steps, return_counts=True)[0].tolist() == list(SPEEDS)
    ahead = corners[:, 1:-1] + np.diff(corners, axis=1)[:, :-1]
    turned = corners[:, 2:] != ahead
    assert np.array_equal(turned, (ahead < 0) | (ahead > 8))
    assert turned.any(axis=(0, 1)).all()


@pytest.mark.parametrize("resolution", [16, 24])
def test_the_next_frame_follows_from_two_frames_and_never_from_one(resolution):
    data = BouncingDigits(resolution)
    corners = np.concatenate([data.corners(index) for index in range(5000)]).reshape(-1, 8, 2)
    after_one, after_two = {}, {}
    for row in (0, 1):
        for path in corners[..., row].tolist():
            for before, now, then in zip(path, path[1:], path[2:], strict=False):
                after_one.setdefault(now, set()).add(then)
                after_two.setdefault((before, now), set()).add(then)
    assert min(map(len, after_one.values())) >= len(SPEEDS)
    assert {len(several) for several in after_two.values()} == {1}


def test_frames_are_scans_and_parts_have_streams_of_their_own():
    data, (trained, _) = BouncingDigits(), Digits.split()
    (row, column), scan = data.corners(7)[3], Digits().pixels[trained[7], 0].numpy()
    frame = data.pixels([7])[0, 3]
    assert np.array_equal(frame[row : row + SIDE, column : column + SIDE], scan)
    assert frame.sum() == scan.sum()
    parts = [BouncingDigits(part=part) for part in BouncingDigits.parts]
    assert len({part.corners(7).tobytes() for part in parts}) == len(parts) == 4
    scans = {part.part: set(map(bytes, part.scans)) for part in parts}
    assert scans["train"] == scans["tuning"] == scans["reference"]
    assert not scans["train"] & scans["held-out"]


def test_a_part_is_named_behind_a_colon_and_other_parts_and_small_squares_are_refused():
    tuning = BouncingDigits(part="tuning").pixels([399])
    assert np.array_equal(open_images("bouncing-digits:tuning").read(399, 400)[..., 0], tuning)
    assert open_images("bouncing-digits", 20, 3).shape == (3, 20, 20, 1)
    with pytest.raises(ValueError, match="no part 'test'; choose from train, reference, tuning, held-out"):
        open_images("bouncing-digits:test")
    with pytest.raises(ValueError, match="no part 'test'; choose from"):
        BouncingDigits(part="test")
    with pytest.raises(ValueError, match="resolution of at least 16 pixels, not 12"):
        BouncingDigits(12)


# Trajectories, without a network


def test_a_step_continues_the_one_before_straight_on_or_back_from_a_wall():
    low, high = walls(REAL)
    assert (low.tolist(), high.tolist()) == ([-np.inf, -1], [9, np.inf])
    assert continuing(REAL, REAL).tolist() == [[True, True, True]]
    for path, expected in (
        ([[1, 1], [3, 3], [5, 5]], True),
        ([[1, 1], [3, 3], [5.4, 4.6]], True),
        ([[1, 1], [3, 3], [5.6, 5]], False),  # nearer to another pixel
        ([[1, 1], [3, 3], [4, 5]], False),  # slower on one axis
        ([[4, 4], [6, 6], [4, 4]], False),  # back, and no wall is there
        ([[4, 3], [7, 1], [4, 3]], True),  # back, from the walls at 9 and -1
        ([[4, 4], [4, 4], [4, 4]], False),  # at rest
        ([[1, 1], [3, 3], [3, 3]], False),  # a copy
    ):
        assert continuing(np.array([path]), REAL).tolist() == [[expected]], path


def test_real_clips_continue_and_clips_that_copy_jump_or_run_wild_do_not(real, held_out):
    assert continuing(where(held_out), real).mean() >= 0.99
    random = np.random.default_rng(0)
    steps = np.abs(np.diff(where(held_out[:, :2]), axis=1)[:, 0])
    slower = held_out[steps.min(axis=1) < 6]  # the others go eight pixels along both axes: to and fro is all there is
    for cheat, most in (
        (held_out[:, [0] * 8], 0.0),  # frozen
        (np.repeat(held_out[:, ::2], 2, axis=1), 0.0),  # each frame twice
        (slower[:, [0, 1] * 4], 0.5),  # to and fro between two frames: at one of them there may be a wall
        (np.stack([clip[random.permutation(8)] for clip in held_out]), 0.3),  # out of order
        (held_out.reshape(-1, 16, 16)[random.permutation(2400)].reshape(-1, 8, 16, 16), 0.02),
    ):
        found = continuing(where(cheat), real)
        assert found.mean() <= most
        assert found.all(axis=1).mean() <= 0.05


def test_one_speed_for_all_continues_and_only_the_speeds_give_it_away(scored, real, held_out):
    data = BouncingDigits(part="held-out")
    slow = np.stack([paths(data.corners(index)[0], np.array([4, 4]), 8, 8) for index in range(300)])
    clips = np.zeros_like(held_out)
    for clip, corners, scan in zip(clips, slow, np.resize(data.scans, (300, 8, 8)), strict=True):
        for frame, (row, column) in zip(clip, corners, strict=True):
            frame[row : row + SIDE, column : column + SIDE] = scan
    found = scored(clips, "trajectory300@bouncing-digits")
    assert found["continuing"].value >= 0.99
    mean = speeds(real).mean()
    assert mean == pytest.approx(6, abs=0.15)
    assert found["speed_distance"].value == pytest.approx(mean - 4, abs=1e-6)
    real_ones = scored(held_out, "trajectory300@bouncing-digits")
    assert real_ones["speed_distance"].value < 0.3
    assert real_ones["continuing"].value >= 0.99
    assert (real_ones["speed_distance"].unit, real_ones["continuing"].parts["of_reference"]) == ("px", 1.0)


# The network


def shipped():
    network = bouncing_digits_network.network()
    network.load_state_dict(load_file(PACKAGED / BOUNCING_DIGITS.weights.file))
    return network


def test_velocities_are_the_speeds_of_each_axis():
    path = np.array([[[0, 8], [4, 0], [8, 8], [4, 4]]])  # four pixels down, eight back, and so on
    assert velocity_classes(path).tolist() == [[[3, 0], [3, 4], [1, 1]]]


def test_the_network_recognises_digits_that_it_has_not_seen_and_centres_are_where_the_ink_is(held_out):
    data = BouncingDigits(part="held-out")
    here = Ranks(0, 1, torch.device("cpu"))
    streams = open_extractor(BOUNCING_DIGITS, Extraction(offline=True), here).extract(
        torch.from_numpy(held_out[:100, ..., None])
    )
    seen = streams["logits"].view(100, 8, 10).argmax(-1)
    assert (seen == data.labels(range(100))[:, None]).float().mean() >= 0.95
    steps = streams["centres"].view(100, 8, 2).diff(dim=1)
    corners = np.stack([data.corners(index) for index in range(100)])
    assert np.allclose(steps, np.diff(corners, axis=1), atol=1e-4)
    assert streams["pool"].shape == (100, 96)


@pytest.mark.slow
@pytest.mark.parametrize("make", [shipped, bouncing_digits_network.train])
def test_velocities_are_read_off_the_motion_by_the_shipped_network_and_by_one_trained_again(make, held_out):
    network, data = make(), BouncingDigits(part="held-out")
    clips = torch.from_numpy(held_out[:100]).float() / 255
    truth = velocity_classes(np.stack([data.corners(index) for index in range(100)]))  # (B, T-1, 2)
    with torch.inference_mode():
        guessed = network.motion(clips.unsqueeze(1))[1].argmax(-1)  # (B, T-2, 2, 2)
        seen = network(clips)[1].argmax(-1)
    assert (guessed[:, :, 0] == truth[:, :-1]).float().mean() >= 0.95
    assert (guessed[:, :, 1] == truth[:, 1:]).float().mean() >= 0.95
    assert (seen == data.labels(range(100))[:, None]).float().mean() >= 0.95


@pytest.mark.slow
def test_distances_of_real_clips_are_small_and_those_of_cheaters_large(scored, held_out):
    labels = BouncingDigits(part="held-out").labels(range(300)).numpy()
    good = scored(held_out, "fvd300@bouncing-digits", "accuracy300@bouncing-digits", labels=labels)
    assert good["accuracy"].value >= 0.95
    assert good["fvd"].workload["reference"] == "bouncing-digits"
    for cheat in (held_out[:, [0] * 8], np.repeat(held_out[:, ::2], 2, axis=1), np.repeat(held_out[:1], 300, axis=0)):
        assert scored(cheat, "fvd300@bouncing-digits")["fvd"].value > 5 * good["fvd"].value
