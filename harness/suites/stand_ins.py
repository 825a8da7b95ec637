"""Made-up data in the formats, shapes and oddities of the real ones, so that a suite can run without.

ImageNet's tree has photographs of many sizes, some of them grey or CMYK, one of them a PNG by the name of a JPEG.
UCF-101's has videos of 4:3, the shortest of 29 frames. Beside them lie networks of random weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from harness.core.distributed import Ranks
from harness.metrics import references
from harness.metrics.features import SPACES
from harness.metrics.settings import Extraction
from harness.suites.random_networks import random_autoencoder, random_i3d, random_inception

IMAGE_CLASSES, VIDEO_CLASSES = 1000, 101
SIZES = ((96, 72), (64, 80), (130, 160), (100, 70))
"""Of photographs: larger, smaller and more than twice as large as 64 pixels."""
KINDS = (("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"))
FRAME = (30, 40)
"""Of UCF-101's 240 x 320 an eighth a side: to 32 pixels it is scaled as that to 256."""
LENGTHS = (60, 29, 48, 75)
"""Frames of videos: a clip of 16 with stride 3 spans 48."""
VALIDATION = 8


@dataclass(frozen=True)
class StandIns:
    """Where everything lies."""

    folder: Path

    @property
    def data(self) -> dict[str, str]:
        """By preset."""
        return {"imagenet256": str(self.folder / "imagenet" / "train"), "ucf101": str(self.folder / "ucf101")}

    @property
    def references(self) -> dict[str, str]:
        """By preset: ADM's layout, and videos as they are."""
        return {"imagenet256": str(self.folder / "VIRTUAL_imagenet.npz"), "ucf101": self.data["ucf101"]}

    @property
    def vae(self) -> str:
        """The autoencoder's directory."""
        return str(self.folder / "autoencoder")

    @property
    def extraction(self) -> tuple[tuple[str, Path | int], ...]:
        """Fields of an Extraction: random weights, few images at once."""
        return (
            ("inception_weights", self.folder / "inception.pth"), ("i3d_weights", self.folder / "i3d.pt"), ("batch", 4)
        )  # fmt: skip

    def write(self, resolution: int) -> StandIns:
        """Make all of it; the reference has this resolution. Raises ValueError for a package that is missing."""
        for number in range(IMAGE_CLASSES):
            write_photograph(self.folder / "imagenet" / "train" / f"n{number:08d}" / f"n{number:08d}_1.JPEG", number)
        for number in range(VALIDATION):
            write_photograph(self.folder / "imagenet" / "val" / f"{number}.JPEG", IMAGE_CLASSES + number)
        for number in range(VIDEO_CLASSES):
            write_video(self.folder / "ucf101" / f"Class{number:03d}" / f"v_Class{number:03d}_g01_c01.avi", number)
        random_autoencoder(self.folder / "autoencoder")
        random_inception(self.folder / "inception.pth")
        random_i3d(self.folder / "i3d.pt")
        extraction = Extraction(
            ref_resolution=resolution, inception_weights=self.folder / "inception.pth", batch=4,
            work_dir=self.folder / "eval",
        )  # fmt: skip
        here = Ranks(0, 1, torch.device("cpu"))
        where = Path(self.references["imagenet256"])
        references.build(str(self.folder / "imagenet" / "val"), SPACES["inception"], where, extraction, here)
        return self


def blotches(random: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """(H, W, 3): a few colours that run into each other, as the parts of a photograph do."""
    colours = Image.fromarray(random.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return np.asarray(colours.resize((width, height), Image.Resampling.BICUBIC))


def write_photograph(path: Path, seed: int) -> None:
    """A picture of one of SIZES, in one of KINDS."""
    (width, height), (mode, form) = SIZES[seed % len(SIZES)], KINDS[seed // 2 % len(KINDS)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(blotches(np.random.default_rng(seed), height, width)).convert(mode).save(path, format=form)


def write_video(path: Path, seed: int) -> None:
    """Colours that drift to the right, of one of LENGTHS, as an AVI of MPEG-4. Raises ValueError without PyAV."""
    try:
        import av
    except ImportError as error:
        raise ValueError("video files need PyAV: pip install av") from error
    picture = blotches(np.random.default_rng(seed), *FRAME)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = FRAME
        stream.pix_fmt = "yuv420p"
        for shift in range(LENGTHS[seed % len(LENGTHS)]):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, shift, axis=1), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode())
