"""The paper's tables as data: what each prints, what its rows compare and vary, and its cells as printed."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache

from harness.core.paths import PROJECT

BASELINE, CHALLENGER = "DiT", "DiM"
"""The two families that the paper compares."""

JOINT = "+IMG"
"""What Table 3 adds to the name of a model of clips that learns single frames, too; here a variant ends in it."""

IMAGES = ("fid", "sfid", "is", "precision", "recall")
"""Quality columns of the tables of images."""

NEWER = ("fd_dinov2", "cmmd", "mind", "fdr6")
"""What later work reports beside them."""

NEWER_OF_CLIPS = ("cdfvd",)
"""What later work reports beside FVD."""


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """One table of the paper, or one of this project that is made alike and has a name of its `own`.

    `csv` is its file in results/published, and `keys` are the columns of it that name a row. `quality` and `costs` are
    the columns of figures, each half with the title of the table that is rebuilt from it; `beside` are quantities that
    are measured beside the printed columns where a suite's metrics give them.

    Rows are contests of two families, or with `trend` steps of one family through sizes. `varies` are the fields of a
    score's protocol in which rows differ. `figure1` is the column in which the paper's Figure 1 has the challenger
    ahead in every row. `suite` is whose rows are measured where none is named. With `others_first` the printed rows
    that a suite has no counterpart of stand above those that it has.
    """

    number: int = 0
    own: str = ""
    csv: str = ""
    keys: tuple[str, ...] = ()
    quality_title: str = ""
    quality: tuple[str, ...] = ()
    costs_title: str = ""
    costs: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    trend: str = ""
    varies: frozenset[str] = frozenset()
    figure1: str = ""
    suite: str = "fashion"
    others_first: bool = False

    @property
    def part(self) -> str:
        """Its name among the parts of a suite."""
        return self.own or f"table{self.number}"

    @property
    def rows(self) -> tuple[dict[str, str], ...]:
        """Its rows as printed; none of a table that the paper does not have."""
        return printed(self.number) if self.csv else ()


TABLES: dict[int, TableSpec] = {
    spec.number: spec
    for spec in (
        TableSpec(
            number=2, csv="table2_training_steps.csv", keys=("model", "steps", "cfg"),
            quality_title="Table 2: quality over training steps", quality=IMAGES, beside=NEWER,
            varies=frozenset({"step"}),
        ),
        TableSpec(
            number=3, csv="table3_ucf101_fvd.csv", keys=("method",),
            quality_title="Table 3: video quality", quality=("fvd",),
            beside=(*NEWER_OF_CLIPS, "accuracy", "moving", "continuing", "speed_distance"),
            varies=frozenset({"training.joint_images"}), suite="clips", others_first=True,
        ),
        TableSpec(
            number=4, csv="table4_gflops_by_resolution.csv", keys=("model", "resolution"),
            costs_title="Table 4: Gflops by resolution", costs=("gflops",),
        ),
        TableSpec(
            number=5, csv="table5_patch_size.csv", keys=("model",),
            quality_title="Table 5: quality by patch size", quality=IMAGES, beside=NEWER, trend="patch size",
            costs_title="Table 5: parameters and Gflops by patch size", costs=("params_m", "gflops"),
        ),
        TableSpec(
            number=6, csv="table6_model_size.csv", keys=("model",),
            quality_title="Table 6: quality by model size", quality=IMAGES, beside=NEWER, trend="model size",
            figure1="fid", costs_title="Table 6: parameters and Gflops by model size", costs=("params_m", "gflops"),
        ),
        TableSpec(
            number=7, csv="table7_guidance.csv", keys=("model", "steps", "cfg"),
            quality_title="Table 7: quality by guidance", quality=IMAGES, beside=NEWER,
            varies=frozenset({"sampling.cfg_scale"}),
        ),
    )
}  # fmt: skip
"""By number. Table 1 is models.spec.SIZES."""

FAMILIES = TableSpec(own="families", quality_title="All families at equal parameters", quality=IMAGES, beside=NEWER)
"""The table that the paper does not have: every family beside the DiT of its size and patch."""

QUALITY_TABLES = tuple(number for number, spec in TABLES.items() if spec.quality)
QUALITY = {**{str(number): TABLES[number] for number in QUALITY_TABLES}, FAMILIES.part: FAMILIES}
"""The tables of quality by name."""
COST_TABLES = tuple(number for number, spec in TABLES.items() if spec.costs)

SUITES = tuple(dict.fromkeys(spec.suite for spec in TABLES.values()))
"""Whose rows stand in the tables where no suite is named."""

FIGURE_1 = "figure1"
PARTS = (FIGURE_1, *(TABLES[number].part for number in QUALITY_TABLES))
"""What a suite's rows belong to: the curves of Figure 1, or a table of quality."""


def table_spec(number: int, choices: tuple[int, ...] = tuple(TABLES)) -> TableSpec:
    """A table by number. Raises ValueError with the choices."""
    if number not in choices:
        raise ValueError(f"unknown table {number}; choose from {', '.join(map(str, choices))}")
    return TABLES[number]


@cache
def printed(number: int) -> tuple[dict[str, str], ...]:
    """The rows of a table as printed, every cell a string. Raises ValueError for an unknown table."""
    path = PROJECT / "published" / table_spec(number).csv
    with path.open(newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))
