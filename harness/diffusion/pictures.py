"""Samples on disk: a folder of numbered PNG files, ADM's npz, and a labelled grid for the eyes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from harness.diffusion.generate import Samples
from harness.files import write_atomically, write_json

SETTINGS = "settings.json"


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Write down what a folder of samples holds. Raises ValueError when it already holds something else.

    `provenance` may differ between the runs that fill one folder.
    """
    path = folder / SETTINGS
    if path.is_file():
        held = json.loads(path.read_text())
        asked = json.loads(json.dumps(settings))  # tuples become lists, as in the file
        changed = [key for key in asked if key != "provenance" and held.get(key) != asked[key]]
        if changed:
            what = "; ".join(f"{key} is {held.get(key)!r}, asked for {asked[key]!r}" for key in changed)
            raise ValueError(f"{folder} holds other samples: {what}; choose another --out")
        return
    if folder.is_dir() and any(folder.glob("*.png")):
        raise ValueError(f"{folder} holds pictures of unknown origin; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def png(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.png"


def write(folder: Path, samples: Samples) -> None:
    """One PNG a sample, whole or not there, with its class in the text field `class`."""
    for index, image, label in zip(samples.indices, samples.images, samples.labels, strict=True):
        text = PngInfo()
        text.add_text("class", str(label))
        picture = Image.fromarray(image)
        write_atomically(png(folder, index), partial(picture.save, format="png", pnginfo=text))


def present(folder: Path, index: int, resolution: int) -> bool:
    """Whether a sample is there, of the right size and with intact checksums."""
    try:
        with Image.open(png(folder, index)) as file:
            file.verify()
            return file.size == (resolution, resolution) and "class" in file.info
    except (OSError, SyntaxError):
        return False


def read(folder: Path, count: int) -> Iterator[tuple[np.ndarray, int]]:
    """Images (H, W, 3) uint8 and labels, in order."""
    for index in range(count):
        with Image.open(png(folder, index)) as file:
            yield np.asarray(file.convert("RGB")), int(file.info["class"])


def pack_npz(folder: Path, count: int, resolution: int) -> Path:
    """`samples.npz` as ADM's evaluation reads it: arr_0 (N, H, W, 3) uint8, arr_1 (N,) int64. Never all in memory."""
    path = folder / "samples.npz"
    labels = np.empty(count, dtype=np.int64)

    def fill(file: Any) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            with archive.open("arr_0.npy", "w", force_zip64=True) as member:
                shape = (count, resolution, resolution, 3)
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                for index, (image, label) in enumerate(read(folder, count)):
                    member.write(image.tobytes())
                    labels[index] = label
            with archive.open("arr_1.npy", "w") as member:
                np.lib.format.write_array(member, labels)

    write_atomically(path, fill)
    return path


def write_grid(folder: Path, count: int, classes: Sequence[str], columns: int = 10, rows: int = 10) -> Path:
    """`grid.png`: the first samples in order of class, each under its class's name, small ones enlarged."""
    chosen = sorted(zip(read(folder, min(count, columns * rows)), range(count), strict=False), key=lambda s: s[0][1])
    resolution = chosen[0][0][0].shape[0]
    side = resolution * max(1, 48 // resolution)
    gap, caption = 4, 14
    columns = min(columns, len(chosen))
    lines = -(-len(chosen) // columns)
    grid = Image.new("RGB", (columns * (side + gap) + gap, lines * (side + gap + caption) + gap), "white")
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(10)
    for place, ((image, label), _) in enumerate(chosen):
        left = gap + place % columns * (side + gap)
        top = gap + place // columns * (side + gap + caption)
        name = classes[label]
        while len(name) > 1 and draw.textlength(name, font) > side:
            name = name[:-1]
        draw.text((left, top), name, fill="black", font=font)
        enlarged = Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST)
        grid.paste(enlarged, (left, top + caption))
    path = folder / "grid.png"
    write_atomically(path, partial(grid.save, format="png"))
    return path
