"""Cells and prose for a terminal: as wide as the screen, 80 columns where there is none; colour on a terminal alone."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

WIDTH = 80
"""Of what is not shown on a screen."""
LINE = 100
"""Of a line of prose, where the screen has more."""
BETWEEN = 2
"""Blanks between two columns."""
PROSE = 24
"""Characters of a cell beyond which it is broken between words."""
NUMERIC = re.compile(r"(≈ )?[-+]?\d[\d.,]*(e[-+]?\d+)?†?($|[ ±(\[])|OOM|missing|yes|NO|–?$|-$")
"""A cell of a column that is set flush right."""


class Bold(str):
    """A cell to be set in bold."""

    __slots__ = ()


def columns() -> int:
    """The width of the screen, or of what there is in place of one."""
    return shutil.get_terminal_size((WIDTH, 24)).columns if coloured() or "COLUMNS" in os.environ else WIDTH


def coloured() -> bool:
    """Whether the output is looked at on a terminal that shows colours (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def paragraph(text: str) -> str:
    """Text broken between words, its further lines set in."""
    return textwrap.fill(
        text, min(columns(), LINE), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def grid(header: Sequence[str], rows: Sequence[Sequence[str]], keys: int = 1, width: int | None = None) -> str:
    """Rows of cells under their headings, which are broken between words where a column is narrower.

    What does not fit beside each other follows below, the first `keys` columns repeated, without rows that are empty.
    """
    width = width or columns()
    widths = [_narrowest(name, [row[i] for row in rows]) for i, name in enumerate(header)]
    parts: list[list[int]] = []
    for i in range(keys, len(header)):
        used = sum(widths[k] + BETWEEN for k in [*range(keys), *(parts[-1] if parts else [])])
        if parts and used + widths[i] <= width:
            parts[-1].append(i)
        else:
            parts.append([i])
    parts = parts or [[]]
    drawn = []
    for part in parts:
        filled = [row for row in rows if part is parts[0] or any(row[i] for i in part)]
        drawn.append(_drawn(header, filled, [*range(keys), *part], width))
    return "\n\n".join(drawn)


def fits(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether all columns stand beside each other."""
    widths = [_narrowest(name, [row[i] for row in rows]) for i, name in enumerate(header)]
    return sum(widths) + BETWEEN * (len(widths) - 1) <= columns()


def _narrowest(name: str, cells: Sequence[str]) -> int:
    """The width that a column needs: of a heading its longest word, of a cell all of it, of prose less."""
    words = (word for text in (name, *cells) for word in text.split())
    return max(map(len, [*words, *(cell[:PROSE] for cell in cells), ""]))


def _shared(columns: Sequence[tuple[str, list[str]]], width: int) -> list[int]:
    """The width of each column: what it needs, and in turn what its longest cell would like of the rest."""
    widths = [_narrowest(name, cells) for name, cells in columns]
    rest = width - sum(widths) - BETWEEN * (len(widths) - 1)
    for i, (name, cells) in enumerate(columns):
        more = max(0, min(rest, max(map(len, [name, *cells])) - widths[i]))
        widths[i] += more
        rest -= more
    return widths


def _drawn(header: Sequence[str], rows: Sequence[Sequence[str]], shown: Sequence[int], width: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = [(header[i], [row[i] for row in rows]) for i in shown]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, BETWEEN - 1, 0, 0),
                  header_style="bold")  # fmt: skip
    for (name, cells), wide in zip(columns, _shared(columns, width), strict=True):
        flush: Any = "right" if all(map(NUMERIC.match, cells)) else "left"
        table.add_column(Text(name), justify=flush, width=wide)
    for row in rows:
        table.add_row(*(Text(row[i], "bold green" if isinstance(row[i], Bold) else "") for i in shown))
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=coloured(), no_color=not coloured()).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())
