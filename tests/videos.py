"""Small encoded videos, written by the tests themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_video(path: Path, frames: np.ndarray, codec: str = "mpeg4", pixels: str = "yuv420p") -> Path:
    """Frames (T, H, W, 3) uint8 as a video file; with `ffv1` and `bgr0` without loss."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixels
        stream.bit_rate = 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixels)))
        container.mux(stream.encode())
    return path


def numbered(length: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Frames (T, H, W, 3) of one grey each, 8 levels brighter than the one before."""
    levels = 8 * np.arange(length, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return np.broadcast_to(levels, (length, height, width, 3)).copy()


def write_tree(root: Path, length: int = 20) -> Path:
    """Three classes of two encoded videos each, of random blocks that drift to the right."""
    random = np.random.default_rng(0)
    for name in ("Archery", "Bowling", "Surfing"):
        for group in (1, 2):
            blocks = random.integers(0, 256, (3, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            frames = np.stack([np.roll(blocks, shift, axis=1) for shift in range(length)])
            write_video(root / name / f"v_{name}_g{group:02d}_c01.avi", frames)
    return root
