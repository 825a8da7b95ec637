"""How the network's arithmetic is done: precision, and what runs its scans."""

from __future__ import annotations

import torch

from models import ModelSpec
from models.families import named


def set_precision(precision: str) -> None:
    """TF32 in matrix products and convolutions exactly when requested by name."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of a forward pass: bfloat16 where the precision is bf16."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def scan_backend(spec: ModelSpec, device: torch.device) -> str | None:
    """What runs the selective scans of a model on this device, for the record; None where it has none."""
    ways = named(spec.family).implementations
    return ways.resolve(ways.default, str(device)) if ways and ways.resolve and ways.field == "scan" else None
