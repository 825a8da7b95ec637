"""Images and clips to learn from: embedded digits, still or moving, trees of images or videos, latent caches.

    python -m harness.data encode --data imagenet/train --vae sd-vae-ft-ema --out results/runs/imagenet256

A data set has `len`, `classes`, `channels`, `resolution`, and `load(indices, flips)`, which gives float32 images in
[-1, 1], (B, C, H, W), or a cache's moments, with labels (B,) int64. One of clips has `load_clips(indices, flips,
starts)`, which gives (B, T, C, H, W), and `load_frames(indices, starts)`, which gives images; `starts` in [0, 1) say
how far into a video.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor
from tqdm import tqdm

from harness.autoencoder import HUB, StableDiffusion
from harness.distributed import choose_device
from harness.images import Digits, ImageFolder
from harness.latents import INDEX, LatentCache, encode
from harness.moving_digits import MovingDigits
from harness.seeds import stream
from harness.videos import VideoFolder
from harness.workload import Parser, positive


class Collection(Protocol):
    """What every data set has."""

    name: str
    resolution: int
    channels: int  # of a latent, hence of the model
    classes: list[str]

    def __len__(self) -> int: ...


class Dataset(Collection, Protocol):
    """Images."""

    def load(self, indices: Sequence[int], flips: Sequence[bool]) -> tuple[Tensor, Tensor]: ...


class VideoDataset(Collection, Protocol):
    """Videos, of which clips or single frames are taken. `corrupt` names those that were left out."""

    frames: int
    stride: int
    corrupt: set[str]

    def load_clips(
        self, indices: Sequence[int], flips: Sequence[bool], starts: Sequence[float]
    ) -> tuple[Tensor, Tensor]: ...
    def load_frames(self, indices: Sequence[int], starts: Sequence[float]) -> tuple[Tensor, Tensor]: ...


def order(count: int, seed: int, positions: Sequence[int]) -> list[int]:
    """Which items stand at these positions of the endless shuffled stream: one permutation of all an epoch."""
    return [int(_permutation(count, seed, position // count)[position % count]) for position in positions]


@lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    return stream(seed, "order", epoch).permutation(count)


def open_dataset(name: str, resolution: int, skip_corrupt: bool = False, verify: bool = True) -> Dataset:
    """`digits`, the directory of a latent cache, or the root of an image tree. Raises ValueError as those do.

    `verify` checks a cache's hashes, which reads it whole: once is enough for all processes.
    """
    if name == "digits":
        return Digits(resolution)
    if name == MovingDigits.name:
        raise ValueError(f"{name} is of clips, which take a model of video, such as DiM-T/2-video")
    path = Path(name).expanduser()
    if not path.is_dir():
        raise ValueError(f"no data at {name!r}: give 'digits', an image tree, or a latent cache")
    if not (path / INDEX).is_file():
        return ImageFolder(path, resolution, skip_corrupt)
    cache = LatentCache(path, verify)
    if cache.resolution != resolution:
        raise ValueError(f"the latent cache {name} is of resolution {cache.resolution}, not {resolution}")
    return cache


def open_videos(
    name: str, resolution: int, frames: int, stride: int, lists: Sequence[Path] = (), skip_corrupt: bool = False
) -> VideoDataset:
    """`moving-digits`, or the root of a tree of videos, of which split lists may choose. Raises ValueError as those do.

    Clips are of `frames` frames, `stride` apart.
    """
    if name == MovingDigits.name:
        return MovingDigits(resolution, frames, stride)
    path = Path(name).expanduser()
    if not path.is_dir():
        raise ValueError(
            f"no videos at {name!r}: give {MovingDigits.name!r} or a tree of videos, one directory a class"
        )
    return VideoFolder(path, resolution, frames, stride, lists, skip_corrupt)


def parser() -> Parser:
    door = Parser(prog="python -m harness.data", description="Encode an image tree into latents.")
    verb = door.add_subparsers(dest="verb", required=True).add_parser("encode", help="write a latent cache")
    verb.add_argument("--data", type=Path, required=True, help="an image tree, one directory a class")
    verb.add_argument("--out", type=Path, required=True, help="the cache's directory; the same command resumes")
    verb.add_argument("--vae", default=HUB, help="directory or hub name of the autoencoder (default: %(default)s)")
    verb.add_argument("--resolution", type=positive, default=256)
    verb.add_argument("--batch", type=positive, default=32, help="images through the encoder at once")
    verb.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    verb.add_argument("--skip-corrupt", action="store_true", help="leave unreadable images out, named and counted")
    return door


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    try:
        images = ImageFolder(asked.data, asked.resolution, asked.skip_corrupt)
        device = choose_device(asked.device)
        autoencoder = StableDiffusion(asked.vae, device)
        with tqdm(total=len(images), unit="image") as bar:
            for done in encode(images, autoencoder, asked.out, asked.batch, device):
                bar.update(done - bar.n)
        cache = LatentCache(asked.out)
    except ValueError as error:
        parser().error(str(error))
    print(f"{len(cache)} images in {asked.out}, {len(images.corrupt)} left out as corrupt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
