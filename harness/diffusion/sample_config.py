"""What samples follow from: which weights, and how they are drawn. Imports no torch.

The fields that `option` declares are flags of every command that draws samples.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.options import check, option
from harness.diffusion.config import LARGEST_SEED, PRECISIONS, TIMESTEPS, require_decay, require_text
from models import spec

SAMPLERS = ("ddpm", "ddim")
WEIGHTS = ("ema", "raw")
IMAGENET_RESOLUTION, IMAGENET_CLASSES = 256, 1000
"""Of a bare state dict, where nothing else is stated."""


@dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """Which weights of a file are loaded, and what the file does not state.

    A checkpoint of harness.train states its model; a bare state dict does not, so it takes `model`, and `resolution`
    and `num_classes` where they are not ImageNet's. `vae` overrides where the autoencoder is loaded from. Raises
    ValueError for what would be ignored, and for an unknown model.
    """

    model: str | None = option(None, "model of a bare state dict", metavar="NAME")
    resolution: int | None = option(
        None, f"pixels a side, of a bare state dict (default: {IMAGENET_RESOLUTION})", least=1, metavar="PX"
    )
    num_classes: int | None = option(None, f"classes of a bare state dict (default: {IMAGENET_CLASSES})", least=1)
    weights: str = option("ema", "which weights of a checkpoint", choices=WEIGHTS)
    ema_decay: float | None = option(
        None, "which average of a checkpoint that keeps several (default: the run's own)", metavar="DECAY"
    )
    vae: str | None = option(None, "where to load the autoencoder from, if not as in training", metavar="WHERE")

    def __post_init__(self) -> None:
        check(self)
        require_text(self)
        if self.ema_decay is not None:
            require_decay("ema_decay", self.ema_decay)
            if self.weights != "ema" or self.model is not None:
                other = f"--model {self.model}" if self.model is not None else f"--weights {self.weights}"
                raise ValueError(f"--ema-decay takes an average of a checkpoint of harness.train, {other} has none")
        if self.model is None:
            for name in ("resolution", "num_classes"):
                if getattr(self, name) is not None:
                    flag = f"--{name.replace('_', '-')}"
                    raise ValueError(
                        f"{flag} is of a bare state dict, and a checkpoint states its own: give --model too"
                    )
            return
        spec(self.model)
        if self.weights != "ema":
            raise ValueError(
                f"--weights {self.weights} is of a checkpoint of harness.train; a bare state dict has one set"
            )


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """What samples follow from, beside the weights. `classes`: uniform (at random, as DiT), balanced, or a list.

    Guidance is uncond + cfg_scale (cond - uncond) on the first `cfg_channels` channels. Where `steps` or `cfg_channels`
    is None, the checkpoint fills it in (`Trained.resolve`): with the steps of its preset, or 250, and with DiT's
    published 3 channels, of clips all, as Latte. Raises ValueError, naming the field, for impossible values.
    """

    seed: int = option(0, "seed of the noise and of the classes", least=0, most=LARGEST_SEED)
    steps: int | None = option(None, "denoising steps (default: the preset's; 250 for ImageNet)", metavar="N")
    sampler: str = option("ddpm", "sampling method", choices=SAMPLERS)
    cfg_scale: float = option(1.5, "guidance scale; 1 means no guidance", least=0)
    cfg_channels: int | None = option(None, "guided channels (default: 3, as DiT; for clips all, as Latte)", least=0)
    classes: str | tuple[int, ...] = "uniform"
    precision: str = option("fp32", "arithmetic of the network", choices=PRECISIONS)

    def __post_init__(self) -> None:
        check(self)
        if self.steps is not None and not 1 <= self.steps <= TIMESTEPS:
            raise ValueError(f"steps must lie in 1..{TIMESTEPS}, not {self.steps}")
        if isinstance(self.classes, str) and self.classes not in ("uniform", "balanced"):
            raise ValueError(f"unknown classes {self.classes!r}; choose uniform, balanced, or a list of numbers")

    def check_classes(self, num_classes: int) -> None:
        """Raise ValueError for a listed class that a model of so many does not have."""
        wrong = [label for label in self.classes if label not in range(num_classes)]
        if wrong and not isinstance(self.classes, str):
            raise ValueError(f"no class {wrong[0]}: the model has 0..{num_classes - 1}")


MOST_SAMPLES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How samples are drawn, and in which forms they are kept.

    On a CPU none of it but `compile` changes a sample; that rounds in other places, and a few pixels may differ by one
    level.
    """

    batch: int = option(64, "samples through the network at once, on a CPU at most what its cache holds", least=1)
    device: str | None = option(None, "cpu, cuda or cuda:N (default: cuda where there is one)", metavar="NAME")
    compile: bool = option(False, "torch.compile the network: a minute at the start, then less time a step")
    npz: bool = option(False, "also pack samples.npz for the ADM evaluation suite")

    def __post_init__(self) -> None:
        check(self)
        require_text(self)


def check_count(count: int) -> None:
    """Raise ValueError for more samples than one folder can number."""
    if not 1 <= count <= MOST_SAMPLES:
        raise ValueError(
            f"a folder holds 1 to {MOST_SAMPLES:,} samples, not {count:,}: their files are numbered by six digits"
        )
