"""The image pipeline: process (the equations), fit (the training loop), checkpoint, generate (seeds to samples)."""
