"""Clips through the same commands as images: batches, training, sampling and scoring of moving digits and of videos."""

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
from videos import numbered, write_tree, write_video

from harness import eval as scoring
from harness import sample, train
from harness.core.distributed import Ranks
from harness.core.seeds import stream
from harness.data import digits_in_motion
from harness.data.digits import Digits
from harness.data.moving_digits import MovingDigits
from harness.diffusion import checkpoint, generate
from harness.diffusion.album import Album
from harness.diffusion.batches import BLOCK, draw_batch
from harness.diffusion.config import PRESETS, TIMESTEPS
from harness.diffusion.flags import open_sampling
from harness.diffusion.process import linear_schedule, training_loss
from harness.diffusion.sample_config import SampleConfig
from harness.diffusion.trained import load_trained
from models import create_model

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--preset", "moving-digits", "--resolution", "16", "--model", "DiT-N/8-video", "--batch", "4"]
TINY += ["--device", "cpu"]
CPU = Ranks(0, 1, torch.device("cpu"))


# Batches

CLIPS = dataclasses.replace(PRESETS["moving-digits"], resolution=16, joint_images=3, batch=40)


def test_images_are_drawn_from_their_streams_as_ever():
    config = PRESETS["digits"]
    batch = draw_batch(Digits(8), config, (1, 8, 8), True, 7, range(BLOCK, 2 * BLOCK))
    random = stream(config.seed, "train", 7, 1)
    random.random(BLOCK)  # flips
    assert np.array_equal(batch.drop_labels, random.random(BLOCK) < 0.1)
    assert np.array_equal(batch.t, random.integers(TIMESTEPS, size=BLOCK))
    assert np.array_equal(batch.noise, random.standard_normal((BLOCK, 1, 8, 8), dtype=np.float32))
    assert np.array_equal(batch.posterior, random.standard_normal((BLOCK, 1, 8, 8), dtype=np.float32))


def test_joint_images_are_frames_with_labels_and_drops_of_their_own():
    data = MovingDigits()
    batch = draw_batch(data, CLIPS, (11, 1, 16, 16), False, 5, range(40))
    assert (batch.items.shape, batch.noise.shape) == ((40, 11, 1, 16, 16), (40, 11, 1, 16, 16))
    assert (batch.labels.shape, batch.drop_labels.shape, batch.t.shape) == ((40, 4), (40, 4), (40,))
    alone = draw_batch(data, dataclasses.replace(CLIPS, joint_images=0), (8, 1, 16, 16), False, 5, range(40))
    assert torch.equal(batch.items[:, :8], alone.items)  # the clips are the same with or without
    assert torch.equal(batch.labels[:, 0], alone.labels)
    assert torch.equal(batch.drop_labels[:, 0], alone.drop_labels)
    of_label = [{int(scan.sum()) for scan in data.scans[data.scanned == label]} for label in range(10)]
    for images, labels in zip(batch.items[:, 8:], batch.labels[:, 1:], strict=True):
        for image, label in zip(images, labels.tolist(), strict=True):
            ink = ((image + 1) * 127.5).round().sum()
            assert int(ink) in of_label[label]  # a whole scan of its class
    assert len(np.unique(batch.labels[:, 1:])) == 10
    drops = [
        draw_batch(data, CLIPS, (11, 1, 16, 16), False, s, range(40)).drop_labels.float().mean(0) for s in range(9)
    ]
    assert torch.stack(drops).mean(0).tolist() == pytest.approx([0.1] * 4, abs=0.07)
    assert not torch.equal(batch.drop_labels[:, 0], batch.drop_labels[:, 1])


def test_labels_of_joint_images_are_dropped_together_where_that_is_asked_for_as_latte_does():
    """As often as each by itself; clips, their own drops, and which images there are stay as they were."""
    data, together = MovingDigits(), dataclasses.replace(CLIPS, joint_dropout="together")
    drops = []
    for step in range(12):
        batch = draw_batch(data, together, (11, 1, 16, 16), False, step, range(40))
        drops.append(batch.drop_labels)
    assert all((of[:, 1:] == of[:, 1:2]).all() for of in drops)
    joint, clips = torch.cat(drops)[:, 1].float(), torch.cat(drops)[:, 0]
    assert 0.05 < joint.mean() < 0.16
    assert not torch.equal(joint.bool(), clips)
    each = draw_batch(data, CLIPS, (11, 1, 16, 16), False, 11, range(40))
    assert torch.equal(each.drop_labels[:, 0], batch.drop_labels[:, 0])
    assert torch.equal(each.items[:, :8], batch.items[:, :8])
    assert not (each.drop_labels[:, 1:] == each.drop_labels[:, 1:2]).all()


