"""How alike two sets of images or clips are: feature spaces, distances, and `evaluate`, which applies them.

    from harness.metrics import evaluate
    evaluate("samples.npz", "digits", ["fd1k@digits", "pr1k@digits"])

Importing this needs no torch; `evaluate` imports it when called.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.metrics.distances import DISTANCES
from harness.metrics.features import SPACES, space
from harness.metrics.recipes import parse
from harness.metrics.settings import ClipProtocol, Extraction, Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.core.records import ScoreRecord
    from harness.data.sources import Source

__all__ = ["DISTANCES", "SPACES", "ClipProtocol", "Extraction", "Settings", "evaluate", "parse", "space"]


def evaluate(
    samples: Source | NDArray[Any] | str | Path,
    reference: Source | NDArray[Any] | str | Path | None,
    metrics: str | Sequence[str],
    *,
    settings: Settings | None = None,
    clips: ClipProtocol | None = None,
    extraction: Extraction | None = None,
    device: str | None = None,
) -> list[ScoreRecord]:
    """Score samples by metrics such as "fid50k" or "fd1k@digits" (harness.metrics.recipes); one record a number.

    `samples` and `reference` are uint8 images (N, H, W, 3) or (N, H, W), or clips (N, T, H, W, 3): an array, the path
    of an .npz (`arr_0`, and labels in `arr_1`) or of a folder, an embedded data set by name, or anything with the
    properties of harness.data.sources.Source, such as an ArraySource with labels. No reference is needed where no
    metric has one, or where the features are of embedded data, which is then the reference.

    Features are kept in `extraction.work_dir`: the same call, again or after it was killed, reads them. `device` is
    CUDA where there is any. Under torchrun each process makes its share of the features, and only the first gets
    records. Several sets of samples against one reference are harness.metrics.evaluation.Evaluation's.
    Raises ValueError, in one line, for whatever cannot be scored.
    """
    from harness.core.distributed import processes
    from harness.metrics.evaluation import Evaluation

    with processes(device) as here:
        return Evaluation(metrics, reference, here, settings, clips, extraction).of(samples)
