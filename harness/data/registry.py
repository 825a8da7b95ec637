"""Data sets by name, and by the kind of folder: what `--data`, a preset and a metric's name may call for.

A new data set that goes by a name is a file with a class as harness.data.datasets describes it, and its name in one of
the two lists here. Imports no torch, and what reads a folder only when there is one to read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data import fashion_mnist
from harness.data.bouncing_digits import BouncingDigits
from harness.data.digits import Digits
from harness.data.fashion_mnist import FashionMNIST
from harness.data.moving_digits import MovingDigits
from harness.data.video_choices import BY_SIZE, REFUSE

if TYPE_CHECKING:
    from harness.data.datasets import ClipsByName, Dataset, ImagesByName, VideoDataset

IMAGES: Mapping[str, ImagesByName] = {data.name: data for data in (Digits, FashionMNIST)}
CLIPS: Mapping[str, ClipsByName] = {data.name: data for data in (MovingDigits, BouncingDigits)}

INDEX = "index.json"
"""The file by which the directory of a latent cache differs from an image tree."""


def open_dataset(name: str, resolution: int, skip_corrupt: bool = False, verify: bool = True) -> Dataset:
    """A data set of images by name, the files of one, the directory of a latent cache, or the root of an image tree.

    `verify` checks a cache's hashes, which reads it whole: once is enough for all processes. Raises ValueError for
    what is none of these, for a data set of clips, and as the data set does.
    """
    if name in CLIPS:
        raise ValueError(f"{name} is of clips, which take a model of video, such as DiM-T/2-video")
    if name in IMAGES:
        _require_files(name, skip_corrupt)
        return IMAGES[name](resolution)
    path = Path(name).expanduser()
    if not path.is_dir():
        raise ValueError(f"no data at {name!r}: give {', '.join(map(repr, IMAGES))}, an image tree, or a latent cache")
    files = fashion_mnist.below(path)
    if files is not None:
        _require_files(name, skip_corrupt)
        return FashionMNIST(resolution, where=files)
    if not (path / INDEX).is_file():
        from harness.data.images import ImageFolder

        return ImageFolder(path, resolution, skip_corrupt)
    from harness.data.latents import LatentCache

    _require_files(name, skip_corrupt)
    cache = LatentCache(path, verify)
    if cache.resolution != resolution:
        raise ValueError(f"the latent cache {name} is of resolution {cache.resolution}, not {resolution}")
    return cache


def open_videos(
    name: str, resolution: int, frames: int, stride: int, lists: Sequence[Path] = (), skip_corrupt: bool = False,
    short_videos: str = REFUSE, resize_by: str = BY_SIZE,
) -> VideoDataset:  # fmt: skip
    """A data set of clips by name, or the root of a tree of videos, of which split lists may choose.

    Clips are of `frames` frames, `stride` apart. Raises ValueError for what is neither, and as the data set does.
    """
    if name in CLIPS:
        for flag, given in (("--short-videos", short_videos != REFUSE), ("--resize-by", resize_by != BY_SIZE)):
            if given:
                raise ValueError(f"{flag} is of videos that are read, and {name} is none of them")
        _require_files(name, skip_corrupt, lists)
        return CLIPS[name](resolution, frames, stride)
    path = Path(name).expanduser()
    if not path.is_dir():
        raise ValueError(
            f"no videos at {name!r}: give {', '.join(map(repr, CLIPS))} or a tree of videos, one directory a class"
        )
    from harness.data.videos import VideoFolder

    return VideoFolder(path, resolution, frames, stride, lists, skip_corrupt, short_videos, resize_by)


def _require_files(name: str, skip_corrupt: bool, lists: Sequence[Path] = ()) -> None:
    """Raise ValueError for a flag that chooses among files, of data that are not read from a tree of files."""
    if skip_corrupt:
        raise ValueError(f"--skip-corrupt leaves files out, and {name} is not read from a tree of files")
    if lists:
        raise ValueError(f"--split-list chooses videos of a tree, and {name} is none")
