"""Widths and patch sizes of the catalogue, which families share but where theirs differ. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Width D and heads of a size. How many blocks it has is the family's own."""

    width: int
    heads: int


SIZES = {
    "P":  Size(32,    2),  # pico to mini: a ladder of the shape of S to XL, for embedded data
    "N":  Size(64,    2),
    "U":  Size(72,    3),
    "M":  Size(80,    4),
    "T":  Size(128,   4),  # tiny: trains on a CPU in minutes
    "S":  Size(384,   6),  # S to XL: Peebles & Xie (arXiv 2212.09748, Table 1)
    "B":  Size(768,  12),
    "L":  Size(1024, 16),
    "XL": Size(1152, 16),
    "H":  Size(1536, 16),  # huge: of DiS alone
}  # fmt: skip
"""In the order in which catalogues list them."""

PATCHES = (2, 4, 8)
"""Sides of a patch, in positions of the latent (Peebles & Xie)."""

TIMESTEP_FREQUENCIES = 256
"""Features of a timestep before its MLP, half of them cosines (DiT)."""
