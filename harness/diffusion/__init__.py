"""Denoisers trained and sampled from: `train(config, out)`, `sample(checkpoint, config, count, out)`.

    from harness.diffusion import PRESETS, SampleConfig, sample, train

    run = train(PRESETS["digits"], "output/runs/digits")
    album = sample(run.out, SampleConfig(cfg_scale=1.5), count=100)

Imports torch when `train`, `sample` or `load_trained` is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.diffusion.config import PRESETS, Execution, TrainConfig
from harness.diffusion.sample_config import Drawing, SampleConfig, WeightsConfig

if TYPE_CHECKING:
    from harness.diffusion.sampling import sample
    from harness.diffusion.trained import load_trained
    from harness.diffusion.training import train

__all__ = [
    "PRESETS", "Drawing", "Execution", "SampleConfig", "TrainConfig", "WeightsConfig", "load_trained", "sample",
    "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "train":
        from harness.diffusion.training import train

        return train
    if name == "sample":
        from harness.diffusion.sampling import sample

        return sample
    if name == "load_trained":
        from harness.diffusion.trained import load_trained

        return load_trained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
