"""What fits a card, in words: the largest batches, what holds the memory at the peak, and what would make it fit."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from harness import report
from harness.core.capacity import GIB, MARGIN_BYTES
from harness.core.workload import Workload
from harness.report.hardware import Fields, columns_of
from harness.report.sweep import label

if TYPE_CHECKING:
    from harness.cost.memory import Peak

HOLDERS = 4
"""So many of those that hold the most memory are named."""

LEGEND = "Under a card: whether the batch fits, and the largest that does; in brackets with activation checkpointing."
MARGIN = f"Of each card {MARGIN_BYTES / GIB:g} GiB are left to the CUDA context, the libraries and the allocator."


def fits_text(workloads: Iterable[Workload], cards: Sequence[int], style: str) -> str:
    """The largest batch of each workload on each card of so many bytes: a line each for reading, else rows."""
    questions = list(itertools.product(workloads, cards))
    bar = tqdm(questions, desc="searching batches", unit="answer", disable=None, leave=False)
    rows = [_fit(workload, card) for workload, card in bar]
    return report.render(rows, style) if style != "table" else "\n".join([*map(_sentence, rows), MARGIN])


def predicted_text(peaks: Iterable[tuple[Workload, Peak]], cards: Sequence[int], style: str) -> str:
    """Predicted peaks, a row each: what they consist of, and the largest batches on cards of so many bytes.

    For reading, what is alive at each peak and what would make it fit stand in lines below; else they are columns.
    """
    bar = tqdm(list(peaks), desc="searching batches", unit="workload", disable=None, leave=False)
    rows = [_predicted(workload, peak, cards, style == "table") for workload, peak in bar]
    if style != "table":
        return report.render([row | below for row, below in rows], style)
    lines = [report.render([row for row, _ in rows], style), "", LEGEND, MARGIN]
    for row, below in rows:
        lines += ["", f"{row['model']}, {row['px']} px, batch {row['batch']}, {row['run']}"]
        lines += [f"  {name}: {text}" for name, text in below.items()]
    return "\n".join(lines)


def _predicted(workload: Workload, peak: Peak, cards: Sequence[int], reading: bool) -> tuple[Fields, Fields]:
    """The row of a workload, short if it is for reading, and what is said below it."""
    from harness.cost.headroom import largest_batch

    row = label(workload.settings()) | {"peak GiB": peak.nbytes / GIB}
    below: Fields = {}
    if reading:
        parts = ", ".join(f"{name} {nbytes / GIB:.2f}" for name, nbytes in peak.parts.items() if nbytes)
        below["GiB at the peak"] = parts
    else:
        row |= {name: nbytes / GIB for name, nbytes in peak.parts.items()}
    below["most of it"] = _held(peak)
    for card in cards:
        name, budget = f"{card / GIB:.4g} GiB", card - MARGIN_BYTES
        first, *others = [largest_batch(way, budget) for _, way in _ways(workload)]
        verdict = "OOM" if peak.nbytes > budget else "fits"
        if reading:
            row[name] = f"{verdict} {first}" + "".join(f" ({batch})" for batch in others)
        else:
            row |= {name: verdict, f"batch, {name}": first}
            row |= {f"batch, {name}, checkpointing": batch for batch in others}
        if verdict == "OOM":
            below[name] = f"first allocation that does not fit: {peak.breaks(budget)}; {_remedies(workload, budget)}"
    return row, below


def _held(peak: Peak) -> str:
    """The operators whose results hold the most of a peak, and their shares of it."""
    most = list(peak.holders().items())[:HOLDERS]
    return ", ".join(f"{name} {nbytes / GIB:.2f} GiB ({nbytes / peak.nbytes:.0%})" for name, nbytes in most)


def _remedies(workload: Workload, budget: int) -> str:
    """What would make a workload fit, and its peak then."""
    from harness.cost.headroom import remedies

    found = remedies(workload, budget)
    if not found:
        return "no change of how it is run makes it fit"
    words = " or ".join(f"{one.words} ({one.nbytes / GIB:.2f} GiB)" for one in found)
    return f"fits with {words}" if found[0].nbytes <= budget else f"does not fit even with {words}"


def _ways(workload: Workload) -> Iterator[tuple[str, Workload]]:
    """A workload as it is, and, in training, with activation checkpointing, each under a name."""
    yield "checkpointing" if workload.checkpointing else "", workload
    if workload.action == "train" and not workload.checkpointing:
        yield "checkpointing", dataclasses.replace(workload, checkpointing=True)


def _fit(workload: Workload, card: int) -> Fields:
    """A row: the largest batches that fit a card, and their peaks; that of one sample, where none fits."""
    from harness.cost.headroom import largest_batch, peak_bytes

    run, budget = columns_of(workload.settings()), card - MARGIN_BYTES
    row = {"card GiB": card / GIB, **{name: run[name] for name in ("model", "resolution", "action", "dtype", "mixer")}}
    for name, way in _ways(workload):
        ending = f", {name}" if name else ""
        batch = largest_batch(way, budget)
        row[f"batch{ending}"] = batch
        row[f"peak GiB{ending}"] = peak_bytes(dataclasses.replace(way, batch=max(1, batch))) / GIB
    if not any(value for name, value in row.items() if name.startswith("batch")):
        row["otherwise"] = _remedies(dataclasses.replace(workload, batch=1), budget)
    return row


def _sentence(row: Fields) -> str:
    how = ", ".join(filter(None, (row["dtype"], row["mixer"])))
    question = f"{row['model']} {row['action']} at {row['resolution']} px, {how}, on {row['card GiB']:.4g} GiB"
    answers = []
    for ending in ("", ", checkpointing"):
        if f"batch{ending}" in row:
            batch, gib = row[f"batch{ending}"], row[f"peak GiB{ending}"]
            answer = f"batch {batch} fits, peak {gib:.2f} GiB" if batch else f"no batch fits, one takes {gib:.2f} GiB"
            answers.append(ending.replace(", ", "with ", 1) + " " * bool(ending) + answer)
    return f"{question}: {'; '.join([*answers, *filter(None, [row.get('otherwise')])])}"