def test_rows_are_the_same_in_any_parts():
    data = MovingDigits()
    whole = draw_batch(data, CLIPS, (11, 1, 16, 16), False, 2, range(40))
    part = draw_batch(data, CLIPS, (11, 1, 16, 16), False, 2, range(13, 30))
    for name, value in vars(part).items():
        assert torch.equal(value, getattr(whole, name)[13:30]), name


# Training


def run(where, *flags):
    return train.main([*TINY, "--out", str(where), *map(str, flags)])


def newest(where):
    return checkpoint.latest(where / "checkpoints")[1]


def assert_same_weights(left, right):
    for name, value in newest(left)["ema"].items():
        assert torch.equal(value, newest(right)["ema"][name]), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    where = tmp_path_factory.mktemp("runs") / "whole"
    assert run(where, "--steps", 6, "--joint-images", 2) == 0
    return where


def test_a_run_in_two_halves_is_the_whole_run(whole, tmp_path):
    for steps in (3, 6):
        assert run(tmp_path, "--steps", steps, "--joint-images", 2) == 0
    assert_same_weights(whole, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["frames"], config["stride"], config["joint_images"], config["videos"]) == (8, 1, 2, 150_000)
    assert config["spec"]["frames"] == 8


@pytest.mark.slow
def test_two_gloo_processes_train_as_one(whole, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    flags = [*TINY, "--steps", "6", "--joint-images", "2", "--out", str(tmp_path)]
    subprocess.run([*launcher, "harness.train", *flags], cwd=ROOT, check=True, capture_output=True, timeout=300)
    for name, value in newest(whole)["model"].items():
        assert torch.allclose(value, newest(tmp_path)["model"][name], atol=1e-5), name


def test_the_loss_is_one_plain_mean_over_clip_and_joint_images(whole):
    """A fresh head predicts zero noise, so the first loss is the mean of noise squared, and the variational term."""
    first = json.loads((whole / "losses.jsonl").read_text().splitlines()[0])["loss"]
    config = dataclasses.replace(PRESETS["moving-digits"], resolution=16, joint_images=2, batch=4)
    batch = draw_batch(MovingDigits(), config, (10, 1, 16, 16), False, 0, range(4))
    zero = torch.zeros(4, 10, 2, 16, 16)
    mean = training_loss(linear_schedule(), lambda x, t: zero, batch.items, batch.t, batch.noise).mean()
    assert first == pytest.approx(float(mean), rel=1e-5)


def test_a_run_that_is_older_than_a_field_can_be_continued(tmp_path):
    flags = ["--preset", "digits", "--model", "DiT-N/4", "--batch", "8", "--device", "cpu", "--out", str(tmp_path)]
    assert train.main([*flags, "--steps", "1"]) == 0
    path = next((tmp_path / "checkpoints").glob("*.pt"))
    state = torch.load(path, weights_only=True)
    for field in ("frames", "stride", "joint_images"):
        del state["config"][field]
    for field in ("frames", "arrangement"):
        del state["config"]["spec"][field]
    torch.save(state, path)
    assert train.main([*flags, "--steps", "2"]) == 0


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("ucf"))


def test_a_tree_of_encoded_videos_trains(tree, tmp_path):
    flags = ["--data", tree, "--num-classes", 3, "--frames", 4, "--stride", 3, "--joint-images", 1, "--steps", 2]
    assert run(tmp_path / "a", *flags) == 0
    config = newest(tmp_path / "a")["config"]
    assert (config["spec"]["channels"], config["videos"], config["classes"]) == (
        3,
        6,
        ["Archery", "Bowling", "Surfing"],
    )
    listed = tmp_path / "trainlist01.txt"
    listed.write_text("Surfing/v_Surfing_g01_c01.avi 1\nArchery/v_Archery_g01_c01.avi 2\n")
    flags[3] = 2
    assert run(tmp_path / "b", *flags, "--split-list", listed) == 0
    assert newest(tmp_path / "b")["config"]["classes"] == ["Surfing", "Archery"]


