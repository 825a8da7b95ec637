"""The catalogue as data: one size table for both families and the parser of the public names. Imports no torch.

A name is `FAMILY-SIZE/PATCH[-matched][-video[-both|-flat]]`: `DiT-XL/2`, `DiM-XL/2-matched`, `DiM-B/4-video-flat`.
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
ARRANGEMENTS = ("alternating", "both", "flat")
VIDEO_FRAMES = 16


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
    "P":  Size(32,   2,     3,   4,   2),   # pico to mini: a ladder of the shape of S to XL, for embedded data
    "N":  Size(64,   2,     3,   4,   2),
    "U":  Size(72,   3,     6,   8,   5),
    "M":  Size(80,   4,     7,   9,   5),
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
    Fields of video: `frames` of a clip (0: a model of images) and the `arrangement` of its mixing: blocks over space
    and time in turn ("alternating"), both in every block ("both"), one sequence of all frames' tokens ("flat").
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
    frames: int = 0
    arrangement: str = "alternating"

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"unknown family {self.family!r}; choose from {', '.join(FAMILIES)}")
        if self.merge not in MERGES:
            raise ValueError(f"unknown merge {self.merge!r}; choose from {', '.join(MERGES)}")
        if self.arrangement not in ARRANGEMENTS:
            raise ValueError(f"unknown arrangement {self.arrangement!r}; choose from {', '.join(ARRANGEMENTS)}")
        if not isinstance(self.frames, int) or self.frames < 0:
            raise ValueError(f"frames must be a positive integer, or 0 for images, not {self.frames!r}")
        if self.arrangement != ARRANGEMENTS[0] and not self.frames:
            raise ValueError(f"arrangement {self.arrangement!r} is of video: it needs frames")
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
    def cfg_channels(self) -> int:
        """Channels that are guided where nothing else is asked: three of an image's (DiT), all of a clip's (Latte)."""
        return self.channels if self.frames else min(3, self.channels)

    @property
    def modulations(self) -> int:
        """Chunks of a block's adaLN: shift, scale and gate for each of its sublayers."""
        return 6 if self.mlp else 3

    def axes(self, block: int) -> tuple[str, ...]:
        """What the block of that index mixes over, in turn: "space", "time", or "spacetime" as one sequence."""
        if not self.frames:
            return ("space",)
        alternating = ("space", "time")[block % 2]
        return {"alternating": (alternating,), "both": ("space", "time"), "flat": ("spacetime",)}[self.arrangement]

    @property
    def name(self) -> str:
        """The public name, with every departure from the catalogue's architecture spelled out behind it."""
        base = _join(self.family, self.size, self.patch, self.variant, self.arrangement if self.frames else "")
        default = spec(base)
        fields = "width heads depth mlp mlp_ratio merge expand state conv learn_sigma frames".split()
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
        """L, the sequence length of an image or of one frame."""
        return self.grid(resolution) ** 2


def _join(family: str, size: str, patch: int, variant: str = "", arrangement: str = "") -> str:
    """The public name; `arrangement` is empty for a model of images."""
    video = {"": "", ARRANGEMENTS[0]: "video"}.get(arrangement, f"video-{arrangement}")
    return "-".join(part for part in (family, f"{size}/{patch}", variant, video) if part)


def catalogue(sizes: tuple[str, ...] = tuple(SIZES), video: bool = False) -> list[str]:
    """Every public name of a model of images, or of video, in the order of the size table."""
    kinds = [("DiT", ""), ("DiM", ""), ("DiM", "matched")]
    arrangements = ARRANGEMENTS if video else ("",)
    return [
        _join(family, size, patch, variant, arrangement)
        for size in sizes
        for patch in PATCHES
        for arrangement in arrangements
        for family, variant in kinds
    ]


def spec(name: str, **overrides: object) -> ModelSpec:
    """The specification behind a public name, with fields overridden; `frames` of a video model are 16 if not given.

    Raises ValueError with the nearest names, for an unknown field, and for the frames of a model of images.
    """
    match = re.fullmatch(r"(\w+)-([A-Z]+)/(\d+)(?:-(matched))?(-video(?:-(\w+))?)?", name)
    known = catalogue() + catalogue(video=True)
    if match is None or name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:3]
        raise ValueError(
            f"unknown model {name!r}; nearest: {', '.join(near)} "
            f"(DiT|DiM - {'|'.join(SIZES)} / {'|'.join(map(str, PATCHES))}, DiM also -matched; "
            f"then -video, -video-{', -video-'.join(ARRANGEMENTS[1:])})"
        )
    family, size, patch, variant, video = match[1], match[2], int(match[3]), match[4] or "", match[5]
    row = SIZES[size]
    depth = {("DiT", ""): row.dit, ("DiM", ""): row.dim, ("DiM", "matched"): row.matched}[family, variant]
    base = ModelSpec(
        family=family, size=size, patch=patch, variant=variant, width=row.width, heads=row.heads, depth=depth,
        frames=VIDEO_FRAMES if video else 0, arrangement=match[6] or ARRANGEMENTS[0],
    )  # fmt: skip
    unknown = set(overrides) - {field.name for field in dataclasses.fields(ModelSpec)}
    if unknown:
        choices = ", ".join(field.name for field in dataclasses.fields(ModelSpec))
        raise ValueError(f"unknown model field {', '.join(sorted(unknown))}; choose from {choices}")
    if "frames" in overrides and not video:
        raise ValueError(f"{name} is a model of images and has no frames; of video: {name}-video")
    if overrides.get("frames") == 0:
        raise ValueError(f"frames of {name} must be a positive integer, not 0")
    return dataclasses.replace(base, **overrides)  # type: ignore[arg-type]
