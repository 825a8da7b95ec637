"""What a score depends on beside the metric's name: the options of `harness.metrics.evaluate` and its command."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from harness.core import paths
from harness.core.options import check, option

ARITHMETICS = ("fp32", "adm_fp16")
TIMM = "timm:"
"""How the names of networks of timm begin."""
MAX_DUPLICATES = 0.1
"""Share of copies among samples above which a score is refused unless it is allowed, and tables say so."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How values and their error bars are computed. Raises ValueError, naming the field, for impossible values."""

    repeats: int = option(1, "number of disjoint sample sets that are scored", least=1)
    bootstrap: int = option(20, "resamples of the samples, for error bars; 0 for none", least=0, most=100_000)
    metric_seed: int = option(0, "seed of resampling", least=0)
    extrapolate: bool = option(False, "also give Fréchet distances at infinite N")
    arithmetic: str = option("fp32", "arithmetic of precision and recall", choices=ARITHMETICS)
    permute_seed: int | None = option(None, "shuffle before the Inception Score", least=0)
    max_duplicates: float = option(
        MAX_DUPLICATES, "share of copies among samples above which a score is refused", least=0, most=1
    )

    def __post_init__(self) -> None:
        check(self)
        if self.bootstrap == 1:
            raise ValueError("bootstrap must be 0 or at least 2, not 1")

    @property
    def resamples(self) -> bool:
        """Whether distances between Gaussians need the samples' rows too."""
        return self.bootstrap > 1 or self.extrapolate


@dataclass(frozen=True, kw_only=True)
class ClipProtocol:
    """Every choice of an FVD on I3D or VideoMAE that is not in its name. Without any, it is StyleGAN-V's.

    Latte's numbers have `stride_real` 3 and `real_videos` random (its `compute_fvd` and
    `compute_feature_stats_for_dataset`). `split` is the user's word for which videos the reference is. `covariance`
    divides by N (`population`, as both) or by N - 1 (`sample`, as TF-Hub's).
    """

    stride_real: int | None = option(None, "frame stride of real clips (default: the metric's)", least=1)
    stride_fake: int | None = option(None, "frame stride of generated clips (default: the metric's)", least=1)
    split: str = option("unstated", "name of the split that --ref holds; only recorded")
    real_videos: str = option("first", "which real videos are used if there are too many", choices=("first", "random"))
    offset_seed: int = option(0, "seed of where real clips begin and which videos are drawn", least=0)
    covariance: str = option(
        "population", "covariance convention of an FVD on I3D or VideoMAE", choices=("population", "sample")
    )

    def __post_init__(self) -> None:
        check(self)

    def resolved(self, stride: int) -> ClipProtocol:
        """With the strides that a metric's name has, where none is given."""
        return dataclasses.replace(self, stride_real=self.stride_real or stride, stride_fake=self.stride_fake or stride)

    def changed(self) -> list[str]:
        """The fields that are not at their defaults."""
        return [f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default]


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """How features are made, and where they and the weights behind them are kept."""

    ref_resolution: int | None = option(
        None, "crop and resize the reference to this size, if its images have other sizes", least=1, metavar="PX"
    )
    inception_weights: Path | None = option(None, "Inception weights, instead of the published file", metavar="FILE")
    i3d_weights: Path | None = option(None, "I3D weights, instead of the published file", metavar="FILE")
    videomae_weights: Path | None = option(
        None, "VideoMAE weights (default: the published file in --weights-dir)", metavar="FILE"
    )
    timm_weights: Path | None = option(
        None, "weights of a metric's timm network (default: NAME.safetensors in --weights-dir)", metavar="FILE"
    )
    weights_dir: Path | None = option(
        None, "folder of weight files (default: DIM_VS_DIT_WEIGHTS, or in the user's cache)", metavar="DIR"
    )
    offline: bool = option(False, "never download")
    work_dir: Path | None = option(
        None, "folder of features, shared by all processes (default: eval, among the runs)", metavar="DIR"
    )
    batch: int | None = option(None, "items through the network at once (default: the protocol's)", least=1, most=4096)

    def __post_init__(self) -> None:
        check(self)

    @property
    def directory(self) -> Path:
        """Of features."""
        return self.work_dir or paths.runs() / "eval"

    def weights_given(self, name: str) -> Path | None:
        """The file to use instead of the known one, by the name of a WeightFile."""
        given = {"inception": self.inception_weights, "i3d": self.i3d_weights, "videomae": self.videomae_weights}
        return self.timm_weights if name.startswith(TIMM) else given.get(name)
