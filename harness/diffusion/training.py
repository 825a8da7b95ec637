"""A training run, as a function of its options: what `python -m harness.train` calls."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from harness.core.capacity import require_memory
from harness.core.command import require_folder
from harness.core.distributed import Ranks, choose_device, device_name, exclusively, ranks
from harness.core.provenance import Provenance
from harness.data.autoencoder import Autoencoder, Cached, Identity, StableDiffusion
from harness.data.datasets import Dataset, VideoDataset
from harness.data.latents import LatentCache
from harness.data.registry import open_dataset, open_videos
from harness.diffusion.config import Execution, TrainConfig
from harness.diffusion.fit import fit, parts_of, shape_of
from harness.diffusion.numerics import scan_backend
from models import ModelSpec, create_model


@dataclass(frozen=True)
class Training:
    """Where a run stands: `step` of `steps` are done, and its checkpoints and losses lie in `out`."""

    out: Path
    step: int
    steps: int
    left_out: tuple[str, ...] = ()  # files that were unreadable or too short

    @property
    def finished(self) -> bool:
        return self.step >= self.steps


def train(
    config: TrainConfig,
    out: Path | str,
    execution: Execution | None = None,
    *,
    announce: Callable[[dict[str, Any]], None] = lambda resolved: None,
    dry_run: bool = False,
    stop: Callable[[], bool] = lambda: False,
    flops_per_item: Callable[[ModelSpec], float] | None = None,
    adapt: Callable[[ModelSpec, Ranks], Execution] | None = None,
) -> Training:
    """Train to `config.steps`, continuing from the newest sound checkpoint under `out`.

    `announce` is given the resolved configuration before the first step, on the first process; with `dry_run` that is
    all. When `stop()` turns true, a checkpoint is written and fewer steps are done; the same call continues.
    `flops_per_item` gives the exact operations that one item costs in a step, for the MFU in `throughput.jsonl`.
    `adapt` gives the execution once the model and the processes are known.

    Under torchrun W processes share each batch; on CPUs they take, bit for bit, the steps of one process that
    accumulates W times as many parts (harness.diffusion.gradients).

    Raises ValueError for bad input and for a directory of another run, DivergenceError for a loss that is not finite,
    LockedError when another process trains in `out`, OSError where nothing can be written.
    """
    run, execution = require_folder(Path(out)), execution or Execution()
    execution.check(config)
    with ranks(choose_device(execution.device)) as here:
        dataset, autoencoder, spec = open_data(config, execution, here)
        execution = adapt(spec, here) if adapt else execution
        parts = parts_of(config, execution, here)
        record = describe(config, dataset, autoencoder, spec)
        if here.first:
            shown = {key: value for key, value in record.items() if key not in ("spec", "classes")}
            how = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(execution).items()}
            announce({**shown, "run": str(run), "device": str(here.device), "processes": here.world, "execution": how})
        if dry_run:
            return Training(run, 0, config.steps)
        require_memory_for(config, parts, spec)
        provenance = asdict(Provenance.here(device_name(here.device)))
        record["provenance"] = {**provenance, "scan": scan_backend(spec, here.device)}
        flops = flops_per_item(spec) if flops_per_item else None
        with exclusively(run, here):
            with torch.random.fork_rng(devices=[]):  # a caller's random numbers stay as they are
                torch.manual_seed(config.seed)
                model = create_model(spec, config.resolution)
                if not execution.fsdp:  # which moves one block after the other, each to all processes
                    model = model.to(here.device)
            step = fit(model, dataset, autoencoder, config, record, execution, run, here, stop, flops)
        return Training(run, step, config.steps, tuple(sorted(getattr(dataset, "corrupt", ()))))


def open_data(
    config: TrainConfig, execution: Execution, here: Ranks, verify: bool = True
) -> tuple[Dataset | VideoDataset, Autoencoder, ModelSpec]:
    """The data set, the autoencoder that belongs to it, and the model's specification that fits both.

    `verify` has the first process check a cache's hashes. Raises ValueError when they do not fit together.
    """
    config.spec()
    dataset: Dataset | VideoDataset
    if config.frames:
        dataset = open_videos(
            config.data, config.resolution, config.frames, config.stride, execution.split_list, execution.skip_corrupt,
            config.short_videos, config.resize_by,
        )  # fmt: skip
    else:
        dataset = open_dataset(config.data, config.resolution, execution.skip_corrupt, verify=verify and here.first)
    if len(dataset.classes) != config.num_classes:
        raise ValueError(
            f"{config.data} has {len(dataset.classes)} classes, the model {config.num_classes}; "
            f"pass --num-classes {len(dataset.classes)}"
        )
    autoencoder: Autoencoder
    if isinstance(dataset, LatentCache):
        autoencoder, channels = Cached(dataset.autoencoder, dataset.downsample), dataset.channels
    elif config.vae == "identity":
        autoencoder, channels = Identity(), dataset.channels
    elif dataset.channels != 3:
        raise ValueError(f"{config.data} has {dataset.channels} channel, the autoencoder 3; pass --vae identity")
    else:
        autoencoder, channels = StableDiffusion(config.vae, here.device), 4
    model = config.spec(channels=channels, downsample=autoencoder.downsample)
    model.grid(config.resolution)
    return dataset, autoencoder, model


def require_memory_for(config: TrainConfig, parts: list[range], model: ModelSpec) -> None:
    """Raise ValueError, with the sizes, for a batch of which not even the least fits into memory.

    That is the items, their noise and one layer's activations of one part, in float32.
    """
    shape = shape_of(config, model.channels, model.downsample)
    layer = model.tokens(config.resolution) * model.width * max(1, model.frames)
    values = len(parts[0]) * (2 * math.prod(shape) + layer)
    what = f"a part of {len(parts[0]):,} items of {' x '.join(f'{side:,}' for side in shape)}"
    require_memory(4 * values, what, "take a lower --batch or --resolution, or more parts by --accumulate")


def describe(
    config: TrainConfig, dataset: Dataset | VideoDataset, autoencoder: Autoencoder, model: ModelSpec
) -> dict[str, Any]:
    """The resolved configuration as plain containers: what a checkpoint carries."""
    return {
        **asdict(config),
        "spec": asdict(model),
        "dataset": dataset.name,
        "videos" if config.frames else "images": len(dataset),
        "classes": list(dataset.classes),
        "autoencoder": autoencoder.name,
        "vae": autoencoder.name if isinstance(autoencoder, Cached) and config.vae == "identity" else config.vae,
    }
