"""What the parts of documents share: how a table is written, and records that are none of `measurements`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.core import paths, store
from harness.core.records import Record

PRELOADED = paths.PROJECT / "benchmarks" / "mkl-avx512.jsonl"


def grid(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of texts."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def preloaded() -> list[Record]:
    """What was measured with a library loaded before torch, by which MKL takes any CPU for Intel's."""
    return store.load(PRELOADED) if PRELOADED.is_file() else []
