"""Seeds to samples: sample i is a function of (seed, i) and the weights alone.

Its class and all its noise come from its own stream. That leaves the network's arithmetic: matrix products of another
shape, or a sample in another row, may round differently in the last bit, and a rounded pixel with them. So sample i
always stands in row `i % slots` of a network batch of `slots` rows, idle rows being zeros: same shapes, same rows, same
bits, for every `batch` and number of processes, and for any number of threads unless the BLAS splits sums among them.
On a CPU `slots` is the model's alone (1,024 tokens' worth, 64 at most), whatever the batch; elsewhere, where padding
would cost more than it gives, it is the batch, and between batch sizes a few pixels may differ by one level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.core.capacity import require_memory
from harness.core.distributed import Ranks
from harness.core.seeds import stream
from harness.diffusion.numerics import autocast, set_precision
from harness.diffusion.process import linear_schedule, sample
from harness.diffusion.sample_config import SampleConfig
from harness.diffusion.trained import Trained

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

    Raises ValueError for a class that the model does not have, and for a sample that is not finite.
    """
    config = trained.resolve(config)
    set_precision(config.precision)
    slots = slots_of(trained, batch, ranks.device)
    shape = latent_shape(trained)
    require_memory(
        4 * slots * math.prod(shape) * 2, f"a batch of {slots:,} samples and their noise", "take a lower --batch"
    )
    for members in plan(indices, batch, slots, ranks):
        rows = [index % slots for index in members]
        latents, labels = run_chain(trained, config, members, slots, ranks.device)
        images = trained.autoencoder.decode(latents)
        finite = images[rows].isfinite().flatten(1).all(1).tolist()
        if not all(finite):
            raise ValueError(explain(trained, config, members, finite.index(False), slots, ranks.device))
        yield Samples(members, quantise(images)[rows], labels)


def latent_shape(trained: Trained) -> tuple[int, ...]:
    """Of a sample: ([T,] C, h, w)."""
    spec, side = trained.model.spec, trained.model.resolution // trained.model.spec.downsample
    return (*((spec.frames,) if spec.frames else ()), spec.channels, side, side)


def run_chain(
    trained: Trained,
    config: SampleConfig,
    members: list[int],
    slots: int,
    device: torch.device,
    watch: Callable[[int, Tensor], None] = lambda done, x: None,
) -> tuple[Tensor, NDArray[np.int64]]:
    """Latents (slots, ...) of one network batch, of which the rows of `members` are samples, and their labels."""
    assert config.steps is not None, "resolved"
    rows, shape, classes = [index % slots for index in members], latent_shape(trained), trained.model.spec.num_classes
    random = [stream(config.seed, "sample", index) for index in members]
    drawn = [draw_label(config, index, classes, one) for index, one in zip(members, random, strict=True)]
    labels = np.array(drawn, dtype=np.int64)

    def draw_noise() -> Tensor:
        noise = np.zeros((slots, *shape), dtype=np.float32)
        for row, generator in zip(rows, random, strict=True):
            noise[row] = generator.standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(noise).to(device)

    y = torch.zeros(slots, dtype=torch.int64)
    y[rows] = torch.from_numpy(labels)
    denoise = denoiser(trained, config, y.to(device), device)
    schedule = linear_schedule(config.steps).to(device)
    return sample(schedule, denoise, draw_noise(), config.sampler, draw_noise, watch), labels


def explain(
    trained: Trained, config: SampleConfig, members: list[int], bad: int, slots: int, device: torch.device
) -> str:
    """In which step the bad one of these samples stopped to be finite: the chain is run again, and watched."""
    row, first = members[bad] % slots, list[int]()

    def watch(done: int, x: Tensor) -> None:
        if not first and not x[row].isfinite().all():
            first.append(done)

    run_chain(trained, config, members, slots, device, watch)
    where = f"after step {first[0]} of {config.steps}" if first else "once it is decoded"
    wrong = sum(not weight.isfinite().all() for weight in trained.model.state_dict().values())
    why = f"{wrong} tensors of the weights are not finite either" if wrong else f"guidance is {config.cfg_scale:g}"
    return f"sample {members[bad]} is not finite {where}; {why}"


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
