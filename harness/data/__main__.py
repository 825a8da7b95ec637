"""`python -m harness.data encode`: write an image tree's latents, so that training needs no autoencoder.

    python -m harness.data encode --data imagenet/train --vae sd-vae-ft-ema --out imagenet256
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from harness.core.command import Parser, positive
from harness.core.distributed import choose_device
from harness.data.autoencoder import HUB, StableDiffusion
from harness.data.images import ImageFolder
from harness.data.latents import LatentCache, encode


def parser() -> Parser:
    door = Parser(prog="python -m harness.data", description="Encode an image tree into latents.")
    verb = door.add_subparsers(dest="verb", required=True).add_parser("encode", help="write a latent cache")
    verb.add_argument("--data", type=Path, required=True, help="an image tree, one directory a class")
    verb.add_argument("--out", type=Path, required=True, help="the cache's directory; the same command resumes")
    verb.add_argument("--vae", default=HUB, help="directory or hub name of the autoencoder (default: %(default)s)")
    verb.add_argument("--resolution", type=positive, default=256)
    verb.add_argument("--batch", type=positive, default=32, help="images through the encoder at once")
    verb.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    verb.add_argument("--skip-corrupt", action="store_true", help="leave unreadable images out, named and counted")
    return door


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    try:
        images = ImageFolder(asked.data, asked.resolution, asked.skip_corrupt)
        device = choose_device(asked.device)
        autoencoder = StableDiffusion(asked.vae, device)
        with tqdm(total=len(images), unit="image") as bar:
            for done in encode(images, autoencoder, asked.out, asked.batch, device):
                bar.update(done - bar.n)
        cache = LatentCache(asked.out)
    except ValueError as error:
        parser().error(str(error))
    print(f"{len(cache)} images in {asked.out}, {len(images.corrupt)} left out as corrupt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
