"""What a metric's name means: `fid50k` is a recipe, down to the features, the counts and the conventions.

A name is a distance, a count (any; k for thousands), and the feature space behind an @, where more than one is meant or
the space is of embedded data. On I3D and VideoMAE it also has the frames of a clip, and every how many are taken.

fid50k sfid50k is50k pr50k kid50k   on Inception, with any count (fid5k, fid10000)
adm50k                              fid, sfid, is and pr of one pass
cleanfid50k                         FID after clean-fid's resize
fd1k@digits is1k@digits ...         on the features of a small network trained on the embedded digits
accuracy500@digits                  how often a classifier sees the class that the samples were drawn for
fd10k@efficientnet-lite0 sfd10k@... on the features of a network trained on ImageNet, from a package; also pr, kid
fd50k@timm:vit_large_patch14_dinov2.lvd142m     FD-DINOv2, on a file of weights that a user has; also pr, kid, mind
fd50k@timm:NAME fd50k@timm:NAME#1a2b3c4d        on any network of timm; the sha256 of the file begins like this
cmmd30k                             CLIP's embeddings, ViT-L/14 at 336 pixels, under a Gaussian kernel
mind5k mind5k@...                   sliced Wasserstein distance, on Inception or on other features
panel50k                            FDr and MIND of Inception and five networks of timm, and FDr6
is10k@fashion-mnist accuracy10k@... by a small classifier trained on Fashion-MNIST
fvd2048_16f                         2,048 clips of 16 frames, on I3D; fvd2048_128f_subsample8f takes every 8th
cdfvd2048_16f                       CD-FVD: the same clips, on VideoMAE's features, which depend less on single frames
fvd1k@moving-digits pr1k@...        on the features of a small network trained on the embedded moving digits
accuracy1k@moving-digits            the same classifier's view of every frame
motion1k@moving-digits              how far the ink moves from frame to frame, beside how far it does in real clips
fvd1k@bouncing-digits accuracy1k@... the same of the embedded bouncing digits, by a network of theirs; also pr, kid
trajectory1k@moving-digits @bouncing-digits how often steps go on as those before, and how far speeds are from real ones
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.metrics.distances import DISTANCES, Distance
from harness.metrics.distances.distance import REFERENCE_ROWS
from harness.metrics.distances.ratio import VALIDATION_FD
from harness.metrics.features import SPACES, Space, space
from harness.metrics.settings import TIMM

BUNDLES = {
    "adm": ("Inception features alone", ("fid", "sfid", "is", "pr")),
    "panel": ("features of its own", tuple(f"{each}@{one}" for one in VALIDATION_FD for each in ("fdr", "mind"))),
}
"""On which features a bundle is, and its distances."""
EXAMPLES = (
    "fid50k sfid50k is50k pr50k adm50k kid50k cleanfid50k fvd2048_16f cdfvd2048_16f fd1k@digits is1k@digits "
    "pr1k@digits accuracy1k@digits fd10k@efficientnet-lite0 is10k@fashion-mnist fvd1k@moving-digits "
    "motion1k@moving-digits accuracy1k@moving-digits trajectory1k@bouncing-digits "
    "fd50k@timm:vit_large_patch14_dinov2.lvd142m cmmd30k mind5k panel50k"
)

_NAME = re.compile(r"([a-z]+?)(\d+)(k?)(?:_(\d+)f)?(?:_subsample(\d+)f)?(?:@([\w.:#-]+))?", re.ASCII)


@dataclass(frozen=True)
class Recipe:
    """One distance on one feature space: `count` samples; `frames` and `stride` where clips are cut (else 0: all)."""

    name: str
    distance: Distance
    space: Space
    count: int
    frames: int = 0
    stride: int = 1

    @property
    def stream(self) -> str:
        """Which of the network's outputs it reads."""
        return self.distance.stream

    @property
    def needs_images(self) -> bool:
        """Whether moments of the reference are not enough."""
        return self.distance.compares and self.distance.reads == "rows"

    @property
    def needs_reference(self) -> bool:
        """Whether samples are compared with anything."""
        return self.distance.compares

    @property
    def reference_rows(self) -> int:
        """How many items of the reference are compared one by one, at most."""
        return self.count if self.distance.paired else REFERENCE_ROWS

    @property
    def of_clips(self) -> bool:
        """Whether it scores clips; else images."""
        return self.space.items == "clips"

    @property
    def meaning(self) -> tuple[str, str, int, int, int]:
        """What two names of one recipe have in common."""
        return self.distance.name, self.space.name, self.count, self.frames, self.stride


