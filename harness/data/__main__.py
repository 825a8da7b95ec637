"""Write an image tree's latents, so that training needs no autoencoder.

    python -m harness.data encode --data imagenet/train --vae sd-vae-ft-ema --out output/runs/imagenet256

The same command, run again, continues. Exit codes: 0 done; 1 the run failed (disk full); 2 bad input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tqdm import tqdm

from harness.core.command import Parser, run
from harness.core.options import add_options, from_arguments
from harness.data.encoding import EncodeConfig, encode


def parser() -> Parser:
    command = Parser(prog="python -m harness.data", description=__doc__)
    verbs = command.add_subparsers(dest="verb", required=True, metavar="encode")
    add_options(verbs.add_parser("encode", help="write a latent cache", description=__doc__), EncodeConfig)
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    command = parser()
    given = command.parse_args(arguments)
    return run(command, lambda: work(given))


def work(given: argparse.Namespace) -> None:
    config = from_arguments(EncodeConfig, given)
    with tqdm(unit="image", delay=0.5) as bar:  # bad input is one line, without a bar

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        encoded = encode(config, progress)
    print(f"{len(encoded.cache)} images in {config.out}, {len(encoded.left_out)} left out as corrupt")
    print(f"next: python -m harness.train --preset imagenet256 --data {config.out}")


if __name__ == "__main__":
    sys.exit(main())
