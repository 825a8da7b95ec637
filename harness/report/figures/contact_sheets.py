"""Figure 3: what was sampled, side by side, from the grids that harness.sample writes."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.paper import SUITES
from harness.core.paths import PROJECT
from harness.report.figures import style
from models.families import FAMILIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from harness.suites.rows import Suite

SAMPLES = PROJECT / "samples"


def sheets(folder: Path = SAMPLES) -> list[tuple[Path, dict[str, Any]]]:
    """Grids of a folder with their settings: by data; clips alone before joint training; by family."""
    found = []
    for grid in sorted(folder.rglob("grid.png")):
        settings = json.loads((grid.parent / "settings.json").read_text())
        found.append((grid, settings))
    order = {family.name: place for place, family in enumerate(FAMILIES)}

    def key(pair: tuple[Path, dict[str, Any]]) -> tuple[str, str, int, Path]:
        grid, settings = pair
        return settings["data"], _joint(grid), order.get(settings["model"].partition("-")[0], len(order)), grid

    return sorted(found, key=key)


def _joint(grid: Path) -> str:
    return "+IMG" if grid.parent.name.endswith("-IMG") else ""  # as harness.reproduce names them


def _title(grid: Path, settings: dict[str, Any]) -> str:
    model = settings["model"].partition("(")[0]
    trained = f"\n{settings['step']:,} training steps" if "step" in settings else ""
    how = f"{settings['steps']} {settings['sampler']} steps, guidance {settings['cfg_scale']:g}"
    return f"{model}{_joint(grid)}{trained}\n{how}"


def contact_figure(suite: Suite, folder: Path = SAMPLES) -> Figure:
    """A suite's grids with settings, of the tables' own suites images and clips; all of the folder where there is none.

    Each data set has lines of its own, of at most four grids.
    """
    import matplotlib.image as mpimg
    from matplotlib.figure import Figure

    names = SUITES if suite.name in SUITES else (suite.name,)
    grids = [grid for name in names for grid in sheets(folder / name)] or sheets(folder)
    if not grids:
        raise ValueError(f"figure 3 has no samples: python -m harness.reproduce --suite {suite.name} draws them")
    lines = [
        alike[start : start + 4]
        for _, group in groupby(grids, key=lambda pair: pair[1]["data"])
        for alike in [list(group)]
        for start in range(0, len(alike), 4)
    ]
    images = [[mpimg.imread(grid) for grid, _ in line] for line in lines]
    heights = [style.PAGE / len(line) * max(image.shape[0] / image.shape[1] for image in line) + 0.5 for line in images]
    drawing = Figure(figsize=(style.PAGE, sum(heights)), layout="constrained")
    parts = drawing.subfigures(len(lines), 1, height_ratios=heights, squeeze=False)
    for part, line, shown in zip(parts.flat, lines, images, strict=True):
        places = part.subplots(1, len(line), squeeze=False)
        for place, image, (grid, settings) in zip(places.flat, shown, line, strict=True):
            place.imshow(image, interpolation="none")
            place.set_title(_title(grid, settings), fontsize=6.5)
            place.set_axis_off()
    return drawing
