"""Videos on disk, a file or a folder of frames each: which there are, how long they are, and their frames by number."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from harness.data.images import EXTENSIONS, open_rgb

VIDEO_EXTENSIONS = (".avi", ".mp4", ".mkv", ".mov", ".webm")


def find(root: Path) -> list[Path]:
    """The videos under a folder in order of path: folders of frames or files. Raises ValueError for none, or both."""
    folders = sorted({path.parent for path in root.rglob("*") if path.suffix.lower() in EXTENSIONS} - {root})
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in VIDEO_EXTENSIONS)
    if bool(folders) == bool(files):
        found = "both frame folders and video files" if files else "neither frame folders nor video files"
        raise ValueError(f"{root} has {found}; clips are one or the other ({', '.join(VIDEO_EXTENSIONS)})")
    return folders or files


def files_of(video: Path) -> list[Path]:
    """The frames of a folder in order of the numbers in their names, or the one video file."""
    if video.is_dir():
        return sorted((path for path in video.iterdir() if path.suffix.lower() in EXTENSIONS), key=_numbered)
    return [video]


def _numbered(path: Path) -> list[str | int]:
    """A name as texts and numbers in turn, by which frame 2 comes before frame 10."""
    return [int(piece) if at % 2 else piece for at, piece in enumerate(re.split(r"(\d+)", path.name))]


def length_of(video: Path) -> int:
    """Frames in a video: what its header states, else a count. Raises ValueError, naming it, when it is unreadable."""
    if video.is_dir():
        return len(files_of(video))
    with _open(video) as container:
        return container.streams.video[0].frames or sum(1 for _ in container.decode(video=0))


def decode(video: Path, wanted: Sequence[int]) -> list[Image.Image]:
    """Frames of these ascending numbers, in RGB and all of one size.

    Raises ValueError, naming the video, when it is damaged, ends too early, or mixes sizes.
    """
    try:
        pictures = _frames_of_folder(video, wanted) if video.is_dir() else _frames_of_file(video, wanted)
    except ValueError:
        raise
    except Exception as error:  # a damaged file can raise anything from inside a decoder
        raise ValueError(f"corrupt video {video}: {error}") from error
    for number, picture in zip(wanted, pictures, strict=True):
        if picture.size != pictures[0].size:
            sizes = " and ".join(f"{one.width} x {one.height}" for one in (pictures[0], picture))
            raise ValueError(f"{video} mixes sizes: frames {wanted[0]} and {number} are {sizes}")
    return pictures


def _frames_of_folder(folder: Path, wanted: Sequence[int]) -> list[Image.Image]:
    files = files_of(folder)
    return [open_rgb(files[number]) for number in wanted]


def _frames_of_file(path: Path, wanted: Sequence[int]) -> list[Image.Image]:
    pictures: list[Image.Image] = []
    with _open(path) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number == wanted[len(pictures)]:
                pictures.append(frame.to_image())
                if len(pictures) == len(wanted):
                    return pictures
    raise ValueError(f"{path} ended after {len(pictures)} of the {len(wanted)} frames wanted")


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        import av
    except ImportError as error:
        raise ValueError("video files need PyAV: pip install av") from error
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"corrupt video {path}: it has no video stream")
            yield container
    except av.FFmpegError as error:
        raise ValueError(f"corrupt video {path}: {error}") from error
