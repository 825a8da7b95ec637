"""Write an image tree's latents, so that training needs no autoencoder.

    python -m harness.data encode --data imagenet/train --vae sd-vae-ft-ema --out output/runs/imagenet256
    torchrun --nproc-per-node 8 -m harness.data encode --data imagenet/train --out output/runs/imagenet256

The same command, run again, continues, with however many processes. Exit codes: 0 done; 1 the run failed (disk full);
2 bad input; 75 stopped by SIGINT, to be continued.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tqdm import tqdm

from harness.core.command import STOPPED, Parser, first_process, run
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


def work(given: argparse.Namespace) -> int:
    config = from_arguments(EncodeConfig, given)
    with tqdm(unit="image", delay=0.5, disable=not first_process()) as bar:  # bad input is one line, without a bar

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        try:
            encoded = encode(config, progress)
        except KeyboardInterrupt:
            print("\nstopped; the same command encodes the rest", file=sys.stderr)
            return STOPPED
    if not first_process():
        return 0
    print(f"{len(encoded.cache)} images in {config.out}, {encoded.left_out} left out as corrupt")
    print(f"next: python -m harness.train --preset imagenet256 --data {config.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
