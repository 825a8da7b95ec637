"""Moving digits, and trees of encoded videos: which frames are taken, how they are prepared, and what is refused."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from videos import numbered, write_tree, write_video

from harness.data import decoding as clips
from harness.data.digits import SIDE, Digits
from harness.data.digits_in_motion import paths
from harness.data.moving_digits import MovingDigits
from harness.data.registry import open_dataset, open_videos
from harness.data.video_choices import RESIZES
from harness.data.videos import VideoFolder, prepare, read_lists

pytest.importorskip("av", reason="pip install av")


# Moving digits


def test_a_digit_turns_back_at_the_walls_without_ever_standing_still():
    path = paths(np.array([6, 1]), np.array([2, -1]), 6, span=8)
    assert path.tolist() == [[6, 1], [8, 0], [6, 1], [4, 2], [2, 3], [0, 4]]
    assert paths(np.array([7, 8]), np.array([2, 1]), 2, span=8).tolist() == [[7, 8], [5, 7]]


def test_every_frame_is_a_scan_moved_by_whole_pixels():
    data, digits = MovingDigits(), Digits()
    trained, _ = Digits.split()
    for index in (0, 7, 1507):
        scan = digits.pixels[trained[index % 1500], 0].numpy()
        for frame, (row, column) in zip(data.pixels([index])[0], data.corners(index), strict=True):
            assert np.array_equal(frame[row : row + SIDE, column : column + SIDE], scan)
            assert frame.sum() == scan.sum()
        assert data.labels([index]) == digits.labels[trained[index % 1500]]
    steps = np.abs(np.diff([data.corners(index) for index in range(500)], axis=1))
    assert np.unique(steps).tolist() == [0, 4]
    assert (steps == steps[:, :1]).all()  # one speed a clip
    assert steps.any(axis=-1).all()  # and never none
    assert not np.array_equal(data.corners(7), data.corners(1507))  # the same scan on another path


def test_clips_are_the_same_in_any_batch_and_differ_between_the_parts():
    data = MovingDigits()
    whole, _ = data.load_clips([3, 4, 5], [False, True, False], [0, 0.5, 0.9])
    alone, labels = data.load_clips([4], [False], [0])
    assert (whole.shape, whole.dtype, whole.min(), whole.max()) == ((3, 8, 1, 16, 16), torch.float32, -1, 1)
    assert torch.equal(whole[1], alone[0].flip(-1))
    other = MovingDigits(part="reference")
    assert torch.equal(other.load_clips([4], [False], [0])[1], labels)
    assert not np.array_equal(other.corners(4), data.corners(4))
    seen, unseen = (set(map(bytes, MovingDigits(part=part).scans)) for part in ("train", "held-out"))
    assert (len(unseen), len(seen & unseen)) == (297, 0)


def test_in_the_smallest_square_every_clip_of_the_reference_also_occurs_in_training():
    """As the document of the embedded results says."""
    train, reference = MovingDigits(12), MovingDigits(12, part="reference")
    for index in range(50):
        seen = {train.corners(again).tobytes() for again in range(index, len(train), 1500)}
        assert reference.corners(index).tobytes() in seen


def test_a_stride_takes_every_nth_frame_of_the_motion():
    assert np.array_equal(MovingDigits(frames=3, stride=3).corners(5), MovingDigits(frames=8).corners(5)[::3])


def test_single_frames_are_those_of_the_clips():
    data = MovingDigits()
    all_frames, _ = data.load_clips([9, 10], [False, False], [0, 0])
    frames, labels = data.load_frames([9, 10], [0, 0.99])
    assert torch.equal(frames, torch.stack([all_frames[0, 0], all_frames[1, 7]]))
    assert labels.tolist() == data.labels([9, 10]).tolist()


def test_a_square_without_room_is_refused():
    with pytest.raises(ValueError, match="resolution of at least 12 pixels, not 8"):
        MovingDigits(resolution=8)


# Encoded videos


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("ucf"))


def test_a_clip_is_spread_over_its_window_as_latte_does(tmp_path):
    """L = 31, 4 frames x stride 5: windows of 20 begin at 0..11; of the first, frames 0, 6, 12 and 19."""
    write_video(tmp_path / "tree" / "grey" / "a.avi", numbered(31))
    folder = VideoFolder(tmp_path / "tree", 24, frames=4, stride=5)
    for start, first in ((0.0, 0), (0.5, 6), (0.999, 11)):
        clip, label = folder.load_clips([0], [False], [start])
        numbers = (clip.mean((0, 2, 3, 4)) + 1) * 127.5 / 8
        assert numbers.round().tolist() == [first, first + 6, first + 12, first + 19]
        assert label.tolist() == [0]
    frame, _ = folder.load_frames([0], [0.999])
    assert ((frame.mean() + 1) * 127.5 / 8).round() == 30


def test_preparation_is_torchvision_s_bilinear_resize_and_centre_crop():
    from torchvision.transforms.v2 import functional

    pixels = np.random.default_rng(0).integers(0, 256, (2, 24, 34, 3), dtype=np.uint8)
    prepared = prepare([Image.fromarray(frame) for frame in pixels], 16)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    theirs = functional.center_crop(functional.resize(x, [16], antialias=False), [16, 16])
    assert torch.allclose(prepared, theirs / 127.5 - 1, atol=1e-5)


def test_resizing_by_the_scale_factor_is_torch_s_and_moves_columns_of_ucf_101_by_up_to_three_tenths():
    """Of 320 x 240 to 256: 341 columns, at 320 / 341 or at 240 / 256 source columns each; a ramp shows where from."""
    ramp = np.broadcast_to(np.arange(240, dtype=np.uint8), (180, 240))  # three quarters of it, to stay in 8 bits
    picture = Image.fromarray(np.stack([ramp] * 3, axis=-1).copy())
    by_size, by_scale = (prepare([picture], 192, how)[0, 0, 0] for how in ("size", "scale-factor"))
    crop = torch.arange(32, 32 + 192)  # of 256 columns, none of which is cut off
    for found, step in ((by_size, 240 / 256), (by_scale, 180 / 192)):
        assert torch.allclose((found + 1) * 127.5, (crop + 0.5) * step - 0.5, atol=1e-4)
    pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    theirs = torch.nn.functional.interpolate(x, scale_factor=256 / 240, mode="bilinear", align_corners=False)
    assert theirs.shape[-2:] == (256, 341)
    frame = prepare([Image.fromarray(pixels)], 256, "scale-factor")
    assert torch.allclose(frame, theirs[..., 42 : 42 + 256] * 2 - 1, atol=1e-6)
    ramp = torch.arange(320.0).expand(1, 1, 240, 320)
    ends = [
        torch.nn.functional.interpolate(ramp, **by, mode="bilinear", align_corners=False)[0, 0, 0, 297]
        for by in ({"size": (256, 341)}, {"scale_factor": 256 / 240})
    ]
    assert (ends[0] - ends[1]).item() == pytest.approx(297.5 * (320 / 341 - 240 / 256), abs=1e-3)  # 0.27 of a column


@pytest.mark.parametrize("resize_by", RESIZES)
def test_every_short_side_comes_out_at_the_resolution_asked_for(resize_by):
    for side in (*range(17, 64), 49, 98, 107):  # of 49 the quotient 256 / 49 is rounded down
        assert prepare([Image.new("RGB", (side, side + 5))], 64, resize_by).shape == (1, 3, 64, 64)
    assert int(49 * (256 / 49)) == 255
    assert prepare([Image.new("RGB", (60, 49))], 256, resize_by).shape == (1, 3, 256, 256)


def lattes_window(length: int, draw: float, frames: int, stride: int) -> list[int]:
    """Its TemporalRandomCrop and what its data set makes of it, with `draw` in [0, 1) for its random integer."""
    last_begin = max(0, length - frames * stride - 1)
    begin = int(draw * (last_begin + 1))  # randint includes both ends
    end = min(begin + frames * stride, length)
    return np.linspace(begin, end - 1, frames, dtype=int).tolist()


def test_short_videos_are_spread_over_what_there_is_as_latte_does(tmp_path):
    lengths = (16, 29, 47, 48, 49, 50, 80)
    for length in lengths:
        for number in range(length):
            (tmp_path / "t" / "a" / f"{length:03d}").mkdir(parents=True, exist_ok=True)
            (tmp_path / "t" / "a" / f"{length:03d}" / f"{number:03d}.png").touch()
    folder = VideoFolder(tmp_path / "t", 16, frames=16, stride=3, short_videos="spread")
    assert folder.lengths == list(lengths)
    for length in lengths:
        for draw in (0.0, 0.3, 0.5, 0.999):
            assert folder._window_numbers(length, draw) == lattes_window(length, draw, 16, 3), (length, draw)
    assert folder._window_numbers(16, 0.9) == list(range(16))
    assert folder._window_numbers(29, 0.9)[:4] == [0, 1, 3, 5]
    (tmp_path / "t" / "a" / "016" / "000.png").unlink()
    with pytest.raises(ValueError, match=r"016 has 15 frames; a clip of 16 frames needs 16; --skip-corrupt"):
        VideoFolder(tmp_path / "t", 16, frames=16, stride=3, short_videos="spread")
    with pytest.raises(ValueError, match=r"016 has 15 frames; a clip of 16 frames x stride 3 needs 48"):
        VideoFolder(tmp_path / "t", 16, frames=16, stride=3)


def test_what_is_done_with_files_is_refused_of_clips_that_are_read_from_none():
    for choice in ({"short_videos": "spread"}, {"resize_by": "scale-factor"}):
        with pytest.raises(ValueError, match="is of videos that are read, and moving-digits is none of them"):
            open_videos("moving-digits", 16, 8, 1, **choice)


def test_classes_are_directories_and_flips_take_the_whole_clip(tree):
    folder = open_videos(str(tree), 16, frames=8, stride=2)
    assert folder.classes == ["Archery", "Bowling", "Surfing"]
    assert len(folder) == 6
    plain, labels = folder.load_clips([0, 5], [False, False], [0.3, 0.3])
    flipped, _ = folder.load_clips([0, 5], [True, False], [0.3, 0.3])
    assert plain.shape == (2, 8, 3, 16, 16)
    assert labels.tolist() == [0, 2]
    assert torch.equal(flipped[0], plain[0].flip(-1))
    assert torch.equal(flipped[1], plain[1])
    assert (plain[:, 0] - plain[:, -1]).abs().mean() > 0.1  # they move


def test_frame_folders_give_what_was_written(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
    for number, frame in enumerate(frames):
        (tmp_path / "t" / "one" / "v").mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame).save(tmp_path / "t" / "one" / "v" / f"{number:03d}.png")
    clip, _ = VideoFolder(tmp_path / "t", 16, frames=3, stride=3).load_clips([0], [False], [0])
    assert torch.allclose(clip[0], torch.from_numpy(frames[[0, 4, 8]]).permute(0, 3, 1, 2) / 127.5 - 1, atol=1e-6)
    Image.fromarray(frames[0, :8]).save(tmp_path / "t" / "one" / "v" / "004.png")
    with pytest.raises(ValueError, match=r"one/v mixes sizes: frames 0 and 4 are 16 x 16 and 16 x 8"):
        VideoFolder(tmp_path / "t", 16, frames=3, stride=3).load_clips([0], [False], [0])


def test_frames_of_a_folder_are_in_the_order_of_their_numbers(tmp_path):
    (tmp_path / "t" / "one" / "v").mkdir(parents=True)
    for number in range(12):
        frame = np.full((16, 16, 3), 20 * number, dtype=np.uint8)
        Image.fromarray(frame).save(tmp_path / "t" / "one" / "v" / f"frame{number}.png")
    clip, _ = VideoFolder(tmp_path / "t", 16, frames=12, stride=1).load_clips([0], [False], [0])
    assert ((clip[0].mean(dim=(1, 2, 3)) + 1) * 127.5).round().tolist() == [20 * number for number in range(12)]


def test_official_lists_choose_the_videos_and_number_the_classes(tree, tmp_path):
    train, test = tmp_path / "trainlist01.txt", tmp_path / "testlist01.txt"
    train.write_text("Surfing/v_Surfing_g01_c01.avi 1\r\nArchery/v_Archery_g02_c01.avi 2\n")
    test.write_text("Archery/v_Archery_g01_c01.avi\n")
    folder = open_videos(str(tree), 16, 8, 1, lists=[train, test])
    assert folder.classes == ["Surfing", "Archery"]
    assert folder.load_clips([0, 1, 2], [False] * 3, [0] * 3)[1].tolist() == [0, 1, 1]
    assert read_lists(tree, [test])[0] == ["Archery"]
    train.write_text("Surfing/v_Surfing_g01_c01.avi 1\nSurfing/v_Surfing_g09_c01.avi 1\n")
    with pytest.raises(ValueError, match=r"lists Surfing/v_Surfing_g09_c01\.avi, which is neither"):
        read_lists(tree, [train])
    train.write_text("v_Surfing_g01_c01.avi 1\n")
    with pytest.raises(ValueError, match=r"line 1: .* is not 'Class/video.avi 1'"):
        read_lists(tree, [train])


def test_unreadable_and_short_videos_are_named_or_skipped_and_counted(tmp_path):
    root = write_tree(tmp_path / "ucf")
    write_video(root / "Bowling" / "short.avi", numbered(15))
    with pytest.raises(ValueError, match=r"short\.avi has 15 frames; .* 8 frames x stride 2 needs 16; --skip-corrupt"):
        VideoFolder(root, 16, 8, 2)
    (root / "Archery" / "broken.avi").write_bytes(b"no video")
    torn = root / "Surfing" / "v_Surfing_g01_c01.avi"
    with pytest.warns(UserWarning, match=r"left out: .*short\.avi has 15 frames"):
        folder = VideoFolder(root, 16, 8, 2, skip_corrupt=True)
    assert folder.corrupt == {"Archery/broken.avi", "Bowling/short.avi"}
    assert len(folder) == 6
    # a video that breaks off only when it is decoded: the next one stands in for it
    torn.write_bytes(torn.read_bytes()[:1000])
    index = folder.videos.index(torn)
    with pytest.warns(UserWarning, match=r"g01_c01\.avi.*3 so far"):
        clip, _ = folder.load_clips([index, index + 1], [False] * 2, [0.5] * 2)
    assert torch.equal(clip[0], clip[1])
    assert "Surfing/v_Surfing_g01_c01.avi" in folder.corrupt


def test_nothing_to_read_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="no videos at '/nowhere'"):
        open_videos("/nowhere", 16, 8, 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="neither frame folders nor video files"):
        open_videos(str(tmp_path / "empty"), 16, 8, 1)
    write_video(tmp_path / "flat" / "a.avi", numbered(9))
    with pytest.raises(ValueError, match="no class directories"):
        open_videos(str(tmp_path / "flat"), 16, 8, 1)
    with pytest.raises(ValueError, match="moving-digits is of clips"):
        open_dataset("moving-digits", 16)


def test_lengths_are_those_that_were_written(tmp_path):
    for codec, suffix, pixels in (("mpeg4", ".avi", "yuv420p"), ("mpeg4", ".mp4", "yuv420p"), ("ffv1", ".mkv", "bgr0")):
        path = write_video(tmp_path / f"a{suffix}", numbered(12), codec, pixels)
        assert clips.length_of(path) == 12
        assert len(clips.decode(path, range(12))) == 12
        with pytest.raises(ValueError, match="ended after 1 of the 2 frames"), warnings.catch_warnings():
            clips.decode(path, [11, 12])
