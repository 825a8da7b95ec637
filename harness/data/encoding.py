"""An image tree to a latent cache, from its options to its last shard. Imports torch only when it encodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.command import require_folder
from harness.core.options import check, option
from harness.data import AUTOENCODER

if TYPE_CHECKING:
    from harness.data.latents import LatentCache


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """What is encoded, by what, and where to. Raises ValueError, naming the field, for impossible values."""

    data: Path = option(help="an image tree, one directory a class")
    out: Path = option(help="the cache's directory; the same command continues")
    vae: str = option(AUTOENCODER, "directory or hub name of the autoencoder", metavar="WHERE")
    resolution: int = option(256, "pixels a side", least=1, metavar="PX")
    batch: int = option(32, "images through the encoder at once", least=1)
    workers: int = option(4, "threads that read images, in each process", least=1, most=256)
    device: str | None = option(None, "cpu, cuda or cuda:N (default: cuda where there is one)", metavar="NAME")
    skip_corrupt: bool = option(False, "leave unreadable images out, named and counted")

    def __post_init__(self) -> None:
        check(self)
        if self.vae == "identity":
            raise ValueError("vae must name an autoencoder: with identity there are no latents, train on the images")


@dataclass(frozen=True)
class Encoded:
    """A finished cache, and how many images were left out of it, in this call and in earlier ones."""

    cache: LatentCache
    left_out: int


def encode(config: EncodeConfig, progress: Callable[[int, int], None] = lambda done, total: None) -> Encoded:
    """Encode an image tree; in the first process `progress(done, total)` is called after each of its shards.

    Under torchrun W processes share the shards. Those that an earlier call finished are kept. Raises ValueError for bad
    input, LockedError when another command writes into `out`, OSError where nothing can be written.
    """
    from harness.core.distributed import barrier, choose_device, exclusively, ranks
    from harness.data import autoencoder, latents
    from harness.data.images import ImageFolder

    require_folder(config.out)
    with ranks(choose_device(config.device)) as here:
        images = ImageFolder(config.data, config.resolution, config.skip_corrupt)
        encoder = autoencoder.StableDiffusion(config.vae, here.device)
        with exclusively(config.out, here):
            for done in latents.encode(images, encoder, config.out, config.batch, here, config.workers):
                if here.first:
                    progress(done, len(images))
            barrier()
        cache = latents.LatentCache(config.out, verify=here.first)
        return Encoded(cache, len(images) - len(cache))
