"""The tables as HTML: sortable where scripts run, read aloud cell by cell, each to be taken along in three formats."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import replace
from html import escape

from harness.core.grid import Bold
from harness.core.paper import FAMILIES, TABLES, TableSpec
from harness.core.records import Record, ScoreRecord
from harness.report.contents import FIELD, HARDWARE
from harness.report.cost import cost_table
from harness.report.layout import Block, Table
from harness.report.quality import table_of
from harness.report.tuning import tuning_table
from harness.suites import SUITES, Suite, suite

NUMBER = re.compile(r"(?:≈ )?(-?[\d,]+(?:\.\d+)?(?:e-?\d+)?)(?![\w/])")
"""What a cell begins with that is sorted by its value."""
FORMATS = {"CSV": ("csv", "text/csv"), "Markdown": ("md", "text/markdown"), "LaTeX": ("tex", "application/x-tex")}

LEFT = ' class="left"'


def articles(records: Sequence[Record], own: Sequence[ScoreRecord] = ()) -> str:
    """Every table that the records fill; of one whose counts are not among them, the command that makes them.

    Of a table of quality, other suites that choose the settings of each family stand behind the table's own.
    """
    made = []
    tuned = [found for name in SUITES if (found := suite(name, records)).choices and found.rows]
    for number, table in TABLES.items():
        if table.costs:
            try:
                made.append(article(cost_table(number, records)))
            except ValueError as error:
                made.append(f"<p>{escape(str(error))}: <code>python -m harness.tables --table {number}</code></p>")
        if table.quality:
            made.append(article(table_of(table, suite(table.suite, records), records, own)))
            made += _quality(table, [one for one in tuned if one.name != table.suite], records, own)
    made += _quality(FAMILIES, tuned, records, own)
    made += [article(_of(one, tuning_table(one, records))) for one in tuned]
    hardware = [make for name, make in HARDWARE.items() if name != "floors"]  # which the section on speed has
    further = [make(records) for make in (*hardware, *FIELD.values())]
    return "\n".join([*made, *(article(one) for one in further if one.blocks)])


def _quality(
    table: TableSpec, suites: Sequence[Suite], records: Sequence[Record], own: Sequence[ScoreRecord]
) -> list[str]:
    """A table of quality of each suite that has rows of it."""
    having = [one for one in suites if any(row.part == table.part for row in one.rows)]
    return [article(_of(one, table_of(table, one, records, own))) for one in having]


def _of(one: Suite, table: Table) -> Table:
    """A table under a name and a title that say its suite."""
    return replace(table, name=f"{one.name}-{table.name}", title=f"{table.title} (suite {one.name})")


def article(table: Table) -> str:
    """A table under its title, with what becomes of the paper's claim, its notes, and its files."""
    name = f"table-{table.name}"
    verdict = [claim.partition(" By metric: ")[0] for claim in table.claim if not claim.startswith("Significance")]
    by_metric = [claim for claim in table.claim if claim not in verdict]
    protocol = [f"Protocol. {table.protocol}"] if table.protocol else []
    small = [*by_metric, *table.notes, *table.left_out, *protocol]
    parts = [f'<article id="{name}" aria-labelledby="{name}-title">']
    parts += [f'<h3 id="{name}-title">{escape(table.title)}</h3>']
    parts += [_list("verdict", verdict)] if verdict else []
    parts += [grid(block, table.title) for block in table.blocks]
    notes = f"<details><summary>Notes, protocol and tests</summary>{_list('notes', small)}</details>"
    parts += [notes] if small else []
    parts += [f'<p class="files">Take it along: {" · ".join(_links(table))}</p>', "</article>"]
    return "\n".join(parts)


def grid(block: Block, title: str) -> str:
    """A block as a table of its own, in a region that scrolls sideways where it is too wide."""
    caption = block.caption or title
    head = []
    if block.groups:
        cells = "".join(f'<th scope="colgroup" colspan="{n}">{escape(text)}</th>' for text, n in block.groups)
        columns = "".join(f'<colgroup span="{n}"></colgroup>' for _, n in block.groups)
        head = [columns, f'<thead><tr class="groups">{cells}</tr>']
    else:
        head = ["<thead>"]
    left = [not any(NUMBER.match(row[i]) for row in block.rows) for i in range(len(block.header))]
    titles = "".join(
        f'<th scope="col"{LEFT * flush}>{escape(text)}</th>' for text, flush in zip(block.header, left, strict=True)
    )
    rows = "".join(
        f"<tr>{''.join(_cell(cell, i, flush) for i, (cell, flush) in enumerate(zip(row, left, strict=True)))}</tr>"
        for row in block.rows
    )
    return (
        f'<div class="scroll" role="region" aria-label="{escape(caption)}" tabindex="0"><table class="sortable">'
        f"<caption>{escape(caption)}</caption>{''.join(head)}<tr>{titles}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(text: str, column: int, left: bool) -> str:
    number = NUMBER.match(text)
    about = f' data-value="{float(number[1].replace(",", ""))!r}"' if number else ""
    about += LEFT * left
    shown = f"<strong>{escape(text)}</strong>" if isinstance(text, Bold) else escape(text)
    return f"<td{about}>{shown}</td>" if column else f'<th scope="row"{about}>{shown}</th>'


def _list(kind: str, items: Sequence[str]) -> str:
    return f'<ul class="{kind}">{"".join(f"<li>{escape(item)}</li>" for item in items)}</ul>'


def _links(table: Table) -> list[str]:
    texts = {"CSV": table.csv(), "Markdown": table.markdown(), "LaTeX": table.latex()}
    links = []
    for name, text in texts.items():
        suffix, kind = FORMATS[name]
        data = base64.b64encode(text.encode()).decode()
        file = f"{table.name}.{suffix}"
        links.append(f'<a download="{file}" href="data:{kind};charset=utf-8;base64,{data}">{name}</a>')
    return links
