"""Training batches as functions of (seed, step, row): the same in one process or many, whole or in parts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.data import Dataset, order
from harness.diffusion.process import TIMESTEPS
from harness.presets import TrainConfig
from harness.seeds import stream

BLOCK = 16
"""Rows that share a random stream: a process draws for few rows but its own, and a stream is dear to make."""


@dataclass(frozen=True)
class Batch:
    items: Tensor  # (B, C, H, W) images, or (B, 2C, h, w) moments
    labels: Tensor  # (B,) int64
    drop_labels: Tensor  # (B,) bool
    t: Tensor  # (B,) int64
    noise: Tensor  # (B, C, h, w)
    posterior: Tensor  # (B, C, h, w): the noise that samples a latent from its moments; empty in pixel space

    def to(self, device: torch.device) -> Batch:
        return Batch(*(value.to(device, non_blocking=True) for value in vars(self).values()))

    def pin(self) -> Batch:
        return Batch(*(value.pin_memory() for value in vars(self).values()))


def draw_batch(
    dataset: Dataset, config: TrainConfig, shape: tuple[int, int, int], random_latents: bool, step: int, rows: range
) -> Batch:
    """Rows of the global batch of a step (from 0): the same whoever asks, and in however many parts."""
    first, last = rows.start // BLOCK, -(-rows.stop // BLOCK)
    drawn = [_draw_block(config, shape, random_latents, step, block) for block in range(first, last)]
    chosen = slice(rows.start - first * BLOCK, rows.stop - first * BLOCK)
    flips, drops, t, noise, posterior = (np.concatenate(values)[chosen] for values in zip(*drawn, strict=True))
    indices = order(len(dataset), config.seed, [step * config.batch + row for row in rows])
    items, labels = dataset.load(indices, (flips & config.flip).tolist())
    return Batch(items, labels, *map(torch.from_numpy, (drops, t, noise, posterior)))


def _draw_block(
    config: TrainConfig, shape: tuple[int, int, int], random_latents: bool, step: int, block: int
) -> tuple[np.ndarray, ...]:
    """Flips, label drops, timesteps, noise and posterior noise of a block of rows, from the block's own stream."""
    random = stream(config.seed, "train", step, block)
    return (
        random.random(BLOCK) < 0.5,
        random.random(BLOCK) < config.class_dropout,
        random.integers(TIMESTEPS, size=BLOCK),
        random.standard_normal((BLOCK, *shape), dtype=np.float32),
        random.standard_normal((BLOCK, *(shape if random_latents else (0,))), dtype=np.float32),
    )


def prefetch(make: Callable[[int, range], Batch], parts: Iterable[tuple[int, range]], workers: int) -> Generator[Batch]:
    """`make(step, rows)` for each part, in order, computed ahead by threads (decoders release the interpreter)."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Batch]] = deque()
        try:
            for part in parts:
                waiting.append(pool.submit(make, *part))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
