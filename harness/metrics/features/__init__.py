"""Feature spaces: the networks whose features are compared, one file each, and the list of them.

Nothing here imports torch: a space's `open` does. A new space is a file with its value and a line of this list.
"""

from harness.metrics.features.cleanfid import CLEANFID
from harness.metrics.features.digits import DIGITS
from harness.metrics.features.efficientnet_lite0 import EFFICIENTNET_LITE0
from harness.metrics.features.fashion_mnist import FASHION_MNIST
from harness.metrics.features.i3d import I3D
from harness.metrics.features.inception import INCEPTION
from harness.metrics.features.moving_digits import MOVING_DIGITS
from harness.metrics.features.space import Space

__all__ = ["SPACES", "Space"]

SPACES = {
    space.name: space
    for space in (
        INCEPTION,
        CLEANFID,
        I3D,
        DIGITS,
        MOVING_DIGITS,
        EFFICIENTNET_LITE0,
        FASHION_MNIST,
    )
}
