"""The report as one page: what the records say, in a file that a browser opens from disk and that needs no network.

    from harness.report import Recorded
    from harness.report.page import page

    page(Recorded().files())          # HTML

Python gives the data, each section's in a file of its name; the scripts in `assets` draw it. All charts are
Vega-Lite's: its marks are SVG with names that are read aloud, and its script comes with a package
(harness.report.page.library). The same records give the same page, apart from that script's version.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from harness.core.records import Record, ScoreRecord
from harness.report.figures.contact_sheets import SAMPLES
from harness.report.page import library
from harness.report.page.answers import answers
from harness.report.page.cost import costs
from harness.report.page.kinds import every_kind
from harness.report.page.latency import latency
from harness.report.page.memory import memory
from harness.report.page.origins import origins, places
from harness.report.page.quality import quality
from harness.report.page.samples import samples
from harness.report.page.tables import articles
from harness.report.recorded import RecordsFile

SCRIPTS = "state format elements charts cost memory latency quality samples origins main".split()
"""In the order in which the page runs them."""


def page(
    files: Sequence[RecordsFile], folder: Path = SAMPLES, own: Sequence[ScoreRecord] = (), script: str | None = None
) -> str:
    """The page of some files of records and a folder of samples; `own` are a user's scores, shown as rows of tables.

    `script` is the plotting library's (default: the installed one). Raises ValueError where that is not installed, and
    as the tables do.
    """
    script = library.script() if script is None else script
    records = [record for file in files for record in file.lines.values()]
    read = resources.files(__package__).joinpath("assets").joinpath
    return Template(read("page.html").read_text("utf-8")).substitute(
        style=read("page.css").read_text("utf-8"),
        answers="".join(_answer(**answer) for answer in answers(records)),
        tables=articles(records, own),
        data=_json(content(files, records, folder)),
        library=script,
        scripts="\n".join(read(f"{name}.js").read_text("utf-8") for name in SCRIPTS),
    )


def content(files: Sequence[RecordsFile], records: Sequence[Record], folder: Path) -> dict[str, Any]:
    """What the scripts draw, by section."""
    where = places(files)
    return {
        "kinds": every_kind(),
        "cost": costs(),
        "memory": memory(records, where),
        "latency": latency(records),
        "quality": quality(records, where),
        "samples": samples(folder),
        "origins": origins(files),
    }


def _json(value: dict[str, Any]) -> str:
    """As a script element holds it: no text of a record can end it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _answer(number: str, text: str, section: str) -> str:
    return f'<li><a href="#{section}"><strong>{escape(number)}</strong> <span>{escape(text)}</span></a></li>'
