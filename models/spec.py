"""The catalogue as data: what fixes a network, the size table that all families share, the public names. No torch.

A name is `FAMILY-SIZE/PATCH[-VARIANT][-video[-both|-flat]]`: `DiT-XL/2`, `DiM-XL/2-matched`, `DiM-B/4-video-flat`.
Families and their depths are in models/families.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from models.families import FAMILIES, Family, named
from models.sizes import PATCHES, SIZES, TIMESTEP_FREQUENCIES, Size

__all__ = [
    "ARRANGEMENTS",
    "MERGES",
    "PATCHES",
    "SIZES",
    "TIMESTEP_FREQUENCIES",
    "VIDEO_FRAMES",
    "ModelSpec",
    "Size",
    "catalogue",
    "counterpart",
    "spec",
]

MERGES = ("mean", "sum")
ARRANGEMENTS = ("alternating", "both", "flat")
VIDEO_FRAMES = 16


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """All that fixes a denoiser but its resolution; hashable, so that it keys records.

    Fields of the task: `channels` of a latent, `downsample` (pixels a side per latent position: 8 for Stable
    Diffusion's autoencoder, 1 for pixel space), `num_classes`.
    `group` neighbouring patches of a row are one token of the residual stream (2 in DiffuSSM's hourglass, else 1).
    Fields of the mixer, of those families that have it: `expand`, `state`, `conv` (E/D, S and K of Mamba-1), `merge` of
    the two directions.
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
    group: int = 1
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
        family = named(self.family)
        if self.merge not in MERGES:
            raise ValueError(f"unknown merge {self.merge!r}; choose from {', '.join(MERGES)}")
        if self.arrangement not in ARRANGEMENTS:
            raise ValueError(f"unknown arrangement {self.arrangement!r}; choose from {', '.join(ARRANGEMENTS)}")
        if not isinstance(self.frames, int) or self.frames < 0:
            raise ValueError(f"frames must be a positive integer, or 0 for images, not {self.frames!r}")
        if self.frames and family.video_block is None:
            raise ValueError(f"{self.family} has models of images only: frames must be 0, not {self.frames}")
        if self.group != 1 and "group" not in family.fields:
            raise ValueError(f"{self.family} has no hourglass: group must be 1, not {self.group!r}")
        if self.arrangement != ARRANGEMENTS[0] and not self.frames:
            raise ValueError(f"arrangement {self.arrangement!r} is of video: it needs frames")
        counts = "patch width heads depth mlp_ratio group expand state conv channels downsample num_classes".split()
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
        """R, the rank of the step size's projection: ceil(D/16), Mamba's rule."""
        return math.ceil(self.width / 16)

    @property
    def patch_area(self) -> int:
        """Positions of the latent that a token stands for."""
        return self.group * self.patch**2

    @property
    def unit(self) -> int:
        """Pixels by which a side of an image must be divisible."""
        return self.downsample * self.patch * self.group

    @property
    def out_channels(self) -> int:
        return self.channels * (2 if self.learn_sigma else 1)

    @property
    def cfg_channels(self) -> int:
        """Channels that are guided unless others are given: three of an image's (DiT), all of a clip's (Latte)."""
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

    def sequences(self, axis: str, batch: int, tokens: int) -> tuple[int, int]:
        """How many sequences a mixing over `axis` mixes, and how long each is, given the tokens of a frame."""
        frames = max(1, self.frames)
        return {
            "space": (batch * frames, tokens),
            "time": (batch * tokens, frames),
            "spacetime": (batch, frames * tokens),
        }[axis]

    @property
    def name(self) -> str:
        """The public name, with every departure from the catalogue's architecture spelled out behind it."""
        arrangement = self.arrangement if self.frames else ""
        base = Entry(self.family, self.size, self.patch, self.variant, arrangement).name
        default = spec(base)
        fields = "width heads depth mlp mlp_ratio group merge expand state conv learn_sigma frames".split()
        changed = [f"{f}={getattr(self, f)}" for f in fields if getattr(self, f) != getattr(default, f)]
        return f"{base}({','.join(changed)})" if changed else base

    def grid(self, resolution: int) -> int:
        """Patches along one side of a square image. Raises ValueError when the resolution does not divide."""
        if not isinstance(resolution, int) or resolution < 1:
            raise ValueError(f"resolution must be a positive integer, not {resolution!r}")
        if resolution % self.unit:
            nearest = max(self.unit, round(resolution / self.unit) * self.unit)
            group = f" x group of {self.group}" if self.group > 1 else ""
            raise ValueError(
                f"resolution {resolution} is not divisible by {self.unit} ({self.downsample} pixels a latent position "
                f"x patch {self.patch}{group}) for {self.name}; the nearest that is: {nearest}"
            )
        return resolution // (self.downsample * self.patch)

    def tokens(self, resolution: int) -> int:
        """L, the tokens of an image or of one frame."""
        return self.grid(resolution) ** 2 // self.group


class Entry(NamedTuple):
    """A line of the catalogue; `arrangement` is empty for a model of images."""

    family: str
    size: str
    patch: int
    variant: str = ""
    arrangement: str = ""

    @property
    def name(self) -> str:
        video = {"": "", ARRANGEMENTS[0]: "video"}.get(self.arrangement, f"video-{self.arrangement}")
        return "-".join(part for part in (self.family, f"{self.size}/{self.patch}", self.variant, video) if part)


def _entries(families: Sequence[Family], sizes: Sequence[str], video: bool) -> Iterator[Entry]:
    return (
        Entry(family.name, size, patch, variant, arrangement)
        for size in sizes
        for patch in _patches(families)
        for arrangement in (ARRANGEMENTS if video else ("",))
        for family in families
        if patch in family.patches and (family.video_block or not video)
        for variant, depths in family.depths.items()
        if size in depths
    )


def _patches(families: Sequence[Family]) -> list[int]:
    return sorted({patch for family in families for patch in family.patches})


def catalogue(sizes: tuple[str, ...] = tuple(SIZES), video: bool = False) -> list[str]:
    """Every public name of a model of images, or of video, in the order of the size table."""
    return [entry.name for entry in _entries(FAMILIES, sizes, video)]


@functools.lru_cache(maxsize=8)  # a name is looked up often, and the families change when one is registered
def _by_name(families: tuple[Family, ...]) -> dict[str, Entry]:
    return {entry.name: entry for video in (False, True) for entry in _entries(families, tuple(SIZES), video)}


def spec(name: str, **overrides: object) -> ModelSpec:
    """The specification behind a public name, with fields overridden; `frames` of a video model are 16 if not given.

    Raises ValueError with the nearest names, for an unknown field, and for the frames of a model of images.
    """
    known = _by_name(tuple(FAMILIES))
    if name not in known:
        folded = {one.casefold(): one for one in known}
        alike = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5) or list(folded)[:3]
        nearest = ", ".join(folded[one] for one in alike)
        raise ValueError(f"unknown model {name!r}; nearest: {nearest} ({_grammar(name)})")
    entry = known[name]
    family = named(entry.family)
    size = family.sizes[entry.size]
    base = ModelSpec(
        family=entry.family, size=entry.size, patch=entry.patch, variant=entry.variant,
        width=size.width, heads=size.heads, depth=family.depths[entry.variant][entry.size],
        frames=VIDEO_FRAMES if entry.arrangement else 0, arrangement=entry.arrangement or ARRANGEMENTS[0],
        **family.fields,
    )  # fmt: skip
    unknown = set(overrides) - {field.name for field in dataclasses.fields(ModelSpec)}
    if unknown:
        choices = ", ".join(field.name for field in dataclasses.fields(ModelSpec))
        raise ValueError(f"unknown model field {', '.join(sorted(unknown))}; choose from {choices}")
    if "frames" in overrides and not entry.arrangement:
        clips = entry._replace(arrangement=ARRANGEMENTS[0]).name
        of_video = f"; of video: {clips}" if clips in known else ""
        raise ValueError(f"{name} is a model of images and has no frames{of_video}")
    if overrides.get("frames") == 0:
        raise ValueError(f"frames of {name} must be a positive integer, not 0")
    return dataclasses.replace(base, **overrides)  # type: ignore[arg-type]


def _grammar(name: str) -> str:
    """How public names are made, in a line: those of the family that a name begins with, if there is one."""
    of_it = [family for family in FAMILIES if name.casefold().startswith(f"{family.name.casefold()}-")]
    if not of_it:
        return f"FAMILY-SIZE/PATCH, of the families {', '.join(family.name for family in FAMILIES)}"
    family = of_it[0]
    sizes = "|".join(size for size in SIZES if any(size in depths for depths in family.depths.values()))
    variants = [f"-{variant}" for variant in family.depths if variant]
    video = ["-video", *(f"-video-{arrangement}" for arrangement in ARRANGEMENTS[1:])] if family.video_block else []
    then = "".join(f", then {', '.join(ends)}" for ends in (variants, video) if ends)
    return f"{family.name}-{sizes}/{'|'.join(map(str, family.patches))}{then}"


def counterpart(model: ModelSpec) -> ModelSpec | None:
    """The model that this one is compared with: of the counterpart of its family, at the depth of that family's paper.

    Its size is of the same name, or the one that the family says; its patch is the nearest that there is. What a family
    has of its own is replaced by what the other has; all else is the same. None where the family has no counterpart, or
    that has no such model.
    """
    ours = named(model.family)
    if ours.counterpart is None:
        return None
    theirs = named(ours.counterpart)
    size = ours.against.get(model.size, model.size)
    depth = theirs.depths[""].get(size)
    if depth is None or (model.frames and theirs.video_block is None):
        return None
    usual = {f.name: f.default for f in dataclasses.fields(ModelSpec)} | dict(theirs.fields)
    own, other = ours.sizes[model.size], theirs.sizes[size]
    of_size = {"width": (own.width, other.width), "heads": (own.heads, other.heads)}
    of_family = of_size | {name: (value, usual[name]) for name, value in ours.fields.items()}
    changes: dict[str, Any] = {n: after for n, (before, after) in of_family.items() if getattr(model, n) == before}
    changes |= {name: usual[name] for name in ours.fields if name not in theirs.fields}
    patch = min(theirs.patches, key=lambda p: abs(p - model.patch))
    return dataclasses.replace(model, family=theirs.name, size=size, patch=patch, variant="", depth=depth, **changes)
