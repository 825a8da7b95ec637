"""A table to show: every digit as CSV, cells for reading as Markdown and LaTeX, and what must stand under it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.files import write_text
from harness.core.formats import Rows, render
from harness.core.grid import Bold, columns, fits, grid, paragraph

if TYPE_CHECKING:
    import pandas as pd

EMPTY = {"", "–"}
LINE = 78
"""Characters of a row that fit a line of LaTeX's article, at its footnote size."""
LEGIBLE = 0.8
"""To what share of that size a grid may be scaled: six points and a half."""


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
    claim_heading: str = "The paper's claim"

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
        heading = f"**{self.claim_heading}.**"
        parts += ["\n".join([heading, "", *(f"- {one}" for one in self.claim)])] if self.claim else []
        return "\n\n".join(parts) + "\n"

    def latex(self) -> str:
        """A `table` environment of booktabs rules, and below it in the text what it means; needs two packages alone.

        Of a grid too wide for a line the groups stand below each other, or else its columns, those that say what a row
        is of repeated. What is a little too wide is scaled.
        """
        title = re.sub(r"^(Table \d+): (.*)$", r"\2 (\1 of the paper)", self.title)
        lines = [r"% needs \usepackage{booktabs,graphicx}", r"\begin{table}", r"\centering\footnotesize"]
        lines += [r"\setlength{\tabcolsep}{3pt}", rf"\caption{{{escape(title)}}}", rf"\label{{tab:{self.name}}}"]
        for number, block in enumerate(itertools.chain.from_iterable(map(_apart, self.blocks))):
            lines += [r"\par\medskip"] if number and not block.caption else []
            lines += [rf"\par\smallskip\textbf{{{escape(block.caption)}}}\par\smallskip"] if block.caption else []
            wide = _characters(block) > LINE
            lines += [r"\resizebox{\linewidth}{!}{%"] if wide else []
            lines += _tabular(block)
            lines += ["}"] if wide else []
        lines = [*lines, r"\end{table}"] if self.blocks else ["% nothing is recorded of it yet"]
        below = [breakable(note) for note in self.notes] + [escape(name, STRANGE) for name in self.left_out]
        below += [rf"\emph{{Protocol.}} {escape(self.protocol)}"] if self.protocol else []
        claim = " ".join(_whole(one) for one in self.claim)
        below += [rf"\emph{{{self.claim_heading}.}} {escape(claim)}"] if claim else []
        if below:
            what = rf"On Table~\ref{{tab:{self.name}}}." if self.blocks else f"{escape(self.title)}."
            about = rf"\noindent\textbf{{{what}}}"
            lines += ["", f"{{\\footnotesize{about} " + "\n".join(below) + r"\par}"]
        return "\n".join(lines) + "\n"

    def terminal(self) -> str:
        """The title, what becomes of the paper's claim, and the cells, as wide as the terminal."""
        parts = [paragraph(self.title)]
        parts += ["\n".join(paragraph(f"- {_whole(one)}") for one in self.claim)] if self.claim else []
        whole = ([one] if fits(_headings(one), one.rows) else _apart(one, columns()) for one in self.blocks)
        for block in itertools.chain.from_iterable(whole):
            parts += [paragraph(block.caption)] if block.caption else []
            parts.append(grid(_headings(block), block.rows, _keys(block)))
        parts += ["\n".join(map(paragraph, self.left_out))] if self.left_out else []
        return "\n\n".join(parts) + "\n"

    def __repr__(self) -> str:
        return self.title

    def _repr_markdown_(self) -> str:
        return self.markdown()

    def write(self, directory: Path) -> list[Path]:
        """`name`.csv, .md and .tex in a directory. Raises OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        made = {".csv": self.csv(), ".md": self.markdown(), ".tex": self.latex()}
        for suffix, text in made.items():
            write_text(directory / (self.name + suffix), text)
        return [directory / (self.name + suffix) for suffix in made]


def _whole(claim: str) -> str:
    """What becomes of a claim over all metrics; metric by metric it stands in Markdown."""
    return claim.partition(" By metric: ")[0]


def as_block(rows: Rows, caption: str = "") -> Block:
    """The cells of rows, rounded for reading."""
    lines = render(rows, "markdown").splitlines()
    cells = [[cell.strip() for cell in line.removeprefix("|").removesuffix("|").split(" | ")] for line in lines]
    return Block(cells[0], cells[2:], caption)


def _headings(block: Block) -> list[str]:
    """One line of headings: a group's stands before each of its columns'."""
    over = [text for text, n in block.groups for _ in range(n)] or [""] * len(block.header)
    return [f"{top} {name}" if top else name for top, name in zip(over, block.header, strict=True)]


def _grid(block: Block) -> str:
    header = _headings(block)
    rows = [[f"**{_plain(cell)}**" if isinstance(cell, Bold) else _plain(cell) for cell in row] for row in block.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *rows])


def _plain(cell: str) -> str:
    """A cell's text in a Markdown grid, of which it ends neither the column nor the line."""
    return cell.replace("|", r"\|").replace("\n", " ")


