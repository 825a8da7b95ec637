"""A tree of videos to learn from: windows of a clip, short side, centre crop.

Latte (arXiv 2401.03048) prepares UCF-101 by choices that have names here: `short_videos` spread, its
`TemporalRandomCrop`; `resize_by` scale-factor, its `resize_scale`. UCF-101 is 13,320 videos in 101 class directories,
and lists of those to train and to test on (`trainlist01.txt`), a line a video:
`ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1`. Letters: B batch, T frames, R pixels a side.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from harness.data import decoding as clips
from harness.data.video_choices import BY_SCALE, BY_SIZE, REFUSE, SPREAD


def prepare(pictures: Sequence[Image.Image], resolution: int, resize_by: str = BY_SIZE) -> Tensor:
    """RGB pictures of one size to (T, 3, R, R) in [-1, 1]: short side to R by bilinear resizing, then the centre.

    Whole pixels of the long side are as many either way. `size` samples them over the whole of it; `scale-factor` by
    the scale of the short side, which leaves out what is behind the last whole pixel: in UCF-101, a shift of up to 0.3
    source pixels.
    """
    x = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).float() / 255
    short = min(x.shape[-2:])
    scale = resolution / short
    while int(short * scale) < resolution:  # where the quotient was rounded down
        scale = math.nextafter(scale, math.inf)
    size = [int(side * scale) for side in x.shape[-2:]]
    by: dict[str, Any] = {"scale_factor": scale} if resize_by == BY_SCALE else {"size": size}
    x = interpolate(x, **by, mode="bilinear", align_corners=False)
    top, left = (round((side - resolution) / 2) for side in size)
    return x[..., top : top + resolution, left : left + resolution] * 2 - 1


def read_lists(root: Path, lists: Sequence[Path]) -> tuple[list[str], list[Path], list[int]]:
    """Classes, videos and labels of official split lists; videos lie in their class directory, or all in the root.

    Where the lines give numbers (from 1) these order the classes, else the alphabet does. Raises ValueError for a list
    that is missing or empty, a line that is no such entry, and a video that is not there, naming it.
    """
    entries: list[tuple[str, str]] = []
    numbers: dict[str, int] = {}
    for path in lists:
        if not path.is_file():
            raise ValueError(f"no such split list: {path}")
        for count, line in enumerate(path.read_text().splitlines(), start=1):
            name, _, number = line.strip().partition(" ")
            folder, slash, video = name.partition("/")
            if not name:
                continue
            if not (slash and video) or (number and not number.isdecimal()):
                raise ValueError(f"{path}, line {count}: {line.strip()!r} is not 'Class/video.avi 1'")
            if number and numbers.setdefault(folder, int(number)) != int(number):
                raise ValueError(f"{path}, line {count}: {folder} is numbered {number}, before {numbers[folder]}")
            entries.append((folder, video))
    if not entries:
        raise ValueError(f"no videos in the split list {', '.join(map(str, lists))}")
    classes = sorted({folder for folder, _ in entries}, key=lambda folder: (numbers.get(folder, 0), folder))
    videos = []
    for folder, video in entries:
        places = [root / folder / video, root / video]
        found = [place for place in places if place.exists()]
        if not found:
            raise ValueError(f"{lists[0]} lists {folder}/{video}, which is neither {places[0]} nor {places[1]}")
        videos.append(found[0])
    return classes, videos, [classes.index(folder) for folder, _ in entries]


class VideoFolder:
    """A tree with one directory of videos (files, or folders of frames) a class, or those of it that `lists` name.

    A clip is `frames` frames spread evenly over a window of `frames` x `stride`, as Latte takes them. Short videos,
    which have fewer frames than a window, are refused; or else a clip of one is spread over what there is, if that is a
    frame each. Raises ValueError for a path that is missing or has no videos. A video that is unreadable or refused
    raises ValueError with its path; with `skip_corrupt` it is named in a warning, counted in `corrupt`, and the next
    readable one stands in for it.
    """

    channels = 3

    def __init__(
        self,
        root: Path,
        resolution: int,
        frames: int,
        stride: int,
        lists: Sequence[Path] = (),
        skip_corrupt: bool = False,
        short_videos: str = REFUSE,
        resize_by: str = BY_SIZE,
    ) -> None:
        if not root.is_dir():
            raise ValueError(f"no such directory: {root}")
        self.short_videos, self.resize_by = short_videos, resize_by
        self.name, self.root, self.resolution, self.skip_corrupt = root.name, root, resolution, skip_corrupt
        self.frames, self.stride = frames, stride
        self.corrupt: set[str] = set()
        if lists:
            self.classes, videos, labels = read_lists(root, lists)
        else:
            videos = [path for path in clips.find(root) if path.parent != root]
            if not videos:
                raise ValueError(f"{root} has no class directories: expected {root}/CLASS/video.avi")
            folders = [path.relative_to(root).parts[0] for path in videos]
            self.classes = sorted(set(folders))
            labels = [self.classes.index(folder) for folder in folders]
        with ThreadPoolExecutor() as pool:  # headers alone, where they say how long a video is
            lengths = list(pool.map(self._length, videos))
        kept = [entry for entry in zip(videos, labels, lengths, strict=True) if entry[2]]
        if not kept:
            raise ValueError(f"{root} has no readable video of {self.fewest} frames")
        self.videos, self.labels, self.lengths = map(list, zip(*kept, strict=True))

    @property
    def window(self) -> int:
        """Frames of a video that a clip spans."""
        return self.frames * self.stride

    @property
    def fewest(self) -> int:
        """Frames that a video must have."""
        return self.frames if self.short_videos == SPREAD else self.window

    def __len__(self) -> int:
        return len(self.videos)

    def load_clips(
        self, indices: Sequence[int], flips: Sequence[bool], starts: Sequence[float]
    ) -> tuple[Tensor, Tensor]:
        """Clips (B, T, 3, R, R) in [-1, 1], whole ones mirrored, and labels (B,).

        `starts` in [0, 1) say where the window lies among all that a video has.
        """
        read = [
            self._first_readable(index, self._window_numbers, start)
            for index, start in zip(indices, starts, strict=True)
        ]
        x = torch.stack([clip.flip(-1) if flip else clip for (clip, _), flip in zip(read, flips, strict=True)])
        return x, torch.tensor([label for _, label in read])

    def load_frames(self, indices: Sequence[int], starts: Sequence[float]) -> tuple[Tensor, Tensor]:
        """One frame of each video, (B, 3, R, R), `starts` of the way through it, and labels (B,)."""
        read = [self._first_readable(i, self._frame_number, start) for i, start in zip(indices, starts, strict=True)]
        return torch.cat([frame for frame, _ in read]), torch.tensor([label for _, label in read])

    def _window_numbers(self, length: int, start: float) -> list[int]:
        # Latte's last window ends a frame before the video does
        windows = max(1, length - self.window) if self.short_videos == SPREAD else length - self.window + 1
        first = int(start * windows)
        last = min(first + self.window, length) - 1
        numbers: list[int] = np.linspace(first, last, self.frames).astype(int).tolist()
        return numbers

    def _frame_number(self, length: int, start: float) -> list[int]:
        return [int(start * length)]

    def _first_readable(
        self, index: int, choose: Callable[[int, float], list[int]], start: float
    ) -> tuple[Tensor, int]:
        """The frames that `choose(length, start)` names, (T, 3, R, R), and the label of the video that they are of."""
        for candidate in range(index, index + len(self)):
            place = candidate % len(self)
            try:
                pictures = clips.decode(self.videos[place], choose(self.lengths[place], start))
            except ValueError as error:
                self._skip(self.videos[place], error)
                continue
            return prepare(pictures, self.resolution, self.resize_by), self.labels[place]
        raise ValueError(f"{self.root} has no readable video")

    def _length(self, video: Path) -> int:
        """Frames of a video, or 0 for one that is to be skipped."""
        try:
            length = clips.length_of(video)
            if length < self.fewest:
                what = f"{self.frames} frames" + ("" if self.short_videos == SPREAD else f" x stride {self.stride}")
                raise ValueError(f"{video} has {length} frames; a clip of {what} needs {self.fewest}")
        except ValueError as error:
            self._skip(video, error)
            return 0
        return length

    def _skip(self, video: Path, error: ValueError) -> None:
        """Raise, or name and count the video where such are skipped."""
        if not self.skip_corrupt:
            raise ValueError(f"{error}; --skip-corrupt leaves such videos out") from error
        name = os.path.relpath(video, self.root)
        if name not in self.corrupt:
            self.corrupt.add(name)
            warnings.warn(f"left out: {error} ({len(self.corrupt)} so far)", stacklevel=2)
