"""What a distance is, and what it reads of two sets of features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.metrics.errorbars import ErrorBar
from harness.metrics.features.space import Space
from harness.metrics.results import Result

REFERENCE_ROWS = 10_000
"""Items of a reference whose features are compared one by one: images of ADM's reference batches."""

if TYPE_CHECKING:
    from harness.metrics.moments import Gaussian, Moments
    from harness.metrics.recipes import Recipe
    from harness.metrics.references import Reference
    from harness.metrics.settings import Settings
    from harness.metrics.statistics import Statistics


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A set of samples and what it is compared with, as the distance of a recipe reads them.

    `labels` (N,) are the classes that samples were drawn for, where the distance reads them. `covariance` is the
    normalisation ("sample" or "population") of both sets. `device` is where distances of rows are computed.
    """

    recipe: Recipe
    samples: Statistics
    reference: Reference | None
    settings: Settings
    labels: NDArray[Any] | None = None
    covariance: str = "sample"
    device: str = "cpu"

    @property
    def rows(self) -> NDArray[np.float32]:
        """The samples' features (N, D)."""
        return self.samples.rows[self.recipe.stream]

    @property
    def moments(self) -> Moments:
        """The samples' moments."""
        return self.samples.moments[self.recipe.stream]

    @property
    def gaussian(self) -> Gaussian:
        """The reference's mean and covariance."""
        assert self.reference is not None, "a distance between Gaussians has a reference"
        return self.reference.gaussians[self.recipe.stream]

    @property
    def reference_rows(self) -> NDArray[np.float32]:
        """The reference's features (R, D). Raises ValueError when it holds moments alone."""
        assert self.reference is not None, "a distance of rows has a reference"
        if self.recipe.stream not in self.reference.rows:
            raise ValueError(f"{self.recipe.name} needs images in the reference, and {self.reference.name} has none")
        return self.reference.rows_of(self.recipe.stream, self.recipe.reference_rows)

    @property
    def quantity(self) -> str:
        """The distance's name, with the label of its space."""
        return "_".join(filter(None, (self.recipe.distance.name, self.recipe.space.label)))

    def result(
        self,
        quantity: str,
        value: float,
        better: Literal["lower", "higher"],
        error: ErrorBar | None,
        *,
        reference: int | None = None,
        details: Mapping[str, float] | None = None,
        unit: str = "1",
    ) -> Result:
        """A number of this recipe; `reference` is how many items it was compared with."""
        count = self.samples.count
        return Result(self.recipe.name, quantity, value, better, error, count, reference, details or {}, unit=unit)


@dataclass(frozen=True, kw_only=True)
class Distance:
    """A distance by the name that metrics begin with.

    It is defined on `spaces`; where a metric names none, the first is meant, unless it is one that is always named
    (Space.data, Space.stated). With `backbones` it is defined on any network of timm, too. It reads one `stream` of the
    samples, and of the reference unless `compares` is false: their `moments` or their `rows`, of the reference no more
    than 10,000, or where it is `paired` as many as there are samples; of samples it needs the `fewest`. `labels` says
    whether it reads the classes that samples were drawn for, and whether it can do without. `measure` turns what it
    reads into results.
    """

    name: str
    measures: str
    spaces: tuple[Space, ...]
    measure: Callable[[Comparison], list[Result]]
    stream: str = "pool"
    reads: Literal["moments", "rows"] = "rows"
    compares: bool = True
    paired: bool = False
    backbones: bool = False
    labels: Literal["unread", "optional", "required"] = "unread"
    fewest: int = 1

    def defined_on(self, space: Space) -> bool:
        """Whether it is, whatever file the space's weights are."""
        return (self.backbones and space.backbone) or space.name.partition("#")[0] in {one.name for one in self.spaces}

    @property
    def implied(self) -> Space | None:
        """The space of a metric that names none."""
        return None if self.spaces[0].data or self.spaces[0].stated else self.spaces[0]
