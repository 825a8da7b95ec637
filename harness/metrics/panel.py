"""FDr6: the mean of the FDr of six networks, where all six of one count have been measured.

Yang et al., arXiv 2604.28190; the arithmetic mean: Jiawei-Yang/FD-loss, scripts/README.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from harness.metrics import errorbars
from harness.metrics.distances.ratio import FDR, VALIDATION_FD
from harness.metrics.errorbars import ErrorBar
from harness.metrics.recipes import parse
from harness.metrics.results import Result

About = dict[str, object]
"""What results depend on: samples, reference, extractor, by name and hash."""


def of(scored: Iterable[tuple[list[Result], About]]) -> list[tuple[list[Result], About]]:
    """FDr6 for each count of which there are all six, with their extractors as one; else nothing."""
    by_count: dict[str, dict[str, tuple[Result, About]]] = {}
    for results, about in scored:
        for result in results:
            (recipe,) = parse([result.recipe])
            if recipe.distance is FDR:
                count = result.recipe.partition("@")[0].removeprefix(FDR.name)
                by_count.setdefault(count, {})[recipe.space.name.partition("#")[0]] = result, about
    return [_mean(count, list(six.values())) for count, six in by_count.items() if set(six) == set(VALIDATION_FD)]


def _mean(count: str, six: Sequence[tuple[Result, About]]) -> tuple[list[Result], About]:
    results = [result for result, _ in six]
    value = float(np.mean([result.value for result in results]))
    repeats = tuple(np.mean([result.repeats for result in results], axis=0).tolist())
    found = replace(
        results[0],
        recipe=f"panel{count}",
        quantity="fdr6",
        value=value,
        error=errorbars.of_repeats(repeats) if repeats else _bound(results),
        details={result.quantity: result.value for result in results},
        notes=tuple(dict.fromkeys(note for result in results for note in result.notes)),
        repeats=repeats,
    )
    return [found], six[0][1] | {"extractor": _together([about["extractor"] for _, about in six])}


def _bound(results: Sequence[Result]) -> ErrorBar | None:
    """The mean of six error bars: the mean's own is no wider, however the six depend on each other."""
    bars = [result.error for result in results if result.error]
    if len(bars) < len(results):
        return None
    error, low, high = np.mean([(bar.standard_error, bar.low, bar.high) for bar in bars], axis=0).tolist()
    return ErrorBar(error, low, high, "the mean of the error bars of the six, which bounds its own")


def _together(identities: Sequence[object]) -> dict[str, object]:
    """The identity of six extractors as one."""
    known = [identity for identity in identities if isinstance(identity, dict)]
    digests = "".join(str(identity["weights_sha256"]) for identity in known)
    return {
        "network": f"{len(known)} networks",
        "weights_sha256": hashlib.sha256(digests.encode()).hexdigest(),
        "published_weights": all(identity["published_weights"] for identity in known),
        "resize": "each its own",
        "dtype": "float32",
        "networks": known,
    }
