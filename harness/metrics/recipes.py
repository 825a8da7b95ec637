"""What a metric's name means: `fid50k` is a recipe, down to the features, the counts and the conventions.

fid50k sfid50k is50k pr50k kid50k   on Inception, with any count (fid5k, fid10000)
adm50k                              fid, sfid, is and pr of one pass
cleanfid50k                         FID after clean-fid's resize
fd1k@digits is1k@digits ...         on the features of a small network trained on the embedded digits
accuracy500@digits                  how often a classifier sees the class that was asked for
fvd2048_16f                         2,048 clips of 16 frames, on I3D; fvd2048_128f_subsample8f takes every 8th
fvd1k@moving-digits pr1k@...        on the features of a small network trained on the embedded moving digits
accuracy1k@moving-digits            the same classifier's view of every frame
motion1k@moving-digits              how far the ink moves from frame to frame, beside how far it does in real clips
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

DISTANCES = {  # name -> (what it measures, the feature spaces it is defined on)
    "fid": ("Fréchet distance of Inception features", ("inception",)),
    "sfid": ("Fréchet distance of Inception's spatial features", ("inception",)),
    "cleanfid": ("Fréchet distance of Inception features after clean-fid's resize", ("cleanfid",)),
    "fd": ("Fréchet distance", ("digits",)),
    "is": ("Inception Score", ("inception", "digits")),
    "pr": ("precision and recall", ("inception", "digits", "moving-digits")),
    "kid": ("kernel distance", ("inception", "digits", "moving-digits")),
    "fvd": ("Fréchet distance of video features", ("i3d", "moving-digits")),
    "accuracy": ("share recognised as the class that was asked for", ("digits", "moving-digits")),
    "motion": ("displacement between frames", ("moving-digits",)),
}
EMBEDDED = ("fd", "accuracy", "motion")  # their names say the features
VIDEO_SPACES = ("i3d", "moving-digits")
BUNDLES = {"adm": ("fid", "sfid", "is", "pr")}
STREAMS = {
    "sfid": "spatial",
    "is": "logits",
    "accuracy": "logits",
    "motion": "steps",
}  # of the features an extractor gives; `pool` is the default
NEEDS_IMAGES = ("pr", "kid", "motion")  # of the reference: its moments are not enough
MAX_DUPLICATES = 0.1
"""Share of copies among samples above which a score is refused unless it is allowed, and tables say so."""
PRECISION_REFERENCE = 10_000  # images of ADM's reference batches
EXAMPLES = (
    "fid50k sfid50k is50k pr50k adm50k kid50k cleanfid50k fvd2048_16f fd1k@digits is1k@digits pr1k@digits "
    "accuracy1k@digits fvd1k@moving-digits motion1k@moving-digits accuracy1k@moving-digits"
)

_NAME = re.compile(r"([a-z]+?)(\d+)(k?)(?:_(\d+)f)?(?:_subsample(\d+)f)?(?:@([\w-]+))?")


@dataclass(frozen=True)
class Recipe:
    """One distance on one feature space: `count` samples; `frames` and `stride` of an FVD on I3D (else 0: all)."""

    name: str
    distance: str
    features: str
    count: int
    frames: int = 0
    stride: int = 1

    @property
    def stream(self) -> str:
        """Which of the extractor's outputs it reads."""
        return STREAMS.get(self.distance, "pool")

    @property
    def needs_images(self) -> bool:
        """Whether moments of the reference are not enough."""
        return self.distance in NEEDS_IMAGES

    @property
    def needs_reference(self) -> bool:
        return self.distance not in ("is", "accuracy")

    @property
    def of_clips(self) -> bool:
        return self.features in VIDEO_SPACES


def parse(names: Sequence[str]) -> list[Recipe]:
    """The recipes of these names, bundles opened, each once, in order. Raises ValueError for one that means nothing."""
    recipes: dict[str, Recipe] = {}
    for name in names:
        for recipe in _parse(name):
            recipes.setdefault(recipe.name, recipe)
    return list(recipes.values())


def _parse(name: str) -> list[Recipe]:
    match = _NAME.fullmatch(name)
    known = (*DISTANCES, *BUNDLES)
    if match is None or match[1] not in known:
        raise ValueError(f"unknown metric {name!r}; choose from {EXAMPLES}, with any count")
    distance, digits, thousand, frames, subsample, space = match.groups()
    count = int(digits) * (1000 if thousand else 1)
    if count < 2:
        raise ValueError(f"metric {name!r} asks for {count} samples; at least 2 are needed")
    if (distance == "fvd" and space in (None, "i3d")) != bool(frames) or (subsample and not frames):
        raise ValueError(f"metric {name!r}: an FVD on I3D is named like fvd2048_16f, an image metric has no frames")
    if distance in BUNDLES:
        if space:
            raise ValueError(f"metric {name!r}: {distance} is defined on Inception features alone")
        return [Recipe(f"{part}{digits}{thousand}", part, "inception", count) for part in BUNDLES[distance]]
    spaces = DISTANCES[distance][1]
    space = space or (spaces[0] if distance not in EMBEDDED else "")
    if space not in spaces:
        if distance == "fid" and space:
            raise ValueError(f"metric {name!r}: a distance on {space} features is not FID; ask for fd{name[3:]}")
        raise ValueError(f"metric {name!r}: {distance} is defined on {' and '.join(spaces)} features, as in {EXAMPLES}")
    stride = int(subsample or 1)
    if stride < 1 or (frames and (int(frames) % stride or int(frames) < 1)):
        raise ValueError(f"metric {name!r}: {frames} frames cannot be subsampled by {subsample}")
    return [Recipe(name, distance, space, count, int(frames or 0) // stride, stride)]
