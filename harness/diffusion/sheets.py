"""Samples for the eyes: a labelled grid of images; of clips a sheet, a row a clip, and an animation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from harness.core.files import write_atomically
from harness.diffusion.album import Album

GAP, CAPTION, LEAST_SIDE = 4, 14, 48  # pixels
MILLISECONDS = 125  # a frame of the animation


def write_all(album: Album, count: int, classes: Sequence[str]) -> None:
    """`grid.png`, and of clips `preview.gif` too."""
    write_grid(album, count, classes)
    if album.frames:
        write_animation(album, count, classes)


def write_grid(album: Album, count: int, classes: Sequence[str], columns: int = 10, rows: int = 10) -> Path:
    """`grid.png`: the first samples in order of class, each under its class's name, small ones enlarged.

    Of clips a row shows one, frame by frame (Figure 3 of the paper), under its name.
    """
    clips = bool(album.frames)
    chosen = _in_order_of_class(album, min(count, rows if clips else columns * rows))
    if clips:
        columns, lines = album.frames, len(chosen)
        tiles = [(image, "" if frame else classes[label]) for clip, label in chosen for frame, image in enumerate(clip)]
    else:
        columns = min(columns, len(chosen))
        lines = -(-len(chosen) // columns)
        tiles = [(image, classes[label]) for image, label in chosen]
    return _write(album.folder / "grid.png", _sheet(tiles, columns, lines), "png")


def write_animation(album: Album, count: int, classes: Sequence[str], columns: int = 5, rows: int = 4) -> Path:
    """`preview.gif`: the first clips in order of class, in motion. Its palette is lossy: it is no sample."""
    chosen = _in_order_of_class(album, min(count, columns * rows))
    columns = min(columns, len(chosen))
    lines = -(-len(chosen) // columns)
    named = [[(clip[frame], classes[label]) for clip, label in chosen] for frame in range(album.frames)]
    sheets = [_sheet(tiles, columns, lines) for tiles in named]
    path = album.folder / "preview.gif"
    return _write(path, sheets[0], "gif", save_all=True, append_images=sheets[1:], duration=MILLISECONDS, loop=0)


def _in_order_of_class(album: Album, count: int) -> list[tuple[NDArray[np.uint8], int]]:
    return sorted(album.first(count), key=lambda sample: sample[1])


def _sheet(tiles: Sequence[tuple[NDArray[np.uint8], str]], columns: int, lines: int) -> Image.Image:
    """Pictures under their names, row by row."""
    resolution = tiles[0][0].shape[0]
    side = resolution * max(1, LEAST_SIDE // resolution)
    sheet = Image.new("RGB", (columns * (side + GAP) + GAP, lines * (side + GAP + CAPTION) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for place, (image, name) in enumerate(tiles):
        left = GAP + place % columns * (side + GAP)
        top = GAP + place // columns * (side + GAP + CAPTION)
        while len(name) > 1 and draw.textlength(name, font) > side:
            name = name[:-1]
        draw.text((left, top), name, fill="black", font=font)
        enlarged = Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (left, top + CAPTION))
    return sheet


def _write(path: Path, sheet: Image.Image, format: str, **options: Any) -> Path:
    write_atomically(path, partial(sheet.save, format=format, **options))
    return path
