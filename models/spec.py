"""The catalogue as data: one size table for both families and the parser of the public names. Imports no torch.

A name is `FAMILY-SIZE/PATCH` with an optional variant: `DiT-XL/2`, `DiM-B/4`, `DiM-XL/2-matched`.
Sizes S to XL: DiT's from Peebles & Xie (arXiv 2212.09748, Table 1), DiM's from Mo & Tian (arXiv 2405.15881, Table 1).
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from dataclasses import dataclass

FAMILIES = ("DiT", "DiM")
PATCHES = (2, 4, 8)
MERGES = ("mean", "sum")


@dataclass(frozen=True)
class Size:
    """Width, attention heads, and each family's depth; `matched` is the DiM depth of nearest parameters to DiT."""

    width: int
    heads: int
    dit: int
    dim: int
    matched: int


#            width  heads  DiT  DiM  DiM-matched
SIZES = {
    "N":  Size(64,   2,     3,   4,   2),   # nano: tests
    "T":  Size(128,  4,     6,   8,   5),   # tiny: trains on a CPU in minutes
    "S":  Size(384,  6,    12,  16,  10),
    "B":  Size(768,  12,   12,  16,  10),
    "L":  Size(1024, 16,   24,  32,  21),
    "XL": Size(1152, 16,   28,  36,  24),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """All that fixes a denoiser but its resolution; hashable, so that it keys records.

    Fields of the task: `channels` of a latent, `downsample` (pixels a side per latent position: 8 for Stable
    Diffusion's autoencoder, 1 for pixel space), `num_classes`.
    Fields of the mixer: `expand`, `state`, `conv` (E/D, S and K of Mamba-1), `merge` of the two directions.
    Raises ValueError, naming the field and the choices, for values that no model can have.
    """

    family: str
    size: str
    patch: int
    width: int
    heads: int
    depth: int
    variant: str = ""
    mlp: bool = True  # without it a block is the mixer alone under a 3-chunk adaLN
    mlp_ratio: int = 4
    merge: str = "mean"
    expand: int = 2
    state: int = 16
    conv: int = 4
    learn_sigma: bool = True
    class_dropout: float = 0.1
    channels: int = 4
    downsample: int = 8
    num_classes: int = 1000

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"unknown family {self.family!r}; choose from {', '.join(FAMILIES)}")
        if self.merge not in MERGES:
            raise ValueError(f"unknown merge {self.merge!r}; choose from {', '.join(MERGES)}")
        counts = "patch width heads depth mlp_ratio expand state conv channels downsample num_classes".split()
        for field in counts:
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{field} must be a positive integer, not {value!r}")
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width {self.width} must be divisible by heads ({self.heads}) and by 4 (position table)")
        if not 0 <= self.class_dropout <= 1:
            raise ValueError(f"class_dropout must lie in [0, 1], not {self.class_dropout!r}")

    @property
    def inner(self) -> int:
        """E, the width inside the Mamba mixer."""
        return self.expand * self.width

    @property
    def dt_rank(self) -> int:
        """R, the rank of the timescale projection: ceil(D/16), Mamba's rule."""
        return math.ceil(self.width / 16)

    @property
    def out_channels(self) -> int:
        return self.channels * (2 if self.learn_sigma else 1)

    @property
    def modulations(self) -> int:
        """Chunks of a block's adaLN: shift, scale and gate for each of its sublayers."""
        return 6 if self.mlp else 3

    @property
    def name(self) -> str:
        """The public name, with every departure from the catalogue's architecture spelled out behind it."""
        base = _join(self.family, self.size, self.patch, self.variant)
        default = spec(base)
        fields = "width heads depth mlp mlp_ratio merge expand state conv learn_sigma".split()
        changed = [f"{f}={getattr(self, f)}" for f in fields if getattr(self, f) != getattr(default, f)]
        return f"{base}({','.join(changed)})" if changed else base

    def grid(self, resolution: int) -> int:
        """Patches along one side of a square image. Raises ValueError when the resolution does not divide."""
        unit = self.downsample * self.patch
        if not isinstance(resolution, int) or resolution < 1:
            raise ValueError(f"resolution must be a positive integer, not {resolution!r}")
        if resolution % unit:
            nearest = max(unit, round(resolution / unit) * unit)
            raise ValueError(
                f"resolution {resolution} is not divisible by {unit} ({self.downsample} pixels a latent position "
                f"x patch {self.patch}) for {self.name}; the nearest that is: {nearest}"
            )
        return resolution // unit

    def tokens(self, resolution: int) -> int:
        """L, the sequence length."""
        return self.grid(resolution) ** 2


def _join(family: str, size: str, patch: int, variant: str) -> str:
    return f"{family}-{size}/{patch}" + (f"-{variant}" if variant else "")


def catalogue(sizes: tuple[str, ...] = tuple(SIZES)) -> list[str]:
    """Every public name, in the order of the size table."""
    kinds = [("DiT", ""), ("DiM", ""), ("DiM", "matched")]
    return [_join(family, size, patch, variant) for size in sizes for patch in PATCHES for family, variant in kinds]


def spec(name: str, **overrides: object) -> ModelSpec:
    """The specification behind a public name, with fields overridden. Raises ValueError with the nearest names."""
    match = re.fullmatch(r"(\w+)-([A-Z]+)/(\d+)(?:-(\w+))?", name)
    if match is None or name not in catalogue():
        known = catalogue()
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:3]
        raise ValueError(
            f"unknown model {name!r}; nearest: {', '.join(near)} "
            f"(DiT|DiM - {'|'.join(SIZES)} / {'|'.join(map(str, PATCHES))}, DiM also -matched)"
        )
    family, size, patch, variant = match[1], match[2], int(match[3]), match[4] or ""
    row = SIZES[size]
    depth = {("DiT", ""): row.dit, ("DiM", ""): row.dim, ("DiM", "matched"): row.matched}[family, variant]
    base = ModelSpec(
        family=family, size=size, patch=patch, variant=variant, width=row.width, heads=row.heads, depth=depth
    )
    unknown = set(overrides) - {field.name for field in dataclasses.fields(ModelSpec)}
    if unknown:
        choices = ", ".join(field.name for field in dataclasses.fields(ModelSpec))
        raise ValueError(f"unknown model field {', '.join(sorted(unknown))}; choose from {choices}")
    return dataclasses.replace(base, **overrides)  # type: ignore[arg-type]
