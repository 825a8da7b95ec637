"""Families and their variants as the page draws them: a colour, symbol and line each, for light pages and dark."""

from __future__ import annotations

from typing import Any

from harness.core.paper import JOINT
from harness.report.figures import style
from models import spec
from models.families import FAMILIES

SYMBOLS = {
    "o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross",
    "X": "triangle-left", "*": "triangle-right",
}  # fmt: skip
"""Markers of matplotlib by the names that Vega has for them."""
DASHES = {"-": [1, 0], "--": [6, 3], "-.": [8, 3, 2, 3], ":": [2, 3]}
TOWARDS_WHITE = 0.45
"""How much of white a colour takes to be read on black."""
BESIDE_DEPTHS = ("equal-macs", JOINT, f"matched{JOINT}")
"""Variants that are no depths of a family."""


def every_kind() -> list[dict[str, Any]]:
    """Every family and variant, in the order of the catalogue."""
    pairs = [(family.name, variant) for family in FAMILIES for variant in (*family.depths, *BESIDE_DEPTHS)]
    return [kind(*pair) for pair in pairs]


def kind(family: str, variant: str) -> dict[str, Any]:
    """What a family and variant is called, and how it looks."""
    look = style.look(family, variant)
    return {
        "id": name(family, variant),
        "words": style.words(family, variant),
        "colour": look["color"],
        "in_the_dark": in_the_dark(look["color"]),
        "symbol": SYMBOLS[look["marker"]],
        "dash": DASHES[look["linestyle"]],
    }


def name(family: str, variant: str = "") -> str:
    """What distinguishes a kind from all others, in data and in addresses: DiM-matched."""
    return "-".join(filter(None, (family, *variant.split("+"))))


def of_model(model: str) -> str:
    """The kind of a model by its public name; of images with a departure from the catalogue, of equal multiply-adds."""
    base, departed, _ = model.partition("(")
    known = spec(base)
    return name(known.family, "equal-macs" if departed and not known.frames else known.variant)


def in_the_dark(colour: str) -> str:
    """The same hue, light enough for a black page."""
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * TOWARDS_WHITE):02X}" for part in parts)
