"""What is learnt from and compared with: images, clips and latents, by name, path or file. Imports no torch."""

from harness.data.registry import CLIPS, IMAGES

NAMED = (*IMAGES, *CLIPS)
"""Data sets that go by a name, small images or clips of one channel; of some, parts do too: `fashion-mnist:test`."""
AUTOENCODER = "stabilityai/sd-vae-ft-ema"
"""The hub name of Stable Diffusion's autoencoder as DiT takes it."""


def is_named(text: str) -> bool:
    """Whether a text is the name of a data set, or of a part of one."""
    return text.partition(":")[0] in NAMED
