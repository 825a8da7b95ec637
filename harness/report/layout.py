"""A table to show: every digit as CSV, cells for reading as Markdown and LaTeX, and what must stand under it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.files import write_text
from harness.core.formats import FORMATS, Rows, render

if TYPE_CHECKING:
    import pandas as pd

EMPTY = {"", "–"}
LINE = 78  # characters of a row that fit a line of LaTeX's article, at its footnote size


class Bold(str):
    """A cell to be set in bold."""

    __slots__ = ()


@dataclass(frozen=True)
class Block:
    """One grid of cells. `groups` are headings over runs of columns: (text, how many), and span them all."""

    header: list[str]
    rows: list[list[str]]
    caption: str = ""
    groups: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.header) for row in self.rows)
        assert not self.groups or sum(n for _, n in self.groups) == len(self.header)


@dataclass(frozen=True, repr=False)
class Table:
    """`data` keeps every digit; `blocks` are for reading. `protocol` and `claim` stand under the table.

    `left_out` names what was to be a row and does not follow the protocol; it stands among the notes.
    """

    name: str
    title: str
    data: pd.DataFrame
    blocks: list[Block]
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    protocol: str = ""
    claim: list[str] = field(default_factory=list)

    def csv(self) -> str:
        return render(self.data, "csv") + "\n"

    def markdown(self) -> str:
        """GitHub's Markdown, beginning with the title."""
        parts = [f"# {self.title}"]
        for block in self.blocks:
            parts += [f"**{block.caption}**"] if block.caption else []
            parts.append(_grid(block))
        notes = [*self.notes, *self.left_out]
        if notes:
            parts.append("\n".join(f"- {note}" for note in notes))
        parts += [f"**Protocol.** {self.protocol}"] if self.protocol else []
        parts += ["\n".join(["**The paper's claim.**", "", *(f"- {one}" for one in self.claim)])] if self.claim else []
        return "\n\n".join(parts) + "\n"

    def latex(self) -> str:
        """A `table` environment of booktabs rules; needs two packages alone.

        Of a grid too wide for a line the groups stand below each other; what is still too wide is scaled.
        """
        title = re.sub(r"^(Table \d+): (.*)$", r"\2 (\1 of the paper)", self.title)
        lines = [r"% needs \usepackage{booktabs,graphicx}", r"\begin{table}", r"\centering\footnotesize"]
        lines += [r"\setlength{\tabcolsep}{3pt}", rf"\caption{{{escape(title)}}}", rf"\label{{tab:{self.name}}}"]
        for block in itertools.chain.from_iterable(map(_apart, self.blocks)):
            lines += [rf"\par\smallskip\textbf{{{escape(block.caption)}}}\par\smallskip"] if block.caption else []
            wide = _characters(block) > LINE
            lines += [r"\resizebox{\linewidth}{!}{%"] if wide else []
            lines += _tabular(block)
            lines += ["}"] if wide else []
        below = [escape(note) for note in self.notes] + [escape(name, STRANGE) for name in self.left_out]
        below += [rf"\textbf{{Protocol.}} {escape(self.protocol)}"] if self.protocol else []
        below += [rf"\textbf{{The paper's claim.}} {escape(' '.join(self.claim))}"] if self.claim else []
        if below:
            text = "\n\n".join(below)
            lines += [
                r"\par\smallskip",
                rf"\begin{{minipage}}{{\linewidth}}\scriptsize\raggedright {text}\end{{minipage}}",
            ]
        return "\n".join([*lines, r"\end{table}"]) + "\n"

    def __repr__(self) -> str:
        return self.title

    def _repr_markdown_(self) -> str:
        return self.markdown()

    def text(self, style: str) -> str:
        """As a terminal takes it: Markdown to be read ("table", "markdown"), or the data as CSV or JSON."""
        if style not in FORMATS:
            raise ValueError(f"unknown format {style!r}; choose from {', '.join(FORMATS)}")
        return self.markdown() if style in ("table", "markdown") else render(self.data, style)

    def write(self, directory: Path) -> list[Path]:
        """`name`.csv, .md and .tex in a directory. Raises OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        made = {".csv": self.csv(), ".md": self.markdown(), ".tex": self.latex()}
        for suffix, text in made.items():
            write_text(directory / (self.name + suffix), text)
        return [directory / (self.name + suffix) for suffix in made]


def as_block(rows: Rows, caption: str = "") -> Block:
    """The cells of rows, rounded for reading."""
    lines = render(rows, "markdown").splitlines()
    cells = [[cell.strip() for cell in line.removeprefix("|").removesuffix("|").split(" | ")] for line in lines]
    return Block(cells[0], cells[2:], caption)


def _grid(block: Block) -> str:
    header = list(block.header)
    if block.groups:  # Markdown has one line of headings
        over = [text for text, n in block.groups for _ in range(n)]
        header = [f"{top} {name}" if top else name for top, name in zip(over, header, strict=True)]
    rows = [[f"**{_plain(cell)}**" if isinstance(cell, Bold) else _plain(cell) for cell in row] for row in block.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *rows])


def _plain(cell: str) -> str:
    """A cell's text in a Markdown grid, of which it ends neither the column nor the line."""
    return cell.replace("|", r"\|").replace("\n", " ")


