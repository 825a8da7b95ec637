"""Distances between two sets of features, one file each, and the list of them.

Nothing here imports torch: a distance's `measure` does. A new distance is a file with its value and a line of this
list.
"""

from harness.metrics.distances.accuracy import ACCURACY
from harness.metrics.distances.cmmd import CMMD
from harness.metrics.distances.distance import Distance
from harness.metrics.distances.frechet import CDFVD, CLEANFID, FD, FID, FVD, SFD, SFID
from harness.metrics.distances.inception_score import INCEPTION_SCORE
from harness.metrics.distances.kernel import KID
from harness.metrics.distances.mind import MIND
from harness.metrics.distances.motion import MOTION
from harness.metrics.distances.precision_recall import PRECISION_RECALL
from harness.metrics.distances.ratio import FDR
from harness.metrics.distances.trajectory import TRAJECTORY

__all__ = ["DISTANCES", "Distance"]

DISTANCES = {
    distance.name: distance
    for distance in (
        FID,
        SFID,
        CLEANFID,
        FD,
        SFD,
        INCEPTION_SCORE,
        PRECISION_RECALL,
        KID,
        CMMD,
        MIND,
        FDR,
        FVD,
        CDFVD,
        ACCURACY,
        MOTION,
        TRAJECTORY,
    )
}
