"""A tree of image files to learn from, prepared as DiT prepares it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

EXTENSIONS = (".jpeg", ".jpg", ".png", ".webp", ".bmp")


def open_rgb(path: Path) -> Image.Image:
    """A picture in RGB. Raises ValueError, naming the file, for a damaged one: of PNG files the checksums are read."""
    try:
        with Image.open(path) as file:
            if file.format == "PNG":  # decoding alone takes no notice of them
                file.verify()
        with Image.open(path) as file:
            if file.mode == "F" or file.mode.startswith("I"):
                raise ValueError(f"it has more than 8 bits a channel (mode {file.mode}); convert it first")
            return file.convert("RGB")
    except Exception as error:  # a damaged file can raise anything at all from inside a decoder
        raise ValueError(f"corrupt image {path}: {error}") from error


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
            image = centre_crop(open_rgb(path), self.resolution)
        except ValueError as error:
            raise ValueError(f"{error}; --skip-corrupt leaves such images out") from error
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
