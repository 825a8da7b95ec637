"""Draw samples from a trained denoiser.

    python -m harness.sample --ckpt output/runs/digits-DiM-T-2-seed0 --num-samples 100
    python -m harness.sample --ckpt output/runs/moving-digits-DiM-U-4-video-seed0 --num-samples 20 --npz
    torchrun --nproc-per-node 8 -m harness.sample --ckpt DiT-XL-2-256x256.pt --model DiT-XL/2 --num-samples 50000 --npz

Sample i depends on the seed and i alone. The same command, run again, draws only what is missing or damaged.
Exit codes: 0 done; 1 the run failed (disk full); 2 bad input; 75 stopped by SIGINT, to be continued.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.command import STOPPED, Parser, first_process, run
from harness.core.options import add_options, from_arguments, option
from harness.diffusion.flags import add_sampling_flags, sampling
from harness.diffusion.sample_config import Drawing, check_count


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command is given beside the options of sampling."""

    ckpt: Path = option(help="a checkpoint, a run directory, or a bare state dict")
    num_samples: int = option(100, "number of samples: samples 0, 1, 2, ...")
    out: Path | None = option(None, "folder of the samples (default: samples, next to the checkpoints)")

    def __post_init__(self) -> None:
        check_count(self.num_samples)


def parser() -> Parser:
    command = Parser(prog="python -m harness.sample", description=__doc__)
    add_options(command, Request)
    add_sampling_flags(command)
    add_options(command, Drawing)
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    command = parser()
    given = command.parse_args(arguments)
    return run(command, lambda: work(given))


def work(given: argparse.Namespace) -> int:
    request, drawing = from_arguments(Request, given), from_arguments(Drawing, given)
    weights, config = sampling(given)
    from harness.diffusion.sampling import sample  # imports torch, which takes longer than to refuse a flag

    try:
        album = sample(request.ckpt, config, request.num_samples, request.out, weights=weights, drawing=drawing)
    except KeyboardInterrupt:
        if first_process():
            print("\nstopped; the same command draws the rest", file=sys.stderr)
        return STOPPED
    if first_process():
        made = ["samples.npz"] * drawing.npz + ["grid.png"] + ["preview.gif"] * bool(album.frames)
        print(*(album.folder / name for name in made), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
