"""Train a denoiser; the same command, run again, continues.

    python -m harness.train                                   a tiny DiM on real digits, minutes on two cores
    python -m harness.train --preset moving-digits            the same on clips of moving digits
    torchrun --nproc-per-node 8 -m harness.train --preset imagenet256 --model DiM-B/4 --data imagenet/train
    torchrun --nproc-per-node 8 -m harness.train --preset ucf101 --joint-images 8 --data UCF-101 --skip-corrupt

Flags that are not given have the value of the preset; --dry-run prints them all. Exit codes: 0 done; 1 the run failed
(diverged, disk full); 2 bad input; 75 stopped by SIGTERM, SIGUSR1 or SIGINT after a checkpoint; the same command then
continues (under torchrun the code is 1).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core import paths
from harness.core.command import STOPPED, Parser, first_process, run
from harness.core.options import add_options, from_arguments, option
from harness.core.signals import stop_on_signals
from harness.cost.training import training_macs
from harness.diffusion.config import PRESETS, Execution, TrainConfig, opening, presets
from harness.suites.fitting import auto_fit

DIGITS = "digits"  # the preset that is taken where none is given


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command is given beside the options of training."""

    preset: str = option(DIGITS, "default settings; the other flags change them", choices=tuple(PRESETS))
    out: Path | None = option(None, "directory of the run (default: in output/runs, named after its settings)")
    dry_run: bool = option(False, "print the resolved configuration and stop")
    auto_fit: bool = option(False, "choose --checkpoint-activations, --accumulate and --fsdp by predicted memory")
    card_gib: float | None = option(None, "for --auto-fit: GiB per process (default: free memory)", least=0.01)


def parser() -> Parser:
    command = Parser(prog="python -m harness.train", description=__doc__, epilog=presets())
    add_options(command, Request)
    add_options(command, TrainConfig, overrides_only=True, shown=(DIGITS, PRESETS[DIGITS]))
    add_options(command, Execution)
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    command = parser()
    given = command.parse_args(arguments)
    return run(command, lambda: work(given))


def work(given: argparse.Namespace) -> int:
    request, execution = from_arguments(Request, given), from_arguments(Execution, given)
    config = from_arguments(TrainConfig, given, PRESETS[request.preset])
    config.spec()
    execution.check(config)
    adapt = auto_fit(config, execution, request.auto_fit, request.card_gib)
    out = request.out or paths.runs() / f"{request.preset}-{config.model.replace('/', '-')}-seed{config.seed}"
    from harness.diffusion.training import train  # imports torch, which takes longer than to refuse a flag

    with stop_on_signals() as received:
        done = train(
            config, out, execution, adapt=adapt, dry_run=request.dry_run, stop=lambda: bool(received),
            announce=lambda resolved: print(json.dumps(resolved) if request.dry_run else opening(resolved), flush=True),
            flops_per_item=lambda spec: 2 * training_macs(spec, config.resolution, config.joint_images),
        )  # fmt: skip
    if request.dry_run or not first_process():
        return 0 if done.finished or request.dry_run else STOPPED
    if done.left_out:
        print(f"{len(done.left_out)} corrupt items were left out: {', '.join(done.left_out[:5])}")
    if not done.finished:
        print(f"stopped at step {done.step} of {done.steps}, checkpoint written; the same command continues")
        return STOPPED
    print(f"{done.step} steps in {done.out}; next: python -m harness.sample --ckpt {shlex.quote(str(done.out))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
