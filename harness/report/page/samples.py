"""Samples: what was drawn, pixel by pixel, so that the page can enlarge images and play clips."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.report.figures import contact_sheets

CLASSES, EACH = 10, 3
"""Classes of a set that the page shows, and samples of each."""
LARGEST = 64
"""Pixels a side; larger pictures are reduced to it, each pixel the mean of those that it stands for."""
BYTES = 48 * 1024
"""Of a set's pixels; a set of larger samples shows fewer."""


def samples(folder: Path = contact_sheets.SAMPLES) -> list[dict[str, Any]]:
    """Every set of a folder that has its pixels (samples.npz), in the order of the contact sheets.

    `pixels` are bytes in base64, of shape (count, frames, side, side, channels); one channel where the three agree.
    Raises ValueError, naming the file, for one that is damaged.
    """
    return [_set(sheet) for sheet in contact_sheets.sheets(folder) if sheet.file.is_file()]


def _set(sheet: contact_sheets.Sheet) -> dict[str, Any]:
    pixels, labels = sheet.first(contact_sheets.CANDIDATES)
    classes = list(dict.fromkeys(labels.tolist()))[:CLASSES]
    chosen = [place for one in classes for place in np.flatnonzero(labels == one)[:EACH]]
    pixels, labels = _reduced(pixels[chosen]), labels[chosen]
    if (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1]
    count = max(1, min(len(pixels), BYTES // pixels[0].size))
    return {
        "title": sheet.title,
        "how": sheet.how,
        "of": sheet.data,
        "frames": pixels.shape[1] if pixels.shape[1] > 1 else 0,
        "side": pixels.shape[2],
        "resolution": sheet.settings["resolution"],
        "channels": pixels.shape[-1],
        "classes": [str(label) for label in labels[:count]],
        "pixels": base64.b64encode(pixels[:count].tobytes()).decode(),
        "command": sheet.settings.get("provenance", {}).get("command", ""),
        "weights": sheet.settings["sha256"][:12],
    }


def _reduced(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures (N, T, H, W, C) of at most LARGEST pixels a side."""
    n, frames, height, width, channels = pixels.shape
    times = -(-max(height, width) // LARGEST)
    if times == 1:
        return pixels
    height, width = height // times, width // times
    cut = pixels[:, :, : height * times, : width * times]
    blocks = cut.reshape(n, frames, height, times, width, times, channels)
    means: NDArray[np.uint8] = blocks.mean(axis=(3, 5)).round().astype(np.uint8)
    return means
