"""Training batches as functions of (seed, step, row): the same in one process or many, whole or in parts."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.core.seeds import stream
from harness.data.ahead import ahead
from harness.data.datasets import Dataset, VideoDataset, order
from harness.diffusion.config import EACH, TIMESTEPS, TrainConfig

BLOCK = 16
"""Rows that share a random stream: a process draws for few rows but its own, and a stream is expensive to make."""


@dataclass(frozen=True)
class Batch:
    """Images, or clips of T frames that J joint images follow on the frame axis."""

    items: Tensor  # (B, [T+J,] C, H, W), or moments (B, 2C, h, w)
    labels: Tensor  # (B,) int64, or (B, 1+J)
    drop_labels: Tensor  # bool, as labels
    t: Tensor  # (B,) int64
    noise: Tensor  # (B, [T+J,] C, h, w)
    posterior: Tensor  # like noise: what samples a latent from its moments; empty in pixel space

    def to(self, device: torch.device) -> Batch:
        return Batch(*(value.to(device, non_blocking=True) for value in vars(self).values()))

    def pin(self) -> Batch:
        return Batch(*(value.pin_memory() for value in vars(self).values()))


def draw_batch(
    dataset: Dataset | VideoDataset,
    config: TrainConfig,
    shape: tuple[int, ...],
    random_latents: bool,
    step: int,
    rows: range,
) -> Batch:
    """Rows of the global batch of a step (from 0): the same in every process, and in however many parts.

    `shape` is that of a latent, ([T+J,] C, h, w).
    """
    first, last = rows.start // BLOCK, -(-rows.stop // BLOCK)
    drawn = [_draw_block(config, shape, random_latents, step, block) for block in range(first, last)]
    chosen = slice(rows.start - first * BLOCK, rows.stop - first * BLOCK)
    flips, drops, t, noise, posterior, *places = (np.concatenate(values)[chosen] for values in zip(*drawn, strict=True))
    indices = order(len(dataset), config.seed, [step * config.batch + row for row in rows])
    mirrored = (flips & config.flip).tolist()
    if config.frames:
        starts, joint_drops, joint = places
        items, labels = _load_clips(cast(VideoDataset, dataset), indices, mirrored, starts, joint)
        drops = np.concatenate([drops[:, None], joint_drops], axis=1) if config.joint_images else drops
    else:
        items, labels = cast(Dataset, dataset).load(indices, mirrored)
    return Batch(items, labels, *map(torch.from_numpy, (drops, t, noise, posterior)))


def _load_clips(
    dataset: VideoDataset, indices: list[int], flips: list[bool], starts: NDArray[Any], joint: NDArray[Any]
) -> tuple[Tensor, Tensor]:
    """Clips, and after them the joint images that `joint` (B, J, 2) in [0, 1) places: which video, how far into it.

    These are frames of any videos at all, never mirrored, as Latte's (arXiv 2401.03048). Items (B, T+J, C, H, W),
    labels (B, 1+J), or (B,) where there are no joint images.
    """
    clips, labels = dataset.load_clips(indices, flips, starts.tolist())
    if not joint.size:
        return clips, labels
    which = (joint[..., 0] * len(dataset)).astype(int).ravel().tolist()
    images, of_images = dataset.load_frames(which, joint[..., 1].ravel().tolist())
    return (
        torch.cat([clips, images.reshape(*joint.shape[:2], *images.shape[1:])], dim=1),
        torch.cat([labels[:, None], of_images.reshape(joint.shape[:2])], dim=1),
    )


def _draw_block(
    config: TrainConfig, shape: tuple[int, ...], random_latents: bool, step: int, block: int
) -> tuple[NDArray[Any], ...]:
    """Flips, label drops, timesteps, noise and posterior noise of a block of rows, from the block's own stream.

    Of clips also where they start, and the joint images' label drops and places.
    """
    random = stream(config.seed, "train", step, block)
    drawn = (
        random.random(BLOCK) < 0.5,
        random.random(BLOCK) < config.class_dropout,
        random.integers(TIMESTEPS, size=BLOCK),
        random.standard_normal((BLOCK, *shape), dtype=np.float32),
        random.standard_normal((BLOCK, *(shape if random_latents else (0,))), dtype=np.float32),
    )
    if not config.frames:
        return drawn
    joint = (BLOCK, config.joint_images)
    starts = random.random(BLOCK)
    draws = random.random(joint if config.joint_dropout == EACH else (BLOCK, 1))
    return *drawn, starts, np.broadcast_to(draws < config.class_dropout, joint), random.random((*joint, 2))


def prefetch(make: Callable[[int, range], Batch], parts: Iterable[tuple[int, range]], workers: int) -> Generator[Batch]:
    """`make(step, rows)` for each part, in order, computed ahead by threads."""
    return ahead(lambda part: make(*part), parts, workers)
