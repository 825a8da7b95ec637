"""Train a denoiser: the door to harness.diffusion.fit.

    python -m harness.train                                   a tiny DiM on real digits, minutes on two cores
    python -m harness.train --preset moving-digits            the same on clips of moving digits
    torchrun --nproc-per-node 8 -m harness.train --preset imagenet256 --model DiM-B/4 --data imagenet/train
    torchrun --nproc-per-node 8 -m harness.train --preset ucf101 --joint-images 8 --data UCF-101 --skip-corrupt

The same command, run again, continues. Exit codes: 0 done; 1 the run failed (diverged, disk full); 2 bad input;
75 stopped by SIGTERM or SIGINT after a checkpoint, to be continued (torchrun itself then says 1).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from harness.core import paths
from harness.core.command import Parser, positive
from harness.core.distributed import Ranks, choose_device, ranks
from harness.core.provenance import Provenance
from harness.data.autoencoder import Autoencoder, Cached, Identity, StableDiffusion
from harness.data.datasets import Dataset, VideoDataset, open_dataset, open_videos
from harness.data.images import ImageFolder
from harness.data.latents import LatentCache
from harness.data.videos import VideoFolder
from harness.diffusion.config import PRECISIONS, PRESETS, TrainConfig
from harness.diffusion.fit import DivergenceError, Execution, fit, scan_backend
from models import ModelSpec, create_model, spec

STOPPED = 75
"""EX_TEMPFAIL of sysexits.h: try again."""


def parser() -> Parser:
    door = Parser(prog="python -m harness.train", description="Train DiT or DiM; the same command continues a run.")
    door.add_argument("--preset", choices=PRESETS, default="digits", help="default: %(default)s")
    door.add_argument("--model", metavar="NAME", help="DiM-T/2, DiT-XL/2, DiM-B/4-video, ...")
    door.add_argument("--depth", type=positive, help="blocks, instead of the catalogue's")
    door.add_argument("--data", metavar="WHERE", help="[moving-]digits, a tree of images or videos, a latent cache")
    door.add_argument("--vae", metavar="WHERE", help="identity, or the autoencoder's directory or hub name")
    door.add_argument("--resolution", type=positive, metavar="PX")
    door.add_argument("--num-classes", type=positive)
    door.add_argument("--frames", type=positive, help="of a clip; for models of video")
    door.add_argument("--stride", type=positive, metavar="FRAMES", help="from one frame of a clip to the next")
    door.add_argument("--joint-images", type=int, metavar="N", help="single frames that are learnt beside each clip")
    door.add_argument("--split-list", type=Path, nargs="+", default=[], metavar="FILE", help="as trainlist01.txt")
    door.add_argument("--steps", type=positive)
    door.add_argument("--batch", type=positive, help="global, over all processes")
    door.add_argument("--learning-rate", type=float)
    door.add_argument("--ema-decay", type=float)
    door.add_argument("--clip-norm", type=float, help="largest gradient norm; 0 for no clipping")
    door.add_argument("--clip-after", type=int, metavar="STEPS", help="how many are done before the first is clipped")
    door.add_argument("--precision", choices=PRECISIONS)
    door.add_argument("--seed", type=int)
    door.add_argument("--accumulate", type=positive, default=1, help="parts in which a process computes its batch")
    door.add_argument("--checkpoint-activations", action="store_true", help="recompute blocks in the backward pass")
    door.add_argument("--compile", action="store_true", help="torch.compile the model")
    door.add_argument("--workers", type=positive, default=2, help="threads that prepare batches")
    door.add_argument("--checkpoint-every", type=positive, default=1000, metavar="STEPS")
    door.add_argument("--checkpoint-at", type=positive, nargs="+", default=[], metavar="STEP", help="kept for good")
    door.add_argument("--skip-corrupt", action="store_true", help="leave out what is unreadable or too short, named")
    door.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    door.add_argument("--out", type=Path, help="directory of the run (default: under results/runs, by its settings)")
    door.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    return door


def resolve(asked: argparse.Namespace) -> TrainConfig:
    """The preset with the flags that were given."""
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    given = {name: value for name, value in vars(asked).items() if name in fields and value is not None}
    return dataclasses.replace(PRESETS[asked.preset], **given)


def open_data(
    config: TrainConfig, here: Ranks, skip_corrupt: bool, lists: Sequence[Path] = ()
) -> tuple[Dataset | VideoDataset, Autoencoder, ModelSpec]:
    """The data set, the autoencoder that belongs to it, and the model's specification that fits both.

    Raises ValueError when they do not fit together.
    """
    clips: dict[str, int] = {"frames": config.frames} if config.frames else {}
    if spec(config.model, **clips).frames and not clips:
        raise ValueError(f"{config.model} is a model of video: pass --frames and --stride, or a preset of clips")
    dataset: Dataset | VideoDataset
    if config.frames:
        dataset = open_videos(config.data, config.resolution, config.frames, config.stride, lists, skip_corrupt)
    elif lists:
        raise ValueError("--split-list chooses videos, and there are none without --frames")
    else:
        dataset = open_dataset(config.data, config.resolution, skip_corrupt, verify=here.first)
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
    depth = {"depth": config.depth} if config.depth else {}
    model = spec(
        config.model,
        **depth,
        num_classes=config.num_classes,
        class_dropout=config.class_dropout,
        channels=channels,
        downsample=autoencoder.downsample,
        **clips,
    )
    model.grid(config.resolution)
    return dataset, autoencoder, model


def describe(
    config: TrainConfig, dataset: Dataset | VideoDataset, autoencoder: Autoencoder, model: ModelSpec
) -> dict[str, Any]:
    """The resolved configuration as plain containers: what a checkpoint carries."""
    return {
        **dataclasses.asdict(config),
        "spec": dataclasses.asdict(model),
        "dataset": dataset.name,
        "videos" if config.frames else "images": len(dataset),
        "classes": list(dataset.classes),
        "autoencoder": autoencoder.name,
        "vae": autoencoder.name if isinstance(autoencoder, Cached) and config.vae == "identity" else config.vae,
    }


def default_run(config: TrainConfig, preset: str) -> Path:
    return paths.runs() / f"{preset}-{config.model.replace('/', '-')}-seed{config.seed}"


@contextmanager
def stop_on_signals() -> Iterator[list[int]]:
    """A list that SIGTERM and SIGINT append to. A second one of a kind ends the process as it always would."""
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    numbers: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def main(arguments: Sequence[str] | None = None) -> int:
    door = parser()
    asked = door.parse_args(arguments)
    try:
        config = resolve(asked)
        if asked.checkpoint_at and max(asked.checkpoint_at) > config.steps:
            raise ValueError(f"--checkpoint-at {max(asked.checkpoint_at)} lies beyond the run's {config.steps} steps")
        device = choose_device(asked.device)
        run = asked.out or default_run(config, asked.preset)
        with ranks(device) as here, stop_on_signals() as received:
            dataset, autoencoder, model_spec = open_data(config, here, asked.skip_corrupt, asked.split_list)
            record = describe(config, dataset, autoencoder, model_spec)
            if here.first:
                shown = {key: value for key, value in record.items() if key not in ("spec", "classes")}
                print(json.dumps({**shown, "run": str(run), "device": str(here.device), "processes": here.world}))
            if asked.dry_run:
                return 0
            record["provenance"] = dataclasses.asdict(Provenance.here(str(here.device)))
            record["provenance"]["scan"] = scan_backend(model_spec, here.device)
            torch.manual_seed(config.seed)
            model = create_model(model_spec, config.resolution).to(here.device)
            execution = Execution(
                checkpoint_every=asked.checkpoint_every,
                milestones=frozenset(asked.checkpoint_at),
                accumulate=asked.accumulate,
                activation_checkpointing=asked.checkpoint_activations,
                compile=asked.compile,
                workers=asked.workers,
            )
            done = fit(model, dataset, autoencoder, config, record, execution, run, here, stop=lambda: bool(received))
            if isinstance(dataset, ImageFolder | VideoFolder) and dataset.corrupt:
                print(f"{len(dataset.corrupt)} corrupt items were left out: {', '.join(sorted(dataset.corrupt)[:5])}")
    except ValueError as error:
        door.error(str(error))
    except (DivergenceError, OSError) as error:
        print(f"{door.prog}: {error}", file=sys.stderr)
        return 1
    if done < config.steps:
        print(f"stopped at step {done} of {config.steps}, checkpoint written; the same command continues", flush=True)
        return STOPPED
    return 0


if __name__ == "__main__":
    sys.exit(main())