def test_videos_that_are_left_out_are_counted(tree, tmp_path, capsys):
    root = write_tree(tmp_path / "ucf")
    write_video(root / "Bowling" / "short.avi", numbered(5))
    flags = ["--data", root, "--num-classes", 3, "--frames", 4, "--stride", 3, "--steps", 1]
    with pytest.warns(UserWarning, match=r"short\.avi has 5 frames"):
        assert run(tmp_path / "a", *flags, "--skip-corrupt") == 0
    assert "1 corrupt items were left out: Bowling/short.avi" in capsys.readouterr().out


def test_the_ucf101_preset_is_the_papers_and_lattes():
    recipe = PRESETS["ucf101"]
    assert (recipe.frames, recipe.stride, recipe.resolution, recipe.num_classes) == (16, 3, 256, 101)
    assert (recipe.learning_rate, recipe.ema_decay, recipe.flip, recipe.model) == (1e-4, 0.9999, True, "DiM-XL/2-video")
    assert (recipe.short_videos, recipe.resize_by, recipe.joint_dropout) == ("spread", "scale-factor", "together")
    assert (recipe.clip_norm, recipe.clip_after, recipe.batch, recipe.steps) == (0.1, 100_000, 8 * 5, 1_000_000)


def test_bad_input_gets_one_line_and_exit_code_2(tree, tmp_path, capsys):
    short = write_video(tmp_path / "short" / "a" / "short.avi", numbered(11)).parents[1]
    (tmp_path / "empty").mkdir()
    for number, height in enumerate((16, 16, 16, 12)):
        (tmp_path / "mixed" / "a" / "v").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, height)).save(tmp_path / "mixed" / "a" / "v" / f"{number}.png")
    videos = ["--num-classes", 1, "--frames", 4, "--stride"]
    for flags, complaint in (
        (["--data", short, *videos, 3], "short.avi has 11 frames; a clip of 4 frames x stride 3 needs 12"),
        (["--data", tmp_path / "empty", *videos, 1], "neither frame folders nor video files"),
        (["--data", tmp_path / "absent", *videos, 1], "no videos at"),
        (["--data", tmp_path / "mixed", *videos, 1], "mixes sizes: frames 0 and 3 are 16 x 16 and 16 x 12"),
        (["--model", "DiT-N/4", "--joint-images", 2], "DiT-N/4 is a model of images"),
        (["--preset", "digits", "--model", "DiT-N/4", "--joint-images", 2], "joint images learn beside clips"),
        (["--model", "DiT-N/4"], "DiT-N/4 is a model of images"),
        (["--preset", "digits"], "DiT-N/8-video is a model of video: pass --frames"),
        (["--data", "digits"], "no videos at 'digits'"),
        (["--preset", "digits", "--data", "moving-digits", "--model", "DiT-N/4"], "moving-digits is of clips"),
        (["--joint-images", -1], "must be at least 0"),
        (["--data", tree, "--split-list", tmp_path / "no.txt", *videos, 1], "no such split list"),
    ):
        with pytest.raises(SystemExit) as exit_:
            train.main([*TINY, *map(str, flags), "--steps", "1", "--out", str(tmp_path / "run")])
        assert exit_.value.code == 2
        assert complaint in capsys.readouterr().err.splitlines()[-1]
        assert not list((tmp_path / "run").glob("checkpoints/*"))


# Sampling


def save_run(where, channels=1, frames=8):
    """A run of an untrained model whose every layer matters."""
    torch.manual_seed(0)
    model = create_model("DiT-N/8-video", 16, frames=frames, channels=channels, downsample=1, num_classes=10)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    config = {"spec": dataclasses.asdict(model.spec), "resolution": 16, "vae": "identity", "dataset": "moving-digits"}
    config["classes"] = [str(digit) for digit in range(10)]
    checkpoint.save(where / "checkpoints", {"step": 3, "config": config, "model": {}, "ema": model.state_dict()})
    return where


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("run"))


