"""Images to learn from: embedded digits, an image tree, or a latent cache of one.

    python -m harness.data encode --data imagenet/train --vae sd-vae-ft-ema --out results/runs/imagenet256

A data set has `len`, `classes`, `channels`, `resolution`, and `load(indices, flips)`, which gives float32 images in
[-1, 1], (B, C, H, W), or a cache's moments, with labels (B,) int64.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from harness.autoencoder import HUB, StableDiffusion
from harness.distributed import choose_device
from harness.latents import INDEX, LatentCache, encode
from harness.seeds import stream
from harness.workload import Parser, positive

EXTENSIONS = (".jpeg", ".jpg", ".png", ".webp", ".bmp")


class Dataset(Protocol):
    name: str
    resolution: int
    channels: int  # of a latent, hence of the model
    classes: list[str]

    def __len__(self) -> int: ...
    def load(self, indices: Sequence[int], flips: Sequence[bool]) -> tuple[Tensor, Tensor]: ...


def order(count: int, seed: int, positions: Sequence[int]) -> list[int]:
    """Which items stand at these positions of the endless shuffled stream: one permutation of all an epoch."""
    return [int(_permutation(count, seed, position // count)[position % count]) for position in positions]


@lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    return stream(seed, "order", epoch).permutation(count)


class Digits:
    """scikit-learn's 1,797 scanned digits (UCI Optical Recognition), ten classes, one channel: no download.

    Eight pixels a side natively; other resolutions by antialiased bicubic resizing. `pixels` is (N, 1, R, R) uint8.
    """

    name = "digits"
    channels = 1

    def __init__(self, resolution: int = 8) -> None:
        from sklearn.datasets import load_digits

        raw = load_digits()
        pixels = torch.from_numpy(raw.images).float()[:, None] * (255 / 16)
        if resolution != pixels.shape[-1]:
            pixels = interpolate(pixels, size=(resolution, resolution), mode="bicubic", antialias=True)
        self.resolution = resolution
        self.pixels = pixels.round().clamp(0, 255).to(torch.uint8)
        self.labels = torch.from_numpy(raw.target).long()
        self.classes = [str(name) for name in raw.target_names]

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, indices: Sequence[int], flips: Sequence[bool]) -> tuple[Tensor, Tensor]:
        x = self.pixels[list(indices)].float() / 127.5 - 1
        return torch.where(torch.tensor(flips).view(-1, 1, 1, 1), x.flip(-1), x), self.labels[list(indices)]


def centre_crop(image: Image.Image, resolution: int) -> Image.Image:
    """DiT's square: halve with a box filter while the short side is at least twice the goal, bicubic, centre crop."""
    while min(image.size) >= 2 * resolution:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = resolution / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - resolution) // 2, (image.height - resolution) // 2
    return image.crop((left, top, left + resolution, top + resolution))


class ImageFolder:
    """A tree with one directory of images a class, as ImageNet's; classes are numbered in sorted order.

    Raises ValueError for a path that is missing, has no class directories, or no images. A corrupt image raises
    ValueError with its path when it is read; with `skip_corrupt` it is named in a warning, counted in `corrupt`, and
    the next readable one stands in for it.
    """

    channels = 3

    def __init__(self, root: Path, resolution: int, skip_corrupt: bool = False) -> None:
        if not root.is_dir():
            raise ValueError(f"no such directory: {root}")
        self.name, self.root, self.resolution, self.skip_corrupt = root.name, root, resolution, skip_corrupt
        self.classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        if not self.classes:
            raise ValueError(f"{root} has no class directories: expected {root}/CLASS/image.jpeg")
        self.names: list[str] = []  # relative to the root
        self.labels: list[int] = []
        for label, name in enumerate(self.classes):
            files = sorted(
                os.path.relpath(os.path.join(folder, file), root)
                for folder, _, inside in os.walk(root / name)
                for file in inside
                if file.lower().endswith(EXTENSIONS)
            )
            self.names += files
            self.labels += [label] * len(files)
        if not self.names:
            raise ValueError(f"{root} has no images in its class directories ({', '.join(EXTENSIONS)})")
        self.corrupt: set[str] = set()

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Tensor:
        """One image (3, R, R) in [-1, 1]. Raises ValueError, naming the file, when it cannot be decoded."""
        path = self.root / self.names[index]
        try:
            with Image.open(path) as file:
                image = centre_crop(file.convert("RGB"), self.resolution)
        except Exception as error:  # a damaged file can raise anything at all from inside a decoder
            raise ValueError(f"corrupt image {path}: {error}; --skip-corrupt leaves such images out") from error
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1

    def read_or_skip(self, index: int) -> Tensor | None:
        """`read`, or None for a corrupt image where those are skipped."""
        if not self.skip_corrupt:
            return self.read(index)
        try:
            return self.read(index)
        except ValueError as error:
            if self.names[index] not in self.corrupt:
                self.corrupt.add(self.names[index])
                reason = str(error).split(";")[0]
                warnings.warn(f"left out {reason} ({len(self.corrupt)} so far)", stacklevel=2)
            return None

    def load(self, indices: Sequence[int], flips: Sequence[bool]) -> tuple[Tensor, Tensor]:
        images, labels = [], []
        for index, flip in zip(indices, flips, strict=True):
            for candidate in range(index, index + len(self)):
                image = self.read_or_skip(candidate % len(self))
                if image is not None:
                    break
            else:
                raise ValueError(f"{self.root} has no readable image")
            images.append(image.flip(-1) if flip else image)
            labels.append(self.labels[candidate % len(self)])
        return torch.stack(images), torch.tensor(labels)


def open_dataset(name: str, resolution: int, skip_corrupt: bool = False, verify: bool = True) -> Dataset:
    """`digits`, the directory of a latent cache, or the root of an image tree. Raises ValueError as those do.

    `verify` checks a cache's hashes, which reads it whole: once is enough for all processes.
    """
    if name == "digits":
        return Digits(resolution)
    path = Path(name).expanduser()
    if not path.is_dir():
        raise ValueError(f"no data at {name!r}: give 'digits', an image tree, or a latent cache")
    if not (path / INDEX).is_file():
        return ImageFolder(path, resolution, skip_corrupt)
    cache = LatentCache(path, verify)
    if cache.resolution != resolution:
        raise ValueError(f"the latent cache {name} is of resolution {cache.resolution}, not {resolution}")
    return cache


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
