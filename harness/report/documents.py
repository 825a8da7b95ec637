"""The tables inside README.md and docs/: made from the records, between two comments, and never typed.

<!-- made: crossovers -->
| size, patch 2 | ...
<!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from harness.core.records import Record
from harness.report import document_costs, document_quality
from harness.suites.catalogue import BOUNCING, CLIPS, FASHION

MADE = re.compile(r"(<!-- made: (?P<name>[a-z-]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)


def documents(root: Path) -> list[Path]:
    """README and the pages of docs/ under a folder."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def filled(text: str, records: Sequence[Record]) -> str:
    """A document with all its tables regenerated. Raises ValueError for a name that no table has."""

    def made(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in PARTS:
            raise ValueError(f"unknown part {name!r} of a document; choose from {', '.join(PARTS)}")
        return f"{match[1]}{PARTS[name](records)}\n{match['end']}"

    return MADE.sub(made, text)


PARTS: dict[str, Callable[[Sequence[Record]], str]] = {
    "published-gflops": document_costs.published_gflops,
    "crossovers": document_costs.crossovers,
    "published-costs": document_costs.published_costs,
    "measured-crossovers": document_costs.measured_crossovers,
    "measured-memory": document_costs.measured_memory,
    "clip-scores": partial(document_quality.clip_scores, name=CLIPS),
    "clip-verdicts": partial(document_quality.clip_verdicts, name=CLIPS),
    "bouncing-scores": partial(document_quality.clip_scores, name=BOUNCING),
    "bouncing-settings": partial(document_quality.chosen_settings, name=BOUNCING),
    "bouncing-verdicts": partial(document_quality.clip_verdicts, name=BOUNCING),
    "photograph-scores": document_quality.photograph_scores,
    "photograph-verdicts": document_quality.photograph_verdicts,
    "chosen-settings": partial(document_quality.chosen_settings, name=FASHION),
    "seed-distances": document_quality.seed_distances,
    "family-scores": document_quality.family_scores,
    "family-verdicts": document_quality.family_verdicts,
    "sequence-ratios": document_quality.sequence_ratios,
    "step-times": document_quality.step_times,
    "sizes": document_costs.sizes,
    "paper-hours": document_costs.paper_hours,
}
