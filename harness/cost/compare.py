"""What changed between two sets of latencies, beyond the noise."""

from __future__ import annotations

import numpy as np
import pandas as pd

from models.families import implementations

RESAMPLES = 10_000
CONFIDENCE = 0.99
SETTINGS = ("device", "rounds", "warmup")
QUESTION = ("model", "resolution", "frames", "batch", "action", "dtype", "checkpointing")
"""The fields that a latency is of, beside the implementation of each family's mixer."""


def ratio_interval(before: list[float], after: list[float], seed: int = 0) -> tuple[float, float, float]:
    """The ratio of medians, after / before, and its bootstrap confidence interval."""
    generator = np.random.default_rng(seed)
    medians = [
        np.median(generator.choice(np.asarray(samples), (RESAMPLES, len(samples))), axis=1)
        for samples in (before, after)
    ]
    low, high = np.quantile(medians[1] / medians[0], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(np.median(after) / np.median(before)), float(low), float(high)


def compare(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """One row a workload that both have: medians, their ratio with its interval, and what it amounts to.

    Raises ValueError for records of different devices or settings, and where no workload is common.
    """
    old, new = (_latencies(frame) for frame in (before, after))
    common = [key for key in old if key in new]
    if not common:
        raise ValueError("the two files have no workload in common")
    rows = []
    fields = _fields()
    for key in common:
        a, b = old[key], new[key]
        for setting in SETTINGS:
            if a[setting] != b[setting]:
                raise ValueError(f"not comparable: {setting} is {a[setting]!r} in one and {b[setting]!r} in the other")
        row = {name: value for name, value in zip(fields, key, strict=True) if value == value and value is not None}
        if a["verdict"] != "ok" or b["verdict"] != "ok":
            rows.append(row | {"change": f"{a['verdict']} -> {b['verdict']}"})
            continue
        ratio, low, high = ratio_interval(a["samples"], b["samples"])
        change = "slower" if low > 1 else "faster" if high < 1 else "within the noise"
        row |= {"before ms": 1e3 * a["value"], "after ms": 1e3 * b["value"], "ratio": ratio}
        rows.append(row | {f"{CONFIDENCE:.0%} interval": f"{low:.3f} to {high:.3f}", "change": change})
    return pd.DataFrame(rows)


def _latencies(frame: pd.DataFrame) -> dict[tuple, dict]:
    """The last latency of each workload."""
    rows = frame[frame["quantity"] == "latency"].to_dict("records") if len(frame) else []
    fields = _fields()
    return {tuple(_plain(row.get(name)) for name in fields): row for row in rows}


def _fields() -> list[str]:
    return [*QUESTION[:-1], *implementations(), QUESTION[-1]]


def _plain(value: object) -> object:
    """None for what a record does not have, which a frame holds as NaN."""
    return None if isinstance(value, float) and np.isnan(value) else value
