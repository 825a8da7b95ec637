"""Figure 3: what was sampled, side by side, from the grids that harness.sample writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.report import style
from harness.runs import EMBEDDED
from harness.store import RESULTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from harness.suites import Suite

SAMPLES = RESULTS / "samples"


def sheets(folder: Path = SAMPLES) -> list[tuple[Path, dict[str, Any]]]:
    """Grids of a folder with the settings of their samples, by data, DiT before DiM."""
    found = []
    for grid in sorted(folder.rglob("grid.png")):
        settings = json.loads((grid.parent / "settings.json").read_text())
        found.append((grid, settings))
    return sorted(found, key=lambda pair: (pair[1]["data"], not pair[1]["model"].startswith("DiT"), pair[1]["model"]))


def contact_figure(suite: Suite, folder: Path = SAMPLES) -> Figure:
    """A suite's grids, of embedded data images and clips; where there is none, all of the folder. With settings."""
    import matplotlib.image as mpimg

    names = EMBEDDED if suite.name in EMBEDDED else (suite.name,)
    grids = [grid for name in names for grid in sheets(folder / name)] or sheets(folder)
    if not grids:
        raise ValueError(f"figure 3 has no samples: python -m harness.reproduce --suite {suite.name} draws them")
    images = [mpimg.imread(grid) for grid, _ in grids]
    columns = min(len(grids), 2 if len(grids) <= 4 else 4)
    across = style.PAGE / columns
    lines = [images[i : i + columns] for i in range(0, len(images), columns)]
    heights = [max(across * image.shape[0] / image.shape[1] for image in line) + 0.35 for line in lines]
    drawing, axes = style.sheet(style.PAGE, sum(heights), len(lines), columns, squeeze=False, height_ratios=heights)
    for place, image, (grid, settings) in zip(axes.flat, images, grids, strict=False):
        place.imshow(image, interpolation="none")
        how = f"{settings['steps']} {settings['sampler']} steps, guidance {settings['cfg_scale']:g}"
        trained = f", {settings['step']:,} training steps" if "step" in settings else ""
        joint = "+IMG" if grid.parent.name.endswith("-IMG") else ""  # as harness.reproduce names them
        place.set_title(f"{settings['model']}{joint}{trained}\n{how}", fontsize=6.5)
    for place in axes.flat:
        place.set_axis_off()
    return drawing
