"""Fashion-MNIST (Xiao et al., arXiv 1708.07747): 70,000 photographs of clothes in ten classes, from files found here.

The four IDX files are looked for in PLACES, or in a folder that is given. The sha256 of its content verifies each,
so that a file is the same one however it is packed. Letters: N images, B batch, R pixels a side.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.capacity import require_memory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

SIDE, RESOLUTION = 28, 32
"""Pixels a side of a photograph, and of what is learnt: whole patches of 2, 4 and 8."""
SHRUNK = (16, 8)
"""Smaller squares, in which a pixel is the mean of 2 x 2 or of 4 x 4 at RESOLUTION."""
HELD_BACK = 10_000
"""Photographs at the end of the training file that are never trained on: settings are chosen on them."""
PLACES = (
    "/usr/share/datasets/fashion-mnist",
    *(f"{root}FashionMNIST/raw" for root in ("", "data/", "~/", "~/data/")),
)
"""Where Debian's package `dataset-fashion-mnist` puts the files, and where torchvision's download usually does."""
BELOW = ("", "FashionMNIST/raw")
"""Where the files lie below a folder that is given: it may be torchvision's root."""


@dataclass(frozen=True)
class IdxFile:
    """A file in the IDX format: its name, the shape of its bytes, and the sha256 of its content, unpacked.

    `md5` is of the gzip file as it is published, which torchvision has; other packagings compress it anew.
    """

    name: str
    shape: tuple[int, ...]
    sha256: str
    md5: str

    @property
    def header(self) -> bytes:
        """Two zero bytes, the type (8: unsigned bytes), the number of axes, and the sizes, big-endian."""
        return bytes((0, 0, 8, len(self.shape))) + b"".join(size.to_bytes(4, "big") for size in self.shape)

    def find(self, folder: Path) -> Path | None:
        """The file in a folder, packed or not."""
        return next((path for path in (folder / f"{self.name}.gz", folder / self.name) if path.is_file()), None)

    def read(self, folder: Path) -> NDArray[np.uint8]:
        """Its array, verified. Raises ValueError, naming the file, where it is missing, damaged or another."""
        import numpy as np

        path = self.find(folder)
        if path is None:
            raise ValueError(f"{folder} has no {self.name}.gz; {ADVICE}")
        size = len(self.header) + math.prod(self.shape)
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                content = file.read(size + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is damaged ({error}); {ADVICE}") from error
        digest = hashlib.sha256(content).hexdigest()
        if digest != self.sha256:
            raise ValueError(f"{path} is not Fashion-MNIST's: its content has sha256 {digest}, not {self.sha256}")
        assert content.startswith(self.header), "its hash is known"
        return np.frombuffer(content, np.uint8, offset=len(self.header)).reshape(self.shape)


FILES: dict[str, tuple[IdxFile, IdxFile]] = {
    "train": (
        IdxFile(
            "train-images-idx3-ubyte", (60_000, SIDE, SIDE),
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888", "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        ),
        IdxFile(
            "train-labels-idx1-ubyte", (60_000,),
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", "25c81989df183df01b3e8a0aad5dffbe",
        ),
    ),
    "test": (
        IdxFile(
            "t10k-images-idx3-ubyte", (10_000, SIDE, SIDE),
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b", "bef4ecab320f06d8554ea6380940ec79",
        ),
        IdxFile(
            "t10k-labels-idx1-ubyte", (10_000,),
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", "bb300cfdad3c16e7a12a480ee83cd310",
        ),
    ),
}  # fmt: skip
"""Images and labels of the two files that are published."""

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

ADVICE = (
    "get Fashion-MNIST by `apt-get install dataset-fashion-mnist`, by torchvision.datasets.FashionMNIST(ROOT, "
    "download=True), or as four .gz files from github.com/zalandoresearch/fashion-mnist; --data names their folder"
)


class FashionMNIST:
    """60,000 photographs to learn from, 10,000 of them held back to choose settings on, and 10,000 to score by.

    `part` is `train` (the first 50,000 of the training file), `validation` (its last 10,000) or `test`. `pixels` is
    (N, 1, R, R) uint8, the photographs in the middle of a black square of R pixels; at 16 and 8 they are that of 32,
    shrunk. `where` is the folder of the files. Raises ValueError for files that are missing or not these, and for a
    square that they do not fit into.
    """

    name = "fashion-mnist"
    channels = 1
    parts = ("train", "validation", "test")

    def __init__(self, resolution: int = RESOLUTION, part: str = "train", where: Path | None = None) -> None:
        import numpy as np
        import torch

        if part not in self.parts:
            raise ValueError(f"{self.name} has no part {part!r}; choose from {', '.join(self.parts)}")
        if resolution < SIDE and resolution not in SHRUNK:
            choices = f"at least {SIDE} pixels, or of {', '.join(map(str, SHRUNK))}"
            raise ValueError(f"{self.name} needs a resolution of {choices}, not {resolution}")
        folder = where or self.folder()
        files = FILES["test" if part == "test" else "train"]
        what = f"{files[0].shape[0]:,} photographs of {resolution} x {resolution} pixels"
        require_memory(files[0].shape[0] * resolution**2, what, "take a lower --resolution")
        images, labels = (file.read(folder) for file in files)
        if part != "test":
            kept = slice(None, -HELD_BACK) if part == "train" else slice(-HELD_BACK, None)
            images, labels = images[kept], labels[kept]
        side = RESOLUTION if resolution in SHRUNK else resolution
        before = (side - SIDE) // 2
        margins = (before, side - SIDE - before)
        self.resolution, self.part, self.classes = resolution, part, list(CLASSES)
        pixels = torch.from_numpy(np.pad(images, ((0, 0), margins, margins))[:, None])
        if side != resolution:
            means = torch.nn.functional.avg_pool2d(pixels.float(), side // resolution)
            pixels = means.round().to(torch.uint8)
        self.pixels = pixels
        self.labels = torch.from_numpy(labels.astype(np.int64))

    @staticmethod
    def folder() -> Path:
        """The first of PLACES that has the files. Raises ValueError, with where to get them, where none does."""
        places = [Path(place).expanduser() for place in PLACES]
        for place in places:
            if holds_files(place):
                return place
        raise ValueError(f"no fashion-mnist in {', '.join(map(str, places))}: {ADVICE}")

    @classmethod
    def reference(
        cls, resolution: int | None = None, part: str = "test", where: Path | None = None
    ) -> NDArray[np.uint8]:
        """What samples are compared with: a part, (N, R, R, 1)."""
        return cls(resolution or RESOLUTION, part, where).pixels.permute(0, 2, 3, 1).contiguous().numpy()

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, indices: Sequence[int], flips: Sequence[bool]) -> tuple[Tensor, Tensor]:
        """Images (B, 1, R, R) in [-1, 1] and labels (B,)."""
        import torch

        x = self.pixels[list(indices)].float() / 127.5 - 1
        return torch.where(torch.tensor(flips).view(-1, 1, 1, 1), x.flip(-1), x), self.labels[list(indices)]


def holds_files(folder: Path) -> bool:
    """Whether a folder has images of Fashion-MNIST's names."""
    return any(images.find(folder) for images, _ in FILES.values())


def below(folder: Path) -> Path | None:
    """Where the files lie below a folder that is given; None where it has none."""
    return next((folder / place for place in BELOW if holds_files(folder / place)), None)