NUMERIC = re.compile(r"(≈ )?-?\d[\d.,]*(e-?\d+)?†?($| [±(\[])|OOM|missing|unsupported|error|–?$|-$")
"""A cell of a column to be set flush right."""


def _characters(block: Block) -> int:
    """The width of a block: of the widest cell of each column, and what stands between columns."""
    return sum(max(map(len, column)) + 1 for column in zip(block.header, *block.rows, strict=True))


def _apart(block: Block, line: float = LINE / LEGIBLE) -> list[Block]:
    """The groups of a block that is too wide, or else its columns, without the rows that have nothing in them.

    What a group without a heading says of a row is repeated in all that follow.
    """
    if _characters(block) <= line:
        return [block]
    if not block.groups:
        return _side_by_side(block, line)
    parts, first, keys = [], 0, 0
    for text, n in block.groups:
        if not first and not text:
            first = keys = n
            continue
        columns = [*range(keys), *range(first, first + n)]
        rows = [[row[i] for i in columns] for row in block.rows if set(row[first : first + n]) - EMPTY]
        parts.append(Block([block.header[i] for i in columns], rows, text))
        first += n
    return parts


def _side_by_side(block: Block, line: float) -> list[Block]:
    """The columns of a block in as many parts as it takes; the leading columns of text are in each."""
    keys = _keys(block)
    widths = [max(map(len, column)) + 1 for column in zip(block.header, *block.rows, strict=True)]
    parts: list[list[int]] = []
    for i in range(keys, len(block.header)):
        if not parts or sum(widths[:keys]) + sum(widths[k] for k in [*parts[-1], i]) > line:
            parts.append([])
        parts[-1].append(i)
    shown = [[*range(keys), *part] for part in parts]
    rows = [[[row[i] for i in part] for row in block.rows if any(row[i] for i in part[keys:])] for part in shown]
    captions = [block.caption, *("" for _ in parts[1:])]
    return [
        Block([block.header[i] for i in part], cells, caption)
        for part, cells, caption in zip(shown, rows, captions, strict=True)
    ]


def _keys(block: Block) -> int:
    """How many columns say what a row is of: those up to the last of text, if there are further ones."""
    text = [i for i in range(len(block.header)) if not all(NUMERIC.match(row[i]) or not row[i] for row in block.rows)]
    last = max(text, default=0) + 1
    return last if last < len(block.header) else 1


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


LONG_WORD = 24
"""Characters from which on a word, such as the name of a module, may be broken at its dots."""


def breakable(text: str) -> str:
    """Text for LaTeX whose long words may be broken."""
    return " ".join(
        word if len(word) < LONG_WORD else re.sub(r"(?<=[.*_])(?=\w)", r"\\allowbreak{}", word)
        for word in escape(text).split(" ")
    )