def parse(names: Sequence[str]) -> list[Recipe]:
    """The recipes of these names in order, bundles opened; what a bundle has is not scored twice.

    Raises ValueError for a name that means nothing, and for a recipe that is given twice.
    """
    recipes: dict[tuple[str, str, int, int, int], Recipe] = {}
    for position, name in enumerate(names):
        for recipe in _parse(name):
            known = recipes.setdefault(recipe.meaning, recipe)
            if name in names[:position] or known.name != recipe.name:
                raise ValueError(f"metric {name!r} is given twice{f', first as {known.name}' * (known.name != name)}")
    return list(recipes.values())


def needed(recipes: Iterable[Recipe], repeats: int = 1) -> int:
    """How many samples these recipes score. Repeats of an FVD that cuts clips need no others."""
    return max(recipe.count * (1 if recipe.frames else repeats) for recipe in recipes)


def _parse(name: str) -> list[Recipe]:
    match = _NAME.fullmatch(name)
    known = (*DISTANCES, *BUNDLES)
    if match is None or match[1] not in known:
        raise ValueError(f"unknown metric {name!r}; choose from {EXAMPLES}, with any count")
    distance, digits, thousand, frames, subsample, at = match.groups()
    count = int(digits) * (1000 if thousand else 1)
    if count < 2:
        raise ValueError(f"metric {name!r} has a count of {count}; at least 2 samples are needed")
    if distance in BUNDLES:
        features, parts = BUNDLES[distance]
        if at or frames or subsample:
            raise ValueError(f"metric {name!r}: {distance} is of images, on {features}, as in {distance}50k")
        of = name.removeprefix(distance)
        opened = (part.partition("@") for part in parts)
        return [one for part, mark, where in opened for one in _parse(f"{part}{of}{mark}{where}")]
    return [_recipe(name, DISTANCES[distance], at, count, int(frames or 0), subsample)]


def _space(metric: str, name: str) -> Space | None:
    """A space by name; None of a name that is none. Raises ValueError, naming the metric, for a hash that is none."""
    if name.partition("#")[0] not in SPACES and not name.startswith(TIMM):
        return None
    try:
        return space(name)
    except ValueError as error:
        raise ValueError(f"metric {metric!r}: {error}") from error


def _recipe(name: str, distance: Distance, at: str | None, count: int, frames: int, subsample: str | None) -> Recipe:
    where = _space(name, at) if at else distance.implied
    if where is None or not distance.defined_on(where):
        if distance.name == "fid" and at:
            raise ValueError(f"metric {name!r}: a distance on {at} features is not FID; use fd{name[3:]}")
        defined = " and ".join(one.name for one in distance.spaces)
        others = ", and on timm:NAME," if distance.backbones else ","
        raise ValueError(f"metric {name!r}: {distance.name} is defined on {defined} features{others} as in {EXAMPLES}")
    if where.cuts_clips != bool(frames) or (subsample and not frames):
        raise ValueError(f"metric {name!r}: metrics on I3D or VideoMAE state frames, as fvd2048_16f, and no others do")
    stride = int(subsample or 1)
    if stride < 1 or frames % stride:
        raise ValueError(f"metric {name!r}: {frames} frames cannot be subsampled by {subsample}")
    taken = frames // stride
    if taken and (taken < where.fewest_frames or taken % where.frame_multiple):
        several = f", a multiple of {where.frame_multiple}" if where.frame_multiple > 1 else ""
        raise ValueError(
            f"metric {name!r}: {where.name} needs clips of at least {where.fewest_frames} frames{several}, not {taken}"
        )
    return Recipe(name, distance, where, count, taken, stride)
