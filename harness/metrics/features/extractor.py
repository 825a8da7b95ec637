"""What turns images or clips into features: one pass gives every stream that the metrics of a space read.

Letters: B batch, T frames, H height, W width, C channels (1 or 3), D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.core.distributed import Ranks, barrier
from harness.metrics.features.space import Space
from harness.metrics.features.weights import load_weights
from harness.metrics.settings import Extraction


@dataclass(frozen=True)
class Extractor:
    """`extract` maps uint8 (B, H, W, C), or clips (B, T, H, W, C), to float32 streams (B, D) by name.

    `identity` holds all that the features depend on: network, weights' sha256, resize, precision. `batch` is fixed and
    the last one padded, because float32 features depend in their last bits on the batch.
    """

    identity: dict[str, object]
    extract: Callable[[Tensor], dict[str, Tensor]]
    batch: int = 64  # as ADM and torch-fidelity


def open_extractor(space: Space, extraction: Extraction, here: Ranks) -> Extractor:
    """The extractor of a feature space; the first process may download its weights, then the others find them.

    Raises ValueError for weights that are missing, or not those of the network.
    """
    if not here.first:
        barrier()
    weights = load_weights(
        space.weights,
        path=extraction.weights_given(space.weights.name),
        directory=extraction.weights_dir,
        offline=extraction.offline,
    )
    if here.first:
        barrier()
    opened = space.open(weights, here.device)
    return replace(opened, batch=extraction.batch or opened.batch)


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """TF32 off and deterministic convolutions while it lasts: TF32 convolutions are torch's default."""
    backend, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = backend.allow_tf32, backend.benchmark, backend.deterministic, matmul.allow_tf32
    backend.allow_tf32, backend.benchmark, backend.deterministic, matmul.allow_tf32 = False, False, True, False
    try:
        yield
    finally:
        backend.allow_tf32, backend.benchmark, backend.deterministic, matmul.allow_tf32 = before


def rgb(images: Tensor) -> Tensor:
    """(..., H, W, 1) or (..., H, W, 3) to three channels; grey is repeated."""
    return images.expand(*images.shape[:-1], 3)
