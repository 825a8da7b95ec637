"""What fits a card, in words: the largest batch, with and without activation checkpointing, and their peaks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from harness import report
from harness.core.workload import Workload
from harness.cost.headroom import MARGIN_BYTES, largest_batch, peak_bytes
from harness.report.hardware import Fields, columns_of

GIB = 2**30
MARGIN = (
    f"{MARGIN_BYTES / GIB:g} GiB of each card are left to the CUDA context, the libraries' workspaces and the "
    "allocator."
)


def fits_text(workloads: Iterable[Workload], cards: Sequence[int], style: str) -> str:
    """The answer for each workload and card of so many bytes: a line each for reading, rows in the other formats."""
    rows = [_fit(w, card) for w in workloads for card in cards]
    return report.render(rows, style) if style != "table" else "\n".join([*map(_sentence, rows), MARGIN])


def _fit(workload: Workload, card: int) -> Fields:
    """A row: the largest batches that fit a card, and their peaks."""
    run = columns_of(workload.settings())
    row = {"card GiB": card / GIB, **{name: run[name] for name in ("model", "resolution", "action", "dtype", "mixer")}}
    for name, way in ways_of(workload):
        batch = largest_batch(way, card - MARGIN_BYTES)
        row[f"batch{name}"] = batch
        least = dataclasses.replace(way, batch=max(1, batch))
        row[f"peak GiB{name}"] = peak_bytes(least) / GIB
    return row


def ways_of(workload: Workload) -> Iterator[tuple[str, Workload]]:
    """A workload as it is, and, in training, with activation checkpointing, each under a name."""
    yield ", checkpointing" if workload.checkpointing else "", workload
    if workload.action == "train" and not workload.checkpointing:
        yield ", checkpointing", dataclasses.replace(workload, checkpointing=True)


def _sentence(row: Fields) -> str:
    how = ", ".join(filter(None, (row["dtype"], row["mixer"])))
    question = f"{row['model']} {row['action']} at {row['resolution']} px, {how}, on {row['card GiB']:.4g} GiB"
    answers = [
        " ".join(filter(None, (name.replace(", ", "with "), _answer(row[f"batch{name}"], row[f"peak GiB{name}"]))))
        for name in ("", ", checkpointing")
        if f"batch{name}" in row
    ]
    return f"{question}: {'; '.join(answers)}"


def _answer(batch: int, gib: float) -> str:
    if not batch:
        return f"no batch fits, one takes {gib:.2f} GiB"
    return f"batch {batch} fits, peak {gib:.2f} GiB"
