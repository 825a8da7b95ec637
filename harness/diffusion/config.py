"""What a training run is, as a frozen value, how it is carried out, and the runs that have a name. Imports no torch.

The fields that `option` declares are the flags of harness.train.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from harness.core.options import check, option
from harness.data import AUTOENCODER
from harness.data.video_choices import BY_SCALE, BY_SIZE, REFUSE, RESIZES, SHORT_VIDEOS, SPREAD
from models import ModelSpec, spec
from models.families import named

PRECISIONS = ("fp32", "tf32", "bf16")
EXACT, TANH = DECODER_NLLS = ("exact", "tanh")
"""How the likelihood of the decoder, at t = 0, is computed: by the normal CDF, or by DiT's approximation of it."""
EACH, TOGETHER = JOINT_DROPOUTS = ("each", "together")
"""How labels of joint images are dropped: each by itself, or all of a clip's by one draw, as Latte's."""
TIMESTEPS = 1000
"""Of the chain that is learnt (DDPM's)."""
DIVERGED = "diverged.txt"
"""A file of a run whose training has diverged: why, in a line."""
LARGEST_SEED = 2**63 - 1
"""torch keeps a seed in 64 bits, one of them for the sign."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that the trained weights follow from, up to floating-point reordering.

    `depth` 0 is the model's own. `batch` is global, over all processes and accumulation steps. `precision`: fp32 (TF32
    off), tf32 (fp32 with TF32 matrix products) or bf16 (autocast; parameters, loss and the scan's state stay fp32).
    Gradients are clipped to `clip_norm` (0: never) after `clip_after` steps. AdamW with constant rate and no weight
    decay. `sampling_steps` is what the result is sampled with where nothing else is stated. `decoder_nll` is one of
    harness.diffusion.process.CDFS. Of video: `frames` of a clip and their `stride` (both 0 for images); what is done
    with `short_videos`, and what frames are `resize_by`, as harness.data.videos has them; and `joint_images`: single
    frames that are learnt beside each clip (the paper's "+IMG"), with the `joint_dropout` of their labels. Raises
    ValueError, naming the field, for impossible values.
    """

    model: str = option(help="DiM-T/2, DiT-XL/2, DiM-B/4-video, ...", metavar="NAME")
    depth: int = option(0, "blocks, instead of the catalogue's", least=0, most=10_000)
    data: str = option(help="a data set by name, a tree of images or videos, a latent cache", metavar="WHERE")
    vae: str = option("identity", "identity, or the autoencoder's directory or hub name", metavar="WHERE")
    resolution: int = option(help="pixels a side", least=1, metavar="PX")
    num_classes: int = option(help="classes of the data", least=1)
    flip: bool
    frames: int = option(0, "frames of a clip; for models of video", least=0)
    stride: int = option(0, "distance between the frames of a clip", least=0, metavar="FRAMES")
    short_videos: str = option(REFUSE, "videos shorter than a clip (Latte: spread)", choices=SHORT_VIDEOS)
    resize_by: str = option(BY_SIZE, "how videos are resized (Latte: scale-factor)", choices=RESIZES)
    joint_images: int = option(0, "single frames trained together with each clip", least=0)
    joint_dropout: str = option(EACH, "dropout of joint images' labels (Latte: together)", choices=JOINT_DROPOUTS)
    steps: int = option(help="optimizer steps", least=1, most=10**15)
    batch: int = option(help="items a step, over all processes", least=1, most=10**15)
    learning_rate: float = option(help="learning rate of AdamW")
    ema_decay: float = option(help="decay of the moving average of the weights")
    class_dropout: float = 0.1
    decoder_nll: str = option(EXACT, "normal CDF in the loss at t = 0 (DiT: tanh)", choices=DECODER_NLLS)
    clip_norm: float = option(0.0, "largest gradient norm; 0 for no clipping", least=0)
    clip_after: int = option(0, "steps before gradient clipping starts", least=0, metavar="STEPS")
    precision: str = option("fp32", "arithmetic of the network", choices=PRECISIONS)
    seed: int = option(0, "seed of the weights and of all random numbers", least=0, most=LARGEST_SEED)
    sampling_steps: int = 250

    def __post_init__(self) -> None:
        check(self)
        require_text(self)
        if self.sampling_steps < 1:
            raise ValueError(f"sampling_steps must be at least 1, not {self.sampling_steps}")
        if self.frames and not self.stride:
            raise ValueError("clips take a stride of at least 1 frame")
        if self.joint_images and not self.frames:
            raise ValueError(f"joint images learn beside clips, and {self.model} is to learn images alone: no --frames")
        for name, default in (("short_videos", REFUSE), ("resize_by", BY_SIZE), ("joint_dropout", EACH)):
            if getattr(self, name) != default and not self.frames:
                raise ValueError(f"{name} is of clips, and {self.model} is to learn images alone: no --frames")
        if self.stride and not self.frames:
            raise ValueError(f"a stride is of clips, and {self.model} is to learn images alone: no --frames")
        if self.clip_after and not self.clip_norm:
            raise ValueError(f"clip_after {self.clip_after} delays clipping, and clip_norm 0 never clips")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate must lie between 0 and 1, not {self.learning_rate}")
        require_decay("ema_decay", self.ema_decay)

    def spec(self, **of_the_data: object) -> ModelSpec:
        """The model's specification; `of_the_data` are channels and downsample.

        Raises ValueError, with the nearest names, for an unknown model, and for one of video without frames.
        """
        chosen = {"depth": self.depth} if self.depth else {}
        clips = {"frames": self.frames} if self.frames else {}
        found = spec(
            self.model, num_classes=self.num_classes, class_dropout=self.class_dropout, **chosen, **clips, **of_the_data
        )
        if found.frames and not self.frames:
            raise ValueError(f"{self.model} is a model of video: pass --frames and --stride, or a preset of clips")
        return found


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a run is carried out, and what it leaves out of its data.

    Nothing else of it changes what is computed, beyond floating-point reordering, but `reduce_dtype` bf16, which rounds
    gradients. `milestones` are steps whose checkpoints stay for good. `further_ema_decays` are of averages that are
    kept beside the run's own, so that a decay can be chosen after training: harness.eval and harness.sample take
    `--ema-decay`. Raises ValueError, naming the field, for impossible values.
    """

    accumulate: int = option(1, "parts into which a process splits its batch", least=1)
    activation_checkpointing: bool = option(
        False, "recompute blocks in the backward pass", flag="--checkpoint-activations"
    )
    keep_operands: bool = option(
        False, "keep what the mixer's backward makes again otherwise (DiM, DiS): less time, more memory"
    )
    compile: bool = option(False, "torch.compile the model")
    reduce_dtype: str = option("fp32", "dtype of gradients sent between processes", choices=("fp32", "bf16"))
    fsdp: bool = option(False, "shard parameters, gradients and optimizer over the processes (FSDP2)")
    workers: int = option(2, "threads that prepare batches", least=1, most=256)
    checkpoint_every: int = option(1000, "steps from one checkpoint to the next", least=1, metavar="STEPS")
    milestones: tuple[int, ...] = option(
        (), "steps whose checkpoints are kept", least=1, metavar="STEP", flag="--checkpoint-at"
    )
    further_ema_decays: tuple[float, ...] = option(
        (), "decays of further averages to keep; harness.eval --ema-decay takes one", least=0, metavar="DECAY"
    )
    split_list: tuple[Path, ...] = option((), "lists of training videos, such as trainlist01.txt", metavar="FILE")
    skip_corrupt: bool = option(False, "skip unreadable or too short files, and name them")
    device: str | None = option(None, "cpu, cuda or cuda:N (default: cuda where there is one)", metavar="NAME")

    def __post_init__(self) -> None:
        check(self)
        require_text(self)
        for decay in self.further_ema_decays:
            require_decay("further_ema_decays", decay)

    def check(self, config: TrainConfig) -> None:
        """Raise ValueError for what a run of this configuration would ignore."""
        late = [step for step in self.milestones if step > config.steps]
        if late:
            raise ValueError(f"--checkpoint-at {late[-1]} lies beyond the run's {config.steps} steps")
        if self.split_list and not config.frames:
            raise ValueError("--split-list chooses videos, and there are none without --frames")
        decays = [config.ema_decay, *self.further_ema_decays]
        if len(set(decays)) < len(decays):
            raise ValueError(f"--further-ema-decays repeats a decay; the run's own is {config.ema_decay:g}")
        family = config.spec().family
        if self.keep_operands and not named(family).recomputes:
            raise ValueError(f"--keep-operands changes nothing for {config.model}: {family} recomputes no operands")


def require_decay(name: str, decay: float) -> None:
    """Raise ValueError, naming the field, for a decay that no average has."""
    if not 0 <= decay < 1:
        raise ValueError(f"{name} must lie in [0, 1), not {decay}")


def require_text(options: object) -> None:
    """Raise ValueError for a field of a dataclass that is an empty text, or one with a null byte."""
    for field in fields(options):  # type: ignore[arg-type]
        value = getattr(options, field.name)
        if isinstance(value, str) and (not value or "\0" in value):
            raise ValueError(f"{field.name} must be a text without null bytes, not {value!r}")


PRESETS: Mapping[str, TrainConfig] = {
    "bouncing-digits": TrainConfig(
        model="DiM-U/4-matched-video",
        data="bouncing-digits",
        resolution=16,
        num_classes=10,
        flip=False,
        frames=8,
        stride=1,
        steps=12_000,
        batch=16,
        learning_rate=2e-3,
        ema_decay=0.998,
        clip_norm=0.5,
        sampling_steps=50,
    ),
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
    "fashion-mnist": TrainConfig(
        model="DiM-N/4-matched",
        data="fashion-mnist",
        resolution=32,
        num_classes=10,
        flip=False,
        steps=3000,
        batch=32,
        learning_rate=2e-3,
        ema_decay=0.995,
        clip_norm=1.0,
        sampling_steps=50,
    ),
    "imagenet256": TrainConfig(
        model="DiM-XL/2",
        data="imagenet/train",
        vae=AUTOENCODER,
        resolution=256,
        num_classes=1000,
        flip=True,
        steps=400_000,
        batch=256,
        learning_rate=1e-4,
        ema_decay=0.9999,
        decoder_nll=TANH,
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
        vae=AUTOENCODER,
        resolution=256,
        num_classes=101,
        flip=True,
        frames=16,
        stride=3,
        short_videos=SPREAD,
        resize_by=BY_SCALE,
        joint_dropout=TOGETHER,
        steps=1_000_000,
        batch=40,
        learning_rate=1e-4,
        ema_decay=0.9999,
        decoder_nll=TANH,
        clip_norm=0.1,
        clip_after=100_000,
        precision="tf32",
    ),
}
"""`digits`: scikit-learn's digits in pixel space. Expected after its 2000 steps, 100 DDPM steps, guidance 1.5: a
classifier of the real digits (99.3 % on held-out ones) sees the requested class in 99 of 100 samples, for
DiM-T/2 (15 core-minutes of training) and for DiT-T/2 (6); results/samples shows them.

