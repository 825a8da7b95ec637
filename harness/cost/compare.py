"""What changed between two sets of latencies, beyond the noise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from harness.core.records import Key, LatencyRecord, Record, RunRecord, of_kind, require_same
from harness.cost.timing import LEAST_SAMPLES

RESAMPLES = 10_000
CONFIDENCE = 0.99
SAME = 0.02
"""Medians whose ratio is surely within it of 1 are the same, however surely they differ."""


def ratio_interval(before: list[float], after: list[float], seed: int = 0) -> tuple[float, float, float]:
    """The ratio of medians, after / before, and its bootstrap confidence interval."""
    generator = np.random.default_rng(seed)
    medians = [
        np.median(generator.choice(np.asarray(samples), (RESAMPLES, len(samples))), axis=1)
        for samples in (before, after)
    ]
    low, high = np.quantile(medians[1] / medians[0], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(np.median(after) / np.median(before)), float(low), float(high)


def change_of(before: list[float], after: list[float]) -> str:
    """What became of a latency: `faster`, `slower`, `same` or `ambiguous`.

    The same: the whole interval of the ratio is within SAME of 1. Faster or slower: all of it is on one side of 1.
    Ambiguous is all else, and what too few samples say.
    """
    if min(len(before), len(after)) < LEAST_SAMPLES:
        return "ambiguous"
    _, low, high = ratio_interval(before, after)
    if low >= 1 - SAME and high <= 1 + SAME:
        return "same"
    return "slower" if low > 1 else "faster" if high < 1 else "ambiguous"


def compare(before: Iterable[Record], after: Iterable[Record]) -> list[dict[str, Any]]:
    """One row a workload that both have: medians, their ratio with its interval, and what it amounts to.

    Raises ValueError for records of different devices or settings, and where no workload is common.
    """
    old, new = (_by_workload(records) for records in (before, after))
    common = [key for key in old if key in new]
    if not common:
        raise ValueError("the two files have no workload in common")
    rows = []
    for key in common:
        a, b = old[key], new[key]
        require_same(a, b)  # the same question, on another device
        theirs = b.protocol_of(b.workload)
        for setting, one in a.protocol_of(a.workload).items():
            if one != theirs[setting]:
                raise ValueError(f"not comparable: {setting} is {one!r} in one and {theirs[setting]!r} in the other")
        row = dict(key[1:])
        if a.verdict != "ok" or b.verdict != "ok":
            rows.append(row | {"change": f"{a.verdict} -> {b.verdict}"})
            continue
        ratio, low, high = ratio_interval(a.samples, b.samples)
        assert a.value is not None
        assert b.value is not None
        row |= {"before ms": 1e3 * a.value, "after ms": 1e3 * b.value, "ratio": ratio}
        row |= {f"{CONFIDENCE:.0%} interval": f"{low:.3f} to {high:.3f}"}
        rows.append(row | {"change": change_of(a.samples, b.samples)})
    return rows


def _by_workload(records: Iterable[Record]) -> dict[Key, LatencyRecord]:
    """The last latency of each workload, whatever it was run on."""
    return {RunRecord.key_of("latency", r.workload): r for r in of_kind(records, LatencyRecord)}