def draw(run, out, *flags):
    assert (
        sample.main(["--ckpt", str(run), "--out", str(out), "--steps", "4", "--device", "cpu", *map(str, flags)]) == 0
    )
    return Album(out, 16, 8)


def test_clips_are_folders_of_frames_and_an_npz_and_pictures_for_the_eyes(untrained, tmp_path):
    album = draw(untrained, tmp_path, "--num-samples", 3, "--classes", 7, 2, "--npz")
    assert [path.name for path in album.files(2)] == [f"{frame:04d}.png" for frame in range(8)]
    assert (tmp_path / "000002" / "0007.png").is_file()
    with np.load(tmp_path / "samples.npz") as archive:
        assert (archive["arr_0"].shape, archive["arr_0"].dtype) == ((3, 8, 16, 16, 3), np.uint8)
        assert archive["arr_1"].tolist() == [7, 2, 7]
        clips = archive["arr_0"]
    for index, (clip, label) in enumerate(album.first(3)):
        assert np.array_equal(clip, clips[index])
        assert label == [7, 2, 7][index]
    sheet = np.asarray(Image.open(tmp_path / "grid.png"))
    assert sheet.shape == (3 * (48 + 4 + 14) + 4, 8 * (48 + 4) + 4, 3)  # a row a clip, a column a frame
    first_row, fourth_column = slice(18, 18 + 48), slice(4 + 3 * 52, 4 + 3 * 52 + 48)
    assert np.array_equal(sheet[first_row, fourth_column], clips[1, 3].repeat(3, 0).repeat(3, 1))  # class 2 comes first
    with Image.open(tmp_path / "preview.gif") as animation:
        assert animation.n_frames == 8


def test_guidance_takes_all_channels_of_a_clip_and_the_settings_say_so(tmp_path):
    run = save_run(tmp_path / "run", channels=4)
    trained = load_trained(run, torch.device("cpu"))
    x, t, y = torch.randn(2, 8, 4, 16, 16), torch.tensor([999, 3]), torch.tensor([1, 2])
    with torch.no_grad():
        guided = generate.denoiser(trained, SampleConfig(cfg_scale=4.0, cfg_channels=4), y, CPU.device)(x, t)
        conditional, null = trained.model(x, t, y), trained.model(x, t, torch.full_like(y, 10))
    noise, null_noise = conditional[:, :, :4], null[:, :, :4]
    assert torch.allclose(guided[:, :, :4], null_noise + 4 * (noise - null_noise), atol=1e-4)
    assert torch.allclose(guided[:, :, 4:], conditional[:, :, 4:], atol=1e-5)
    given = sample.parser().parse_args(["--ckpt", str(run)])
    assert open_sampling(given, CPU)[1].cfg_channels == 4
    given = sample.parser().parse_args(["--ckpt", str(run), "--cfg-channels", "3"])
    assert open_sampling(given, CPU)[1].cfg_channels == 3


def test_a_clip_depends_on_its_seed_alone_and_only_what_is_missing_is_drawn(untrained, tmp_path, monkeypatch):
    album = draw(untrained, tmp_path / "a", "--num-samples", 20)
    other = draw(untrained, tmp_path / "b", "--num-samples", 20, "--batch", 3)
    clips = np.stack([clip for clip, _ in album.first(20)])
    assert np.array_equal(clips, np.stack([clip for clip, _ in other.first(20)]))
    assert len(np.unique(clips.reshape(20, -1), axis=0)) == 20
    album.files(4)[3].unlink()
    album.files(17)[0].write_bytes(album.files(17)[0].read_bytes()[:50])
    drawn = []
    real = Album.write
    monkeypatch.setattr(Album, "write", lambda self, samples: (drawn.extend(samples.indices), real(self, samples)))
    draw(untrained, tmp_path / "a", "--num-samples", 21)
    assert drawn == [4, 17, 20]
    assert np.array_equal(clips, np.stack([clip for clip, _ in album.first(20)]))


