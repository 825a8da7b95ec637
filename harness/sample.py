"""Draw samples from a trained denoiser: the door to harness.diffusion.generate.

    python -m harness.sample --ckpt results/runs/digits-DiM-T-2-seed0 --num-samples 100
    torchrun --nproc-per-node 8 -m harness.sample --ckpt DiT-XL-2-256x256.pt --model DiT-XL/2 --num-samples 50000 --npz

Sample i depends on the seed and i alone. The same command, run again, draws only what is missing or damaged.
Exit codes: 0 done; 1 the run failed (disk full); 2 bad input.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from tqdm import tqdm

from harness.diffusion import pictures
from harness.diffusion.checkpoint import load_trained
from harness.diffusion.generate import CPU_SLOTS, QUANTISER, SampleConfig, generate
from harness.diffusion.presets import PRECISIONS
from harness.diffusion.process import SAMPLERS
from harness.distributed import barrier, choose_device, ranks
from harness.store import Provenance
from harness.workload import Parser, positive


def parser() -> Parser:
    door = Parser(prog="python -m harness.sample", description="Draw samples; the same command resumes.")
    door.add_argument("--ckpt", type=Path, required=True, help="a checkpoint, a run directory, or a bare state dict")
    door.add_argument("--model", metavar="NAME", help="which model a bare state dict is of")
    door.add_argument("--resolution", type=positive, default=256, help="of a bare state dict (default: %(default)s)")
    door.add_argument("--num-classes", type=positive, default=1000, help="of a bare state dict (default: %(default)s)")
    door.add_argument("--weights", choices=("ema", "raw"), default="ema", help="default: %(default)s")
    door.add_argument("--vae", metavar="WHERE", help="where to load the autoencoder from, if not as in training")
    door.add_argument("--num-samples", type=positive, default=100, help="default: %(default)s")
    door.add_argument("--classes", nargs="+", default=["uniform"], help="uniform, balanced, or class numbers in turn")
    door.add_argument("--steps", type=positive, default=250, help="network evaluations (default: %(default)s)")
    door.add_argument("--sampler", choices=SAMPLERS, default="ddpm", help="default: %(default)s")
    door.add_argument("--cfg-scale", type=float, default=1.5, help="1 is without guidance (default: %(default)s)")
    door.add_argument("--cfg-channels", type=int, default=3, help="channels guided (default: DiT's %(default)s)")
    door.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: %(default)s")
    door.add_argument("--seed", type=int, default=0)
    door.add_argument("--batch", type=positive, default=CPU_SLOTS, help="samples at once (default: %(default)s)")
    door.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    door.add_argument("--npz", action="store_true", help="also pack samples.npz for the ADM evaluation suite")
    door.add_argument("--out", type=Path, help="the samples' folder (default: samples, beside the checkpoints)")
    return door


def resolve(asked: argparse.Namespace) -> SampleConfig:
    classes: str | tuple[int, ...] = " ".join(asked.classes)
    with suppress(ValueError):
        classes = tuple(int(text) for text in asked.classes)
    names = {field.name for field in dataclasses.fields(SampleConfig)}
    given = {name: value for name, value in vars(asked).items() if name in names}
    return SampleConfig(**{**given, "classes": classes})


def default_out(ckpt: Path) -> Path:
    if ckpt.is_dir():
        return ckpt / "samples"
    run = ckpt.parent.parent if ckpt.parent.name == "checkpoints" else ckpt.parent
    return run / f"samples-{ckpt.stem}"


def main(arguments: Sequence[str] | None = None) -> int:
    door = parser()
    asked = door.parse_args(arguments)
    try:
        config = resolve(asked)
        with ranks(choose_device(asked.device)) as here:
            trained = load_trained(
                asked.ckpt, here.device, asked.weights, asked.model, asked.resolution, asked.num_classes, asked.vae
            )
            config.check_classes(trained.model.spec.num_classes)
            out, resolution = asked.out or default_out(asked.ckpt), trained.model.resolution
            settings = {**trained.origin, **dataclasses.asdict(config), "quantiser": QUANTISER}
            settings["provenance"] = dataclasses.asdict(Provenance.here(str(here.device)))
            settings["provenance"]["threads"] = torch.get_num_threads()
            if here.first:
                pictures.claim(out, settings)
            barrier()
            missing = [i for i in range(asked.num_samples) if not pictures.present(out, i, resolution)]
            barrier()
            with tqdm(total=len(missing), unit="image", disable=not here.first) as bar:
                for samples in generate(trained, config, missing, asked.batch, here):
                    pictures.write(out, samples)
                    bar.update(min(len(samples.indices) * here.world, bar.total - bar.n))
            barrier()
            if here.first:
                if asked.npz:
                    print(pictures.pack_npz(out, asked.num_samples, resolution))
                print(pictures.write_grid(out, asked.num_samples, trained.classes))
    except ValueError as error:
        door.error(str(error))
    except OSError as error:
        print(f"{door.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
