"""Feature spaces: the networks whose features are compared, one file each, and the list of them.

Nothing here imports torch: a space's `open` does. A new space is a file with its value and a line of this list.
"""

from harness.metrics.features.backbones import CLIP_SPACE, DINOV2_SPACE, PANEL_SPACES, backbone, pinned
from harness.metrics.features.bouncing_digits import BOUNCING_DIGITS
from harness.metrics.features.cleanfid import CLEANFID
from harness.metrics.features.digits import DIGITS
from harness.metrics.features.efficientnet_lite0 import EFFICIENTNET_LITE0
from harness.metrics.features.fashion_mnist import FASHION_MNIST
from harness.metrics.features.i3d import I3D
from harness.metrics.features.inception import INCEPTION
from harness.metrics.features.moving_digits import MOVING_DIGITS
from harness.metrics.features.space import Space
from harness.metrics.features.videomae import VIDEOMAE

__all__ = ["SPACES", "Space", "space"]

SPACES = {
    space.name: space
    for space in (
        INCEPTION,
        CLEANFID,
        I3D,
        VIDEOMAE,
        DIGITS,
        MOVING_DIGITS,
        BOUNCING_DIGITS,
        EFFICIENTNET_LITE0,
        FASHION_MNIST,
        DINOV2_SPACE,
        CLIP_SPACE,
        *PANEL_SPACES,
    )
}


def space(name: str) -> Space:
    """A space by name: one of SPACES, or any network of timm; behind a # the beginning of its file's sha256.

    Raises ValueError with the choices.
    """
    base, mark, sha256 = name.partition("#")
    found = SPACES.get(base) or backbone(base)
    if found is None:
        raise ValueError(f"unknown features {name!r}; choose from {', '.join(SPACES)}, or timm:NAME")
    return pinned(found, sha256) if mark else found
