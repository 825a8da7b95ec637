"""What is learnt from and compared with: images, clips and latents, by name, path or file. Imports no torch."""

from harness.data.registry import CLIPS, IMAGES

EMBEDDED = (*IMAGES, *CLIPS)
"""Data sets that need no download."""
AUTOENCODER = "stabilityai/sd-vae-ft-ema"
"""The hub name of Stable Diffusion's autoencoder as DiT takes it."""