NUMERIC = re.compile(r"(≈ )?-?\d[\d.]*(e-?\d+)?($| [±(\[])|OOM|missing|unsupported|error|–?$|-$")
"""A cell of a column to be set flush right."""


def _characters(block: Block) -> int:
    """The width of a block: of the widest cell of each column, and what stands between columns."""
    return sum(max(map(len, column)) + 1 for column in zip(block.header, *block.rows, strict=True))


def _apart(block: Block) -> list[Block]:
    """The groups of a block that is too wide, without the rows that have nothing in them."""
    if _characters(block) <= LINE or not block.groups:
        return [block]
    parts, first = [], 0
    for text, n in block.groups:
        columns = range(first, first + n)
        rows = [[row[i] for i in columns] for row in block.rows]
        parts.append(Block([block.header[i] for i in columns], [row for row in rows if set(row) - EMPTY], text))
        first += n
    return parts


def _tabular(block: Block) -> list[str]:
    numeric = [all(NUMERIC.match(row[i]) for row in block.rows) for i in range(len(block.header))]
    lines = [rf"\begin{{tabular}}{{{''.join('r' if n else 'l' for n in numeric)}}}", r"\toprule"]
    if block.groups:
        cells, rules, column = [], [], 1
        for text, n in block.groups:
            cells.append(rf"\multicolumn{{{n}}}{{c}}{{{escape(text)}}}")
            rules += [rf"\cmidrule(lr){{{column}-{column + n - 1}}}"] if text else []
            column += n
        lines += [" & ".join(cells) + r" \\", "".join(rules)]
    lines += [_line(block.header), r"\midrule", *map(_line, block.rows), r"\bottomrule", r"\end{tabular}"]
    return lines


def _line(cells: Sequence[str]) -> str:
    texts = [escape(cell, STRANGE) for cell in cells]  # a user's names are among them
    texts = [rf"\textbf{{{text}}}" if isinstance(cell, Bold) else text for cell, text in zip(cells, texts, strict=True)]
    return " & ".join(texts) + r" \\"


_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$", "×": r"$\times$", "→": r"$\to$", "≈": r"$\approx$", "†": r"$^\dagger$", "−": "$-$", "é": r"\'e",
    "↓": r"$\downarrow$", "↑": r"$\uparrow$", "–": "--", "²": "$^2$", "ᵀ": r"$^\top$", '"': "''",
}  # fmt: skip


STRANGE = "?"
"""What stands for a character without an entry above, in names that are not ours."""


def escape(text: str, otherwise: str = "") -> str:
    """Text for LaTeX in any font encoding.

    A character that has no entry here becomes `otherwise`. Raises ValueError for one where that is empty.
    """
    out = "".join(_ESCAPES.get(character, character) for character in text)
    out = re.sub(r"`([^`]*)`", r"\\texttt{\1}", out)
    strange = sorted({character for character in out if not character.isascii()})
    if strange and not otherwise:
        raise ValueError(f"no LaTeX for {' '.join(strange)} in {text!r}")
    return "".join(character if character.isascii() else otherwise for character in out)
