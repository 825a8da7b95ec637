"""Clips for the Fréchet video distance: where they come from, and which frames of which videos they are.

StyleGAN-V (arXiv 2112.14683): the first 2,048 videos in order of path, one clip each; real clips begin at a random
frame, generated ones at the first; videos too short for a real clip are passed over. Latte (arXiv 2401.03048) changes
one line of its code: the 2,048 real videos are drawn at random. Of UCF-101 the first ones hold 16 of 101 classes.
Letters: T frames of a clip, H height, W width, C channels (1 or 3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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
from harness.data.sources import ArraySource, Source, labels_of, open_npz


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
    def labels(self) -> NDArray[Any] | None:
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
    """A clip each of some `rows` of an array of videos (N, T, H, W, C), cut when read; `identity` states where."""

    def __init__(
        self, videos: ArraySource, rows: Sequence[int], starts: Sequence[int], frames: int, stride: int
    ) -> None:
        clip = {"frames": frames, "stride": stride, "starts": list(starts), "codec": "array"}
        clip |= {} if list(rows) == list(range(len(rows))) else {"rows": list(rows)}
        identity = {"kind": "clips", "sha256": videos.identity.get("sha256", videos.identity), **clip}
        labels = None if videos.labels is None else videos.labels[list(rows)]
        super().__init__(videos.name, videos.array, identity)
        self.rows, self.starts, self.frames, self.stride = list(rows), list(starts), frames, stride
        self.count, self.labels, self.shape = len(self.rows), labels, (frames, *videos.shape[1:])

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Clips [start, stop)."""
        span = self.frames * self.stride
        cuts = zip(self.rows[start:stop], self.starts[start:stop], strict=True)
        return np.stack([self.array[row, first : first + span : self.stride] for row, first in cuts])


def open_clips(
    what: str | ArraySource,
    frames: int | None,
    limit: int | None = None,
    *,
    stride: int = 1,
    offset_seed: int | None = None,
    drawn: bool = False,
    resolution: int | None = None,
) -> Source:
    """At most `limit` clips of an array or .npz (N, T, H, W, 3), of a folder of frame folders or of video files.

    They are of `frames` frames, or else of as many as the first video has. With `offset_seed` (the reference of an FVD)
    a clip begins at a random frame and short videos are passed over; without (samples) it begins at the first and a
    short video is an error. The videos are the first in order of path, or `drawn` at random by that seed. `resolution`
    crops and resizes, as StyleGAN-V does beforehand. Raises ValueError for what is missing, empty, or holds no clips.
    """
    if resolution is not None and (isinstance(what, ArraySource) or what.endswith(".npz")):
        name = what.name if isinstance(what, ArraySource) else what
        raise ValueError(f"--ref-resolution crops and resizes folders and data sets; {name} is taken as it is")
    if isinstance(what, ArraySource):
        return _cut(what, frames, stride, offset_seed, drawn, limit)
    path = Path(what).expanduser()
    if path.suffix == ".npz":
        return _cut(open_npz(what, "clips"), frames, stride, offset_seed, drawn, limit)
    if not what or not path.is_dir():
        raise ValueError(f"no clips at {what!r}: give an .npz, a folder of frame folders, or a folder of videos")
    chosen: list[str] = []
    starts: list[int] = []
    suffixes: set[str] = set()
    videos = clips.find(path)
    for index in _order(len(videos), offset_seed, drawn):
        video = videos[index]
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
    return ClipSource(what, path, tuple(chosen), tuple(starts), frames, stride, codec, resolution)


def _order(count: int, offset_seed: int | None, drawn: bool) -> Sequence[int]:
    """In which order videos are looked at: by path, or shuffled, of which the first that are long enough are a draw."""
    if not drawn:
        return range(count)
    assert offset_seed is not None, "only a reference is drawn"
    order: list[int] = np.random.default_rng([offset_seed, count]).permutation(count).tolist()
    return order


def _start(length: int, frames: int, stride: int, offset_seed: int | None, index: int) -> int | None:
    """The first frame of clip number `index`, or None for a video of too few frames."""
    last = length - 1 - (frames - 1) * stride
    if offset_seed is None:
        return 0 if last >= 0 else None
    if length < frames * stride:  # stricter than need be, as in StyleGAN-V
        return None
    return int(np.random.default_rng([offset_seed, index]).integers(last + 1))


def _cut(
    videos: ArraySource, frames: int | None, stride: int, offset_seed: int | None, drawn: bool, limit: int | None
) -> ArrayClips:
    if videos.array.ndim != 5:
        raise ValueError(f"{videos.name} has shape {videos.array.shape}; clips are (N, T, H, W, 3)")
    count, length = videos.array.shape[:2]
    frames = frames or length
    rows = _order(count, offset_seed, drawn)[: limit or count]
    starts = [_start(length, frames, stride, offset_seed, index) for index in range(len(rows))]
    cut = [start for start in starts if start is not None]
    if not cut or len(cut) < len(starts):
        raise ValueError(
            f"{videos.name}: {count} videos of {length} frames have no clip of {frames} with stride {stride}"
        )
    return ArrayClips(videos, rows, cut, frames, stride)
