"""What a feature space is: a network, which of its outputs are compared, and of which items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.metrics.features.weights import WeightFile, Weights

if TYPE_CHECKING:
    import torch

    from harness.metrics.features.extractor import Extractor


@dataclass(frozen=True, kw_only=True)
class Space:
    """A feature space by the name that metrics have behind their @.

    `streams` are the outputs of its network by name, each float32 (B, D). `open` turns verified weights into an
    extractor on a device; it alone imports torch. `classes` is how many classes its logits have, where samples have
    labels of the same classes.

    `data` is the data set that the network was trained on. It is the reference where none is given, and the names of
    metrics on such a space always state it, as they do one that is `stated`: a distance on Inception's features may
    be called FID, one on these may not. `train` trains that network anew. With `cuts_clips` a metric's name states
    frames and stride, and samples are cut to them: the network takes `fewest_frames` or more, in multiples of
    `frame_multiple`. A `backbone` is a network of timm, on which every distance of plain rows is defined. `label`
    is added to the names of distances that stand beside those on other spaces in one table.
    """

    name: str
    items: Literal["images", "clips"]
    streams: tuple[str, ...]
    weights: WeightFile
    open: Callable[[Weights, torch.device | str], Extractor]
    data: str | None = None
    stated: bool = False
    train: Callable[[], torch.nn.Module] | None = None
    classes: int | None = None
    cuts_clips: bool = False
    fewest_frames: int = 1
    frame_multiple: int = 1
    backbone: bool = False
    label: str = ""
