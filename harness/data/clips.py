"""Clips for the Fréchet video distance: where they come from, and which frames of which videos they are.

StyleGAN-V (arXiv 2112.14683): the first 2,048 videos in order of path, one clip each; real clips begin at a random
frame, generated ones at the first; videos too short for a real clip are passed over. Letters: T frames of a clip,
H height, W width, C channels (1 or 3).
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.core.files import sha256
from harness.data import decoding as clips
from harness.data.npz import Npz
from harness.data.sources import ArraySource, Source, labels_of


@dataclass(frozen=True)
class ClipProtocol:
    """Every choice of an FVD that is not in its name. `split` is the user's word for which videos the reference is.

    Strides are in frames; real clips begin where `offset_seed` says. `covariance` divides by N (`population`, as
    StyleGAN-V) or by N - 1 (`sample`, as TF-Hub's). Latte's numbers have `stride_real` 3.
    """

    stride_real: int = 1
    stride_fake: int = 1
    split: str = "unstated"
    offset_seed: int = 0
    covariance: str = "population"


@dataclass(frozen=True)
class ClipSource:
    """One clip of each video under a folder; `starts` gives the first frame, `codec` how the frames are stored."""

    name: str
    root: Path
    videos: tuple[str, ...]  # folders of frames, or files, relative to the root
    starts: tuple[int, ...]
    frames: int
    stride: int
    codec: str
    resolution: int | None = None

    @property
    def count(self) -> int:
        return len(self.videos)

    @cached_property
    def labels(self) -> NDArray | None:
        """The classes that harness.sample wrote into its frames."""
        folders = [self.root / video for video in self.videos]
        return labels_of([clips.files_of(folder)[0] for folder in folders])

    @cached_property
    def identity(self) -> dict[str, object]:
        total = hashlib.sha256()
        for video, start in zip(self.videos, self.starts, strict=True):
            for file in clips.files_of(self.root / video):
                total.update(f"{file.relative_to(self.root)}\0{sha256(file)}\0{start}\n".encode())
        clip = {"frames": self.frames, "stride": self.stride, "codec": self.codec, "resolution": self.resolution}
        return {"kind": "clips", "sha256": total.hexdigest(), **clip}

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return self.decode(0).shape

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        with ThreadPoolExecutor() as pool:  # decoders let other threads run
            decoded = list(pool.map(self.decode, range(start, stop)))
        for video, clip in zip(self.videos[start:stop], decoded, strict=True):
            if clip.shape != self.shape:
                sizes = " and ".join(f"{s[2]} x {s[1]}" for s in (self.shape, clip.shape))
                raise ValueError(f"{self.root} mixes sizes: {self.videos[0]} and {video} are {sizes}")
        return np.stack(decoded)

    def decode(self, index: int) -> NDArray[np.uint8]:
        """One clip, (T, H, W, 3). Raises ValueError, naming the video, when it cannot be decoded."""
        path, start = self.root / self.videos[index], self.starts[index]
        wanted = range(start, start + self.frames * self.stride, self.stride)
        return np.stack([np.asarray(self._resized(picture)) for picture in clips.decode(path, wanted)])

    def _resized(self, picture: Image.Image) -> Image.Image:
        """StyleGAN-V's preparation: the central square, then Lanczos."""
        if self.resolution is None:
            return picture
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        square = picture.crop((left, top, left + side, top + side))
        return square.resize((self.resolution, self.resolution), Image.Resampling.LANCZOS)


class ArrayClips(ArraySource):
    """Clips of an array of videos (N, T, H, W, C), cut when they are read; `identity` says where."""

    def __init__(self, name: str, array: NDArray, identity: dict[str, Any], labels: NDArray | None = None) -> None:
        super().__init__(name, array, identity, labels)
        self.starts: list[int] = identity["starts"]
        self.stride, self.frames = identity["stride"], identity["frames"]
        self.count, self.shape = len(self.starts), (self.frames, *array.shape[2:])

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        span = self.frames * self.stride
        cuts = enumerate(self.starts[start:stop], start)
        return np.stack([self.array[index, first : first + span : self.stride] for index, first in cuts])


def open_clips(
    text: str,
    frames: int | None,
    limit: int | None = None,
    *,
    stride: int = 1,
    offset_seed: int | None = None,
    resolution: int | None = None,
) -> Source:
    """At most `limit` clips of an .npz (N, T, H, W, 3), of a folder of frame folders, or of a folder of video files.

    They are of `frames` frames, or else of as many as the first video has. With `offset_seed` (the reference of an FVD)
    a clip begins at a random frame and short videos are passed over; without (samples) it begins at the first and a
    short video is an error. `resolution` crops and resizes, as StyleGAN-V does beforehand. Raises ValueError for what
    is missing, empty, or holds no clips.
    """
    path = Path(text).expanduser()
    if path.suffix == ".npz":
        return _clips_of_array(text, Npz(path), frames, stride, offset_seed, limit)
    if not path.is_dir():
        raise ValueError(f"no clips at {text!r}: give an .npz, a folder of frame folders, or a folder of videos")
    chosen: list[str] = []
    starts: list[int] = []
    suffixes: set[str] = set()
    for video in clips.find(path):
        length = clips.length_of(video)
        frames = frames or length
        start = _start(length, frames, stride, offset_seed, len(chosen))
        if start is None:
            if offset_seed is None:
                raise ValueError(f"{video} has {length} frames; a clip of {frames} with stride {stride} needs more")
            continue
        chosen.append(str(video.relative_to(path)))
        starts.append(start)
        suffixes.add(clips.files_of(video)[0].suffix.lower())
        if len(chosen) == limit:
            break
    assert frames is not None, "there is a first video"
    if not chosen:
        raise ValueError(f"{path}: no video has the {frames * stride} frames of a clip")
    codec = " and ".join(sorted(suffixes))
    return ClipSource(text, path, tuple(chosen), tuple(starts), frames, stride, codec, resolution)


def _start(length: int, frames: int, stride: int, offset_seed: int | None, index: int) -> int | None:
    """The first frame of clip number `index`, or None for a video of too few frames."""
    last = length - 1 - (frames - 1) * stride
    if offset_seed is None:
        return 0 if last >= 0 else None
    if length < frames * stride:  # stricter than need be, as in StyleGAN-V
        return None
    return int(np.random.default_rng([offset_seed, index]).integers(last + 1))


def _clips_of_array(
    text: str, file: Npz, frames: int | None, stride: int, offset_seed: int | None, limit: int | None
) -> Source:
    file.require("arr_0", "holds the clips")
    array = file.array("arr_0")
    if array.ndim != 5:
        raise ValueError(f"{text} has shape {array.shape}; clips are (N, T, H, W, 3)")
    videos, length = array.shape[:2]
    frames = frames or length
    starts = [_start(length, frames, stride, offset_seed, index) for index in range(min(limit or videos, videos))]
    if not starts or None in starts:
        raise ValueError(f"{text}: {videos} videos of {length} frames have no clip of {frames} with stride {stride}")
    clip = {"frames": frames, "stride": stride, "starts": starts, "codec": "array"}
    labels = np.asarray(file.array("arr_1"))[: len(starts)] if "arr_1" in file else None
    return ArrayClips(text, array, {"kind": "clips", "sha256": file.digest("arr_0"), **clip}, labels)
