"""Seeds to samples: sample i is a function of (seed, i) and the weights alone.

Its class and all its noise come from its own stream. That leaves the network's arithmetic: matrix products of another
shape, or a sample in another row, may round differently in the last bit, and a rounded pixel with them. So sample i
always stands in row `i % slots` of a network batch of `slots` rows, idle rows being zeros: same shapes, same rows, same
bits, for every `batch` and number of processes, and for any number of threads unless the BLAS splits sums among them.
On a CPU `slots` is the model's alone (1,024 tokens' worth, 64 at most), whatever the batch; elsewhere, where padding
would cost more than it gives, it is the batch, and between batch sizes a few pixels may differ by one level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.core.distributed import Ranks
from harness.core.seeds import stream
from harness.diffusion.checkpoint import Trained
from harness.diffusion.numerics import autocast, set_precision
from harness.diffusion.process import linear_schedule, sample
from harness.diffusion.sample_config import SampleConfig

CPU_TOKENS, CPU_SLOTS = 1024, 64
"""What keeps a core's matrix products efficient and its cache unburdened: tokens, and samples, at most."""
QUANTISER = "trunc(clamp(127.5 x + 128, 0, 255))"


@dataclass(frozen=True)
class Samples:
    indices: list[int]
    images: NDArray[np.uint8]  # (B, [T,] H, W, 3) uint8; grey images have three equal channels
    labels: NDArray[np.int64]  # (B,) int64


def draw_label(config: SampleConfig, index: int, num_classes: int, random: np.random.Generator) -> int:
    """The class of a sample; the random draw is spent in any case, so that the noise after it is the same."""
    uniform = int(random.integers(num_classes))
    if isinstance(config.classes, tuple):
        return config.classes[index % len(config.classes)]
    return index % num_classes if config.classes == "balanced" else uniform


def draw_labels(config: SampleConfig, count: int, num_classes: int) -> NDArray[np.int64]:
    """The classes (count,) of the first samples."""
    streams = (stream(config.seed, "sample", index) for index in range(count))
    return np.array([draw_label(config, index, num_classes, one) for index, one in enumerate(streams)], dtype=np.int64)


def quantise(images: Tensor) -> NDArray[np.uint8]:
    """(..., C, H, W) in [-1, 1] to (..., H, W, 3) uint8 by DiT's rule, which rounds halves up; grey is repeated."""
    levels = (127.5 * images.float() + 128).clamp(0, 255).to(torch.uint8).cpu()
    pixels: NDArray[np.uint8] = levels.expand(*levels.shape[:-3], 3, -1, -1).movedim(-3, -1).contiguous().numpy()
    return pixels


def slots_of(trained: Trained, batch: int, device: torch.device) -> int:
    """Rows of a network batch."""
    if device.type != "cpu":
        return batch
    tokens = trained.model.spec.tokens(trained.model.resolution) * max(1, trained.model.spec.frames)
    return min(CPU_SLOTS, max(1, CPU_TOKENS // tokens))


def plan(indices: Iterable[int], batch: int, slots: int, ranks: Ranks) -> Iterator[list[int]]:
    """This process's share of the samples, in batches that each lie within one network batch."""
    waiting: list[int] = []
    for index in sorted(indices):
        if index // slots % ranks.world != ranks.rank:
            continue
        if waiting and (len(waiting) == batch or index // slots != waiting[0] // slots):
            yield waiting
            waiting = []
        waiting.append(index)
    if waiting:
        yield waiting


@torch.inference_mode()
def generate(
    trained: Trained, config: SampleConfig, indices: Iterable[int], batch: int, ranks: Ranks
) -> Iterator[Samples]:
    """The samples of these indices that fall to this process, `batch` at a time (on a CPU `slots_of` at most).

    Raises ValueError for a class that the model does not have.
    """
    spec = trained.model.spec
    config = trained.resolve(config)
    assert config.steps is not None, "resolved"
    set_precision(config.precision)
    slots = slots_of(trained, batch, ranks.device)
    schedule = linear_schedule(config.steps).to(ranks.device)
    side = trained.model.resolution // spec.downsample
    shape = (*((spec.frames,) if spec.frames else ()), spec.channels, side, side)
    for members in plan(indices, batch, slots, ranks):
        rows = [index % slots for index in members]
        random = [stream(config.seed, "sample", index) for index in members]
        labels = np.array(
            [draw_label(config, i, spec.num_classes, r) for i, r in zip(members, random, strict=True)], dtype=np.int64
        )

        def draw_noise(rows: list[int] = rows, random: list[np.random.Generator] = random) -> Tensor:
            noise = np.zeros((slots, *shape), dtype=np.float32)
            for row, generator in zip(rows, random, strict=True):
                noise[row] = generator.standard_normal(shape, dtype=np.float32)
            return torch.from_numpy(noise).to(ranks.device)

        y = torch.zeros(slots, dtype=torch.int64)
        y[rows] = torch.from_numpy(labels)
        denoise = denoiser(trained, config, y.to(ranks.device), ranks.device)
        latents = sample(schedule, denoise, draw_noise(), config.sampler, draw_noise)
        yield Samples(members, quantise(trained.autoencoder.decode(latents))[rows], labels)


def denoiser(
    trained: Trained, config: SampleConfig, y: Tensor, device: torch.device
) -> Callable[[Tensor, Tensor], Tensor]:
    """The network as a function of (x, t): one forward a step, doubled by guidance only when the scale is not 1."""
    model = trained.model
    both = torch.cat([y, torch.full_like(y, model.spec.num_classes)])

    def plain(x: Tensor, t: Tensor) -> Tensor:
        with autocast(device, config.precision):
            output: Tensor = model(x, t, y)
            return output

    def guided(x: Tensor, t: Tensor) -> Tensor:
        with autocast(device, config.precision):
            output = model.forward_with_cfg(torch.cat([x, x]), t.repeat(2), both, config.cfg_scale, config.cfg_channels)
            return output[: len(x)]

    return plain if config.cfg_scale == 1 else guided
