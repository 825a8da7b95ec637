"""How figures look: one style, colours that colour-blind readers can tell apart, files that chance does not change."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.files import write_bytes
from harness.core.paper import JOINT
from models import spec
from models.families import FAMILIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.4, 7.0
"""Widths in inches: of a column and of a page of two."""

ACROSS = 3
"""Panels that stand beside each other on a page."""

BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, YELLOW, BLACK, GREY = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#F0E442", "#000000", "#666666",
)  # fmt: skip
"""Okabe and Ito's palette (jfly.uni-koeln.de/color), and a grey."""

KINDS = {("DiT", ""): (BLUE, "o", "-"), ("DiM", ""): (VERMILION, "s", "-"), ("DiM", "matched"): (GREEN, "^", "-.")}
EQUAL_MACS = (PURPLE, "D", ":")
WORDS = {"matched": ", equal parameters", "equal-macs": ", equal multiply-adds"}
"""What a variant adds to the name of its family."""
FURTHER = ("v", "P", "X", "*", "<", ">")
"""Markers of further sizes of a family and variant."""
OWN = ("*", "P", "X", "D", "v", "<", ">")
"""Markers of a user's own models."""
OTHERS = ((ORANGE, "v"), (SKY, "P"), (BLACK, "X"), (YELLOW, "*"))
"""Colours and markers of further families, in their order; a variant differs in its line."""

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 6.5,
    "legend.framealpha": 0.9,
    "legend.edgecolor": "none",
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "svg.hashsalt": "harness",
    "svg.fonttype": "path",
}


def look(family: str, variant: str = "") -> dict[str, Any]:
    """Colour, marker and line of a family and variant (`matched`, `equal-macs`), as arguments of `plot`.

    A variant that ends in `+IMG` is drawn as the one without, dashed.
    """
    if variant.endswith(JOINT):
        return look(family, variant.removesuffix(JOINT)) | {"linestyle": "--"}
    further = [other.name for other in FAMILIES if (other.name, "") not in KINDS]
    if family in further:
        colour, marker = OTHERS[further.index(family) % len(OTHERS)]
        line = {"": "-", "equal-macs": ":"}.get(variant, "-.")
    else:
        colour, marker, line = KINDS.get((family, variant), EQUAL_MACS)
    return {"color": colour, "marker": marker, "linestyle": line}


def own_looks(count: int) -> list[dict[str, Any]]:
    """How a user's own models are drawn: hollow, each with a marker of its own, above all others."""
    hollow = {"color": BLACK, "markerfacecolor": "white", "markersize": 6, "linestyle": "none", "zorder": 6}
    return [hollow | {"marker": OWN[place % len(OWN)]} for place in range(count)]


def words(family: str, variant: str = "") -> str:
    """What a family and variant is called where it is read: "DiM, equal parameters"."""
    alone = variant.removesuffix(JOINT)
    return family + (WORDS.get(alone, f", {alone}") if alone else "") + ", joint images" * (alone != variant)


def look_of(model: str) -> dict[str, Any]:
    """`look` of a model by its public name; one with a departure from the catalogue is of equal multiply-adds."""
    base, departed, _ = model.partition("(")
    known = spec(base)
    return look(known.family, "equal-macs" if departed else known.variant)


def looks(models: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`look_of` each model; further models of a family and variant have a marker of their own, and a lighter colour."""
    found: dict[str, dict[str, Any]] = {}
    seen: dict[str, int] = {}
    markers = itertools.cycle(FURTHER)
    for model in dict.fromkeys(models):
        look = look_of(model)
        place = seen[look["color"]] = seen.get(look["color"], -1) + 1
        found[model] = look | ({"marker": next(markers), "color": _lighter(look["color"], place)} if place else {})
    return found


def _lighter(colour: str, steps: int) -> str:
    """A colour of the palette, so many steps on the way to white, of which it takes two thirds at most."""
    white = 2 / 3 * (1 - 0.5**steps)
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part + white * (255 - part)):02x}" for part in parts)


def legend(axes: Axes, title: str, fontsize: float) -> None:
    """A legend under a title, below the axes, where it hides no line."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, title=title, title_fontsize=fontsize)


APART = 0.062
"""The least distance of two labels, as a share of the height of the axes."""


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Names beside the right ends of lines, (x, y, text, colour) each, moved apart where they would meet.

    Limits and scales of the axes must be final.
    """
    shares = [float(axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[1]) for x, y, *_ in ends]
    order = sorted(range(len(ends)), key=lambda i: shares[i])
    places = [shares[i] for i in order]
    for _ in range(50):  # neighbours that are too near give way, half each
        for low in range(len(places) - 1):
            lack = APART - (places[low + 1] - places[low])
            if lack > 1e-6:
                places[low] -= lack / 2
                places[low + 1] += lack / 2
    for i, place in zip(order, places, strict=True):
        x, y, text, colour = ends[i]
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 3}
        axes.annotate(text, (x, y), (1.03, place), textcoords="axes fraction", color=colour, fontsize=7, va="center",
                      arrowprops=line, annotation_clip=False)  # fmt: skip


NAIVE = {"linestyle": "--", "fillstyle": "none"}
"""What sets the naive implementation of a model's mixer apart from the others."""


def sheet(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure of that size in inches, and its axes."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained")
    return drawing, drawing.subplots(rows, columns, **options)


def panels(n: int, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `n` panels, three across a page, each row `height` inches high."""
    across = min(ACROSS, n)
    down = math.ceil(n / across)
    drawing, grid = sheet(COLUMN if across == 1 else PAGE, height * down, down, across, squeeze=False, **options)
    for axes in grid.flat[n:]:
        axes.remove()
    return drawing, list(grid.flat[:n])


def resolution_axis(axes: Axes, resolutions: list[int]) -> None:
    """A logarithmic axis of pixels a side, with a tick at each power of two."""
    from matplotlib.ticker import FixedLocator, NullLocator

    plain_log(axes, "x")
    axes.set_xlabel("resolution (pixels a side)")
    axes.xaxis.set_major_locator(FixedLocator([r for r in sorted(set(resolutions)) if r & (r - 1) == 0]))
    axes.xaxis.set_minor_locator(NullLocator())


def plain_log(axes: Axes, which: str, ticks: Sequence[float] = (1, 2, 3, 5)) -> None:
    """Make the `x` or `y` axis logarithmic, with ticks at these multiples of powers of ten, written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


@contextmanager
def styled() -> Iterator[None]:
    """Everything drawn or saved inside looks alike."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        yield


def save(drawing: Figure, stem: Path) -> list[Path]:
    """Write `stem`.svg and .png, each whole or not at all; the same drawing gives the same bytes. Raises OSError."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    with styled():
        for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
            paths.append(stem.with_name(stem.name + suffix))
            drawn = io.BytesIO()
            drawing.savefig(drawn, format=suffix[1:], dpi=200, metadata=metadata)
            write_bytes(paths[-1], drawn.getvalue() if suffix == ".png" else _numbered(drawn.getvalue()))
    return paths


def _numbered(svg: bytes) -> bytes:
    """An SVG whose clip paths are numbered: matplotlib names them after places in memory, where they cut images."""
    names = dict.fromkeys(re.findall(rb'<clipPath id="(\w+)"', svg))
    numbers = {name: b"clip%d" % number for number, name in enumerate(names)}
    return re.sub(rb'(?<=<clipPath id=")\w+|(?<=url\(#)\w+', lambda match: numbers.get(match[0], match[0]), svg)
