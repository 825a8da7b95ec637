"""What turns images or clips into features: one pass gives every stream that the metrics of a space read.

Letters: B batch, T frames, H height, W width, C channels (1 or 3), D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Extractor:
    """`extract` maps uint8 (B, H, W, C), or clips (B, T, H, W, C), to float32 streams (B, D) by name.

    `identity` holds all that the features depend on: network, weights' sha256, resize, precision. `batch` is fixed and
    the last one padded, because float32 features depend in their last bits on the batch.
    """

    identity: dict[str, object]
    extract: Callable[[Tensor], dict[str, Tensor]]
    batch: int = 64  # as ADM and torch-fidelity


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """TF32 off and deterministic convolutions while it lasts: torch leaves TF32 convolutions on by default."""
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
