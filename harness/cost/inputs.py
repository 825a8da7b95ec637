"""Inputs of a forward pass: of the catalogue's models, and of any model by the shapes that a user writes down."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "bool")


def inputs_of(
    spec: ModelSpec, resolution: int, batch: int, device: str, joint_images: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (B, [frames + joint images,] C, H, W), timesteps (B,) and int64 labels (B, [1 + joint images]); zeros."""
    import torch

    side = spec.grid(resolution) * spec.patch
    frames = (spec.frames + joint_images,) if spec.frames else ()
    labels = (1 + joint_images,) if joint_images else ()
    x = torch.zeros(batch, *frames, spec.channels, side, side, device=device)
    return x, torch.zeros(batch, device=device), torch.zeros(batch, *labels, dtype=torch.long, device=device)


@dataclass(frozen=True)
class Shape:
    """One input as it is written: `1x3x224x224`, `1x3x224x224:bfloat16`, `16:int64`."""

    sizes: tuple[int, ...]
    dtype: str

    def tensor(self) -> Tensor:
        """A tensor of that shape and type on the meta device. Raises ValueError for more elements than torch counts."""
        import torch

        try:
            return torch.zeros(self.sizes, dtype=getattr(torch, self.dtype), device="meta")
        except RuntimeError as error:
            raise ValueError(f"an input of {'x'.join(map(str, self.sizes))} is too large") from error


def parse_shapes(texts: Iterable[str]) -> list[Shape]:
    """Raises ValueError, with the form, for what is no shape."""
    shapes = []
    for text in texts:
        match = re.fullmatch(r"([1-9][0-9]{0,11}(?:x[1-9][0-9]{0,11})*)(?::(\w+))?", text)
        if match is None or (match[2] or DTYPES[0]) not in DTYPES:
            raise ValueError(f"--input {text!r} is not SHAPE[:DTYPE], as 1x3x224x224 or 16:int64 ({', '.join(DTYPES)})")
        shapes.append(Shape(tuple(int(n) for n in match[1].split("x")), match[2] or DTYPES[0]))
    return shapes