# Scoring


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An empty folder of published weights: what comes with the package needs none."""
    return tmp_path_factory.mktemp("weights")


def score(tmp_path, weights, *flags):
    records = tmp_path / "records.jsonl"
    records.unlink(missing_ok=True)
    where = ["--records", records, "--work-dir", tmp_path / "work", "--weights-dir", weights, "--bootstrap", 0]
    assert scoring.main([str(flag) for flag in (*flags, *where, "--device", "cpu")]) == 0
    return [json.loads(line) for line in records.read_text().splitlines()]


def test_a_checkpoint_of_clips_is_scored_and_its_folder_and_npz_give_the_same(
    untrained, tmp_path, weights, monkeypatch
):
    monkeypatch.setattr(digits_in_motion, "REFERENCE_CLIPS", 200)
    metrics = ["--metric", "fvd20@moving-digits", "motion20@moving-digits", "accuracy20@moving-digits"]
    piped = score(tmp_path, weights, "--ckpt", untrained, "--steps", 4, *metrics)
    quantities = ["fvd", "moving", "step_distance", "turn_distance", "accuracy"]
    assert [one["quantity"] for one in piped] == quantities
    assert piped[0]["workload"]["sampling"]["cfg_channels"] == 1
    kept = score(tmp_path, weights, "--ckpt", untrained, "--steps", 4, *metrics, "--save-samples", tmp_path / "kept")
    folder = score(tmp_path, weights, "--samples", tmp_path / "kept", *metrics)
    packed = Album(tmp_path / "kept", 16, 8).pack_npz(20)
    npz = score(tmp_path, weights, "--samples", packed, *metrics)
    values = [one["value"] for one in piped]
    assert len(set(values)) == 5
    for again in (kept, folder, npz):
        assert [one["value"] for one in again] == values
    assert len({one["workload"]["samples_sha256"] for one in (*piped, *folder, *npz)}) == 1


def test_an_fvd_on_i3d_of_a_checkpoint_is_that_of_its_clips(tmp_path, weights, tree):
    run = save_run(tmp_path / "run", frames=16)
    flags = [
        "--ref",
        tree,
        "--ref-resolution",
        16,
        "--metric",
        "fvd6_16f",
        "--i3d-weights",
        random_i3d(tmp_path / "i3d"),
    ]
    (piped,) = score(tmp_path, weights, "--ckpt", run, "--steps", 2, *flags, "--save-samples", tmp_path / "kept")
    (folder,) = score(tmp_path, weights, "--samples", tmp_path / "kept", *flags)
    assert piped["value"] == folder["value"]
    assert (piped["workload"]["codec"], folder["workload"]["codec"]) == ("none", ".png")
    assert piped["workload"]["extractor"]["network"] == "I3D by StyleGAN-V"
    assert piped["workload"]["n_reference"] == 6


def test_clips_that_were_learnt_at_a_stride_are_not_compared_with_those_of_every_frame(tmp_path, weights, tree, capsys):
    run = save_run(tmp_path / "run")
    _, state = checkpoint.latest(run / "checkpoints")
    state["config"]["stride"] = 2
    checkpoint.save(tmp_path / "other" / "checkpoints", state)
    with pytest.raises(SystemExit, match="2"):
        score(tmp_path, weights, "--ckpt", tmp_path / "other", "--metric", "fvd20@moving-digits")
    complaint = "fvd20@moving-digits compares with clips of every frame, and DiT-N/8-video(frames=8) learnt every 2."
    assert complaint in capsys.readouterr().err


def test_clips_and_images_are_not_mistaken_for_each_other(untrained, tmp_path, weights, tree, capsys):
    for flags, complaint in (
        (
            ["--ckpt", untrained, "--metric", "fd20@digits"],
            "fd20@digits scores images, and DiT-N/8-video(frames=8) draws",
        ),
        (
            ["--ckpt", untrained, "--ref", tree, "--metric", "fvd20_16f"],
            "fvd20_16f scores 16 frames, and DiT-N/8-video",
        ),
        (["--ckpt", untrained, "--metric", "fvd20@moving-digits", "accuracy20@digits"], "one at a time"),
    ):
        with pytest.raises(SystemExit) as exit_:
            score(tmp_path, weights, "--ckpt", untrained, *flags)
        assert exit_.value.code == 2
        assert complaint in capsys.readouterr().err
