"""Samples on disk: numbered PNG files, or folders of numbered frames for clips, and ADM's npz. Nothing is lossy."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from harness.core.distributed import Ranks, barrier
from harness.core.files import read_json, write_atomically, write_json
from harness.core.progress import progress_bar
from harness.diffusion.generate import Samples, generate
from harness.diffusion.sample_config import SampleConfig
from harness.diffusion.trained import Trained

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Album:
    """A folder of samples of one resolution in pixels: `000000.png`, or for clips (`frames` > 0) `000000/0000.png`."""

    folder: Path
    resolution: int
    frames: int = 0

    @classmethod
    def of(cls, trained: Trained, folder: Path) -> Album:
        return cls(folder, trained.model.resolution, trained.model.spec.frames)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample: ([T,] H, W, 3)."""
        image = (self.resolution, self.resolution, 3)
        return (self.frames, *image) if self.frames else image

    def files(self, index: int) -> list[Path]:
        """The pictures of a sample, in order of time."""
        if not self.frames:
            return [self.folder / f"{index:06d}.png"]
        return [self.folder / f"{index:06d}" / f"{frame:04d}.png" for frame in range(self.frames)]

    def begin(self, settings: dict[str, Any]) -> None:
        """Write down what the folder's samples follow from. Raises ValueError when it already holds samples of others.

        `provenance` may differ between the runs that fill one folder.
        """
        path = self.folder / SETTINGS
        empty = not any(self.folder.glob("*.png")) and not any(self.folder.glob("[0-9]*/*.png"))
        if path.is_file() and not empty:
            held = read_json(path)
            requested = json.loads(json.dumps(settings))  # tuples become lists, as in the file
            known = [key for key in {**held, **requested} if key != "provenance"]
            changed = [key for key in known if held.get(key) != requested.get(key)]
            if changed:
                what = "; ".join(f"{key} is {held.get(key)!r}, requested {requested.get(key)!r}" for key in changed)
                raise ValueError(f"{self.folder} holds other samples: {what}; choose another --out")
            return
        if not empty:
            raise ValueError(f"{self.folder} holds pictures of unknown origin; choose another --out")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)

    def write(self, samples: Samples) -> None:
        """The pictures of these samples, each whole or not there, with its class in the text field `class`."""
        for index, sample, label in zip(samples.indices, samples.images, samples.labels, strict=True):
            text = PngInfo()
            text.add_text("class", str(label))
            for path, image in zip(self.files(index), sample.reshape(-1, *self.shape[-3:]), strict=True):
                path.parent.mkdir(exist_ok=True)
                write_atomically(path, partial(Image.fromarray(image).save, format="png", pnginfo=text))

    def present(self, index: int) -> bool:
        """Whether all pictures of a sample are there, of the right size and with intact checksums."""
        return all(self._intact(path) for path in self.files(index))

    def _intact(self, path: Path) -> bool:
        try:
            with Image.open(path) as file:
                file.verify()
                return file.size == (self.resolution, self.resolution) and "class" in file.info
        except (OSError, SyntaxError, ValueError):  # damage can raise any of them inside of Pillow
            return False

    def read(self, index: int) -> tuple[NDArray[np.uint8], int]:
        """A sample ([T,] H, W, 3) and its label."""
        images = []
        for path in self.files(index):
            with Image.open(path) as file:
                images.append(np.asarray(file.convert("RGB")))
                label = int(file.info["class"])
        return np.stack(images).reshape(self.shape), label

    def clear(self) -> None:
        """Remove the samples and their settings."""
        (self.folder / SETTINGS).unlink(missing_ok=True)
        for path in self.folder.glob("[0-9]*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def first(self, count: int) -> Iterator[tuple[NDArray[np.uint8], int]]:
        return (self.read(index) for index in range(count))

    def fill(self, trained: Trained, config: SampleConfig, count: int, batch: int, here: Ranks) -> None:
        """Draw those of the first `count` samples that are missing or damaged, this process its share; wait for all."""
        missing = [index for index in range(count) if not self.present(index)]
        barrier()
        unit = "clip" if self.frames else "image"
        with progress_bar(len(missing), unit, "samples", shown=here.first) as bar:
            for samples in generate(trained, config, missing, batch, here):
                self.write(samples)
                bar.update(min(len(samples.indices) * here.world, bar.total - bar.n))
        barrier()

    def pack_npz(self, count: int) -> Path:
        """`samples.npz` as ADM's evaluation reads it: arr_0 (N, [T,] H, W, 3) uint8, arr_1 (N,) int64.

        Never all in memory.
        """
        path = self.folder / "samples.npz"
        labels = np.empty(count, dtype=np.int64)

        def fill(file: Any) -> None:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                with archive.open("arr_0.npy", "w", force_zip64=True) as member:
                    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *self.shape)}
                    np.lib.format.write_array_header_1_0(member, header)
                    for index, (image, label) in enumerate(self.first(count)):
                        member.write(image.tobytes())
                        labels[index] = label
                with archive.open("arr_1.npy", "w") as member:
                    np.lib.format.write_array(member, labels)

        write_atomically(path, fill)
        return path
