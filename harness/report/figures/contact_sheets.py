"""Figure 3: what was sampled, side by side, a column a class, from the pixels that harness.sample keeps."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.files import read_json
from harness.core.paper import JOINT, SUITES
from harness.core.paths import PROJECT
from harness.report.figures import style
from models.families import FAMILIES

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from harness.suites.rows import Suite

SAMPLES = PROJECT / "samples"
CLASSES, ROWS = 10, 6
"""Columns of a sheet, and the images of a class; of a clip every frame is a row."""
CANDIDATES = 1000
"""Samples that are looked through for them."""
PANELS = 2
"""Sheets beside each other."""
GAP = 1
"""Pixels of a sample between two of them."""


@dataclass(frozen=True)
class Sheet:
    """A folder of samples with their settings."""

    folder: Path
    settings: dict[str, Any]

    @property
    def file(self) -> Path:
        """The samples, pixel by pixel; there is none of large ones."""
        return self.folder / "samples.npz"

    @property
    def grid(self) -> Path:
        """A picture of them, class names and all."""
        return self.folder / "grid.png"

    @property
    def data(self) -> str:
        return str(self.settings.get("data", ""))

    @property
    def joint(self) -> str:
        return JOINT if self.folder.name.endswith("-IMG") else ""  # as harness.reproduce names them

    @property
    def title(self) -> str:
        """The model, without the departures that its name spells out."""
        return f"{self.settings['model'].partition('(')[0]}{self.joint}"

    @property
    def how(self) -> str:
        """How it was trained and sampled, in words."""
        settings = self.settings
        trained = f"{settings['step']:,} training steps, " if "step" in settings else ""
        return f"{trained}{settings['steps']} {settings['sampler']} steps, guidance {settings['cfg_scale']:g}"

    def first(self, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The first samples in order of class: (N, T, H, W, C), T of an image 1, and their classes (N,).

        Raises ValueError, naming the file, where it is damaged or holds something else.
        """
        import numpy as np

        from harness.data.npz import Npz

        archive = Npz(self.file)
        for name, what in (("arr_0", "holds the samples"), ("arr_1", "holds their classes")):
            archive.require(name, what)
        pixels, labels = archive.array("arr_0")[:count], archive.array("arr_1")[:count]
        if pixels.dtype != np.uint8 or pixels.ndim not in (4, 5) or labels.shape != pixels.shape[:1]:
            raise ValueError(f"{self.file} holds no samples: {pixels.dtype} of shape {pixels.shape}")
        order = np.argsort(labels, kind="stable")
        return (pixels if pixels.ndim == 5 else pixels[:, None])[order], labels[order]


def sheets(folder: Path = SAMPLES) -> list[Sheet]:
    """The sets of samples below a folder: by data; clips alone before joint training; by size; by family."""
    found = [Sheet(path.parent, read_json(path)) for path in sorted(folder.rglob("settings.json"))]
    order = {family.name: place for place, family in enumerate(FAMILIES)}

    def key(sheet: Sheet) -> tuple[str, str, str, int, Path]:
        family, _, size = sheet.settings["model"].partition("-")
        return sheet.data, sheet.joint, size, order.get(family, len(order)), sheet.folder

    return sorted((sheet for sheet in found if sheet.file.is_file() or sheet.grid.is_file()), key=key)


def contact_figure(suite: Suite, folder: Path = SAMPLES) -> Figure:
    """A suite's samples, of the tables' own suites images and clips; all of the folder where there are none.

    A sheet has a column a class; its rows are images, or the frames of one clip. Raises ValueError where there are no
    samples, with the command that draws them.
    """
    from matplotlib.figure import Figure

    names = SUITES if suite.name in SUITES else (suite.name,)
    shown = [sheet for name in names for sheet in sheets(folder / name)] or sheets(folder)
    if not shown:
        command = f"python -m harness.reproduce --suite {suite.name}"
        raise ValueError(f"figure 3 has no samples in {folder}: {command} draws them")
    lines = [
        alike[start : start + PANELS]
        for _, group in groupby(shown, key=lambda sheet: sheet.data)
        for alike in [list(group)]
        for start in range(0, len(alike), PANELS)
    ]
    drawn = [[_picture(sheet) for sheet in line] for line in lines]
    width = style.PAGE / PANELS
    heights = [width * max(len(image) / image.shape[1] for image, _ in line) + 0.5 for line in drawn]
    drawing = Figure(figsize=(style.PAGE, sum(heights)), layout="constrained")
    parts = drawing.subfigures(len(lines), 1, height_ratios=heights, squeeze=False)
    for part, line, images in zip(parts.flat, lines, drawn, strict=True):
        places = part.subplots(1, PANELS, squeeze=False)
        for place, sheet, (image, classes) in zip(places.flat, line, images, strict=False):
            _panel(place, sheet, image, classes)
        for place in places.flat[len(line) :]:
            place.set_axis_off()
    return drawing


def _picture(sheet: Sheet) -> tuple[NDArray[Any], list[str]]:
    """A sheet as one picture, and the classes of its columns; none where they are part of the picture."""
    if sheet.file.is_file():
        return _composed(*sheet.first(CANDIDATES))
    import matplotlib.image as mpimg

    return mpimg.imread(sheet.grid), []


def _composed(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> tuple[NDArray[np.uint8], list[str]]:
    """One picture of samples (N, T, H, W, C): a column a class, with their names; images or frames below each other."""
    import numpy as np

    classes = list(dict.fromkeys(labels.tolist()))[:CLASSES]
    of_class = [pixels[labels == one] for one in classes]
    columns = [several[0] if several.shape[1] > 1 else several[:ROWS, 0] for several in of_class]
    side = pixels.shape[2] + GAP
    picture = np.full((max(map(len, columns)) * side, len(columns) * side, 3), 255, np.uint8)
    for left, column in enumerate(columns):
        for top, image in enumerate(column):
            picture[top * side : top * side + side - GAP, left * side : left * side + side - GAP] = image
    return picture[:-GAP, :-GAP], [str(one) for one in classes]


def _panel(axes: Axes, sheet: Sheet, image: NDArray[Any], classes: list[str]) -> None:
    axes.imshow(image, interpolation="none")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_yticks([])
    side = (image.shape[1] + GAP) / max(1, len(classes))
    axes.set_xticks([side * (place + 0.5) - 0.5 - GAP / 2 for place in range(len(classes))], classes)
    axes.tick_params(length=0, pad=1, top=True, bottom=False, labeltop=True, labelbottom=False)
    if classes and "-video" in sheet.title:
        axes.set_ylabel("time \N{RIGHTWARDS ARROW}", rotation=-90, labelpad=8)
    axes.set_title(f"{sheet.title}\n{sheet.how}", fontsize=7)
