"""What a training run is, as a frozen value, and the runs that have a name."""

from __future__ import annotations

from dataclasses import dataclass

from harness.data.autoencoder import HUB

PRECISIONS = ("fp32", "tf32", "bf16")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that the trained weights follow from, up to floating-point reordering.

    `depth` 0 is the model's own. `batch` is global, over all processes and accumulation steps. `precision`: fp32 (TF32
    off), tf32 (fp32 with TF32 matrix products) or bf16 (autocast; parameters, loss and the scan's state stay fp32).
    Gradients are clipped to `clip_norm` (0: never) after `clip_after` steps. AdamW with constant rate and no weight
    decay. `sampling_steps` is what the result is sampled with where nothing else is said. Of video: `frames` of a clip
    and their `stride` (both 0 for images), and `joint_images`: single frames that are learnt beside each clip (the
    paper's "+IMG"). Raises ValueError, naming the field, for impossible values.
    """

    model: str
    depth: int = 0
    data: str
    vae: str = "identity"
    resolution: int
    num_classes: int
    flip: bool
    frames: int = 0
    stride: int = 0
    joint_images: int = 0
    steps: int
    batch: int
    learning_rate: float
    ema_decay: float
    class_dropout: float = 0.1
    clip_norm: float = 0.0
    clip_after: int = 0
    precision: str = "fp32"
    seed: int = 0
    sampling_steps: int = 250

    def __post_init__(self) -> None:
        for name in ("resolution", "num_classes", "steps", "batch", "sampling_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if min(self.frames, self.stride, self.joint_images) < 0:
            raise ValueError("frames, stride and joint_images must not be negative")
        if self.frames and not self.stride:
            raise ValueError("clips take a stride of at least 1 frame")
        if self.joint_images and not self.frames:
            raise ValueError(f"joint images learn beside clips, and {self.model} is to learn images alone: no --frames")
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision {self.precision!r}; choose from {', '.join(PRECISIONS)}")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate must lie between 0 and 1, not {self.learning_rate}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), not {self.ema_decay}")
        if min(self.clip_norm, self.clip_after, self.seed, self.depth) < 0:
            raise ValueError("clip_norm, clip_after, seed and depth must not be negative")


PRESETS = {
    "digits": TrainConfig(
        model="DiM-T/2",
        data="digits",
        resolution=8,
        num_classes=10,
        flip=False,
        steps=2000,
        batch=64,
        learning_rate=1e-3,
        ema_decay=0.995,
        sampling_steps=50,
    ),
    "imagenet256": TrainConfig(
        model="DiM-XL/2",
        data="imagenet/train",
        vae=HUB,
        resolution=256,
        num_classes=1000,
        flip=True,
        steps=400_000,
        batch=256,
        learning_rate=1e-4,
        ema_decay=0.9999,
        precision="tf32",
    ),
    "moving-digits": TrainConfig(
        model="DiM-U/4-video",
        data="moving-digits",
        resolution=12,
        num_classes=10,
        flip=False,
        frames=8,
        stride=1,
        steps=6000,
        batch=16,
        learning_rate=3e-3,
        ema_decay=0.998,
        clip_norm=0.5,
        sampling_steps=50,
    ),
    "ucf101": TrainConfig(
        model="DiM-XL/2-video",
        data="ucf101",
        vae=HUB,
        resolution=256,
        num_classes=101,
        flip=True,
        frames=16,
        stride=3,
        steps=1_000_000,
        batch=40,
        learning_rate=1e-4,
        ema_decay=0.9999,
        clip_norm=0.1,
        clip_after=100_000,
        precision="tf32",
    ),
}
"""`digits`: scikit-learn's digits in pixel space. Expected after its 2000 steps, 100 DDPM steps, guidance 1.5: a
classifier of the real digits (99.3 % on held-out ones) sees the class that was asked for in 99 of 100 samples, for
DiM-T/2 (15 core-minutes of training) and for DiT-T/2 (6); results/samples shows them.

`moving-digits`: those digits going to and fro in a square of 12 pixels. Expected after its 6000 steps, 50 DDPM steps,
guidance 4: a classifier sees the digit that was asked for in 99 of 100 frames of DiM-U/4-video (30 core-minutes of
training) and 95 of DiT-U/4-video (11), and 94 and 82 of 100 steps between frames are as long as real ones. Table 3 of
results/tables has them.

`imagenet256`: section 4.1 of the DiM paper, which is DiT's recipe; give the tree or its latent cache by `--data`.
Expected after 400K steps, 250 DDPM steps, guidance 1.5, from the paper: DiM-B/4 FID 37.62, DiM-XL/4 17.26 (Table 6),
DiT-B/4 44.43 (Table 2). The paper names Stable Diffusion 1.4's autoencoder; the preset takes DiT's, `sd-vae-ft-ema`:
the same encoder, hence the same latents, with a decoder that was trained further.

`ucf101`: Latte's recipe, at five clips a card of eight. Beside joint images Latte takes four, but here the batch stays,
so that a run with and one without them differ in the images alone. Expected, from the paper's Table 3: FVD 358.75 for
DiM, 206.83 with joint images.
"""
