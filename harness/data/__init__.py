"""What is learnt from and compared with: images, clips and latents, by name, path or file."""

EMBEDDED = ("digits", "moving-digits")
"""Data sets that need no download."""