`moving-digits`: those digits moving back and forth in 12 pixels. The suite `clips` chooses rate and guidance anew for
each family; this is for a first look, 30 core-minutes of training for DiM-U/4-video, and 11 for DiT-U/4-video.

`bouncing-digits`: those digits at four or eight pixels a frame on each axis, in a square of 16 pixels, so that no frame
follows from the one before it. The suite `bouncing-digits` chooses the rate anew for each family; this is for a first
look.

`fashion-mnist`: photographs of clothes in a square of 32 pixels. The suite `fashion` chooses rate and average anew for
each family and size; these are for a first look.

`imagenet256`: section 4.1 of the DiM paper, which is DiT's recipe; give the tree or its latent cache by `--data`.
Expected after 400K steps, 250 DDPM steps, guidance 1.5, from the paper: DiM-B/4 FID 37.62, DiM-XL/4 17.26 (Table 6),
DiT-B/4 44.43 (Table 2). The paper names Stable Diffusion 1.4's autoencoder; the preset takes DiT's, `sd-vae-ft-ema`:
the same encoder, hence the same latents, with a decoder that was trained further.

`ucf101`: Latte's recipe, at five clips a card of eight (its configs/ucf101, its datasets and models/latte_img.py): what
it does with short videos, how it resizes, one draw that drops the labels of all of a clip's joint images. Beside joint
images Latte takes four clips, but here the batch stays, so that a run with and one without them differ in the images
alone. Expected, from the paper's Table 3: FVD 358.75 for
DiM, 206.83 with joint images.
"""


def opening(resolved: Mapping[str, Any]) -> str:
    """The first lines of a run, of what `announce` of harness.diffusion.train is given: what, on what, how, where."""
    items = f"{resolved['images']:,} images" if "images" in resolved else f"{resolved['videos']:,} videos"
    items += f", in clips of {resolved['frames']} frames," if resolved["frames"] else ""
    joint = f" with {resolved['joint_images']} single frames each" if resolved["joint_images"] else ""
    where = resolved["device"] + (f" x {resolved['processes']}" if resolved["processes"] > 1 else "")
    return (
        f"{resolved['model']} on {resolved['dataset']}: {items} of {resolved['resolution']} px; {resolved['steps']:,} "
        f"steps of {resolved['batch']}{joint}, rate {resolved['learning_rate']:g}, {resolved['precision']}, "
        f"seed {resolved['seed']}, on {where}\ninto {resolved['run']} (--dry-run prints every setting)"
    )


def presets() -> str:
    """A line each: what a preset trains."""
    lines = [
        f"  {name:<14} {one.model} on {one.data}, {one.resolution} px, {one.steps:,} steps of {one.batch}, rate "
        f"{one.learning_rate:g}, EMA {one.ema_decay:g}, {one.precision}"
        for name, one in PRESETS.items()
    ]
    return "\n".join(["presets:", *lines])
