"""The largest batch that fits a card: predicted, in a few seconds whatever the depth of the network.

Blocks repeat, so that what is alive at a point of a block's pass is linear in the depth of the network: two shallow
networks give every deeper one. Of a block in the middle it lies between the first's and the last's.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.core.workload import Workload
from harness.cost.memory import Peak, predict_memory
from models import families

Bytes = npt.NDArray[np.int64]


class Remedy(NamedTuple):
    """A change to a workload, in words, and its peak with it."""

    words: str
    nbytes: int


@cache
def peak_bytes(workload: Workload) -> int:
    """`predict_memory(workload).nbytes`, from the blocks of two shallow networks where these suffice.

    Raises ValueError as `predict_memory` does.
    """
    alternating = 2 if workload.spec.axes(0) != workload.spec.axes(1) else 1
    period = max(alternating, families.named(workload.spec.family).skeleton.period)
    periods = workload.spec.depth / period
    if periods <= 3 or periods % 1:
        return predict_memory(workload).nbytes
    two, three = (predict_memory(_of_depth(workload, n * period)) for n in (2, 3))
    shared = _shared(two, three)
    if not shared:
        return predict_memory(workload).nbytes
    shared.append((np.array([_before(two)]), np.array([_before(three)])))
    return max(int((here + (int(periods) - 2) * (there - here)).max()) for here, there in shared)


def largest_batch(workload: Workload, budget: int) -> int:
    """The largest batch whose predicted peak is within `budget` bytes; 0 where not even one sample's is.

    A larger batch takes more memory. By how much is estimated from two batches at a time; that the answer fits and one
    sample more does not, is predicted.
    """

    def peak(batch: int) -> int:
        return peak_bytes(dataclasses.replace(workload, batch=batch))

    if peak(1) > budget:
        return 0
    fits, too_large, guess = 1, math.inf, 2
    while too_large - fits > 1:
        slope = max(1, (peak(guess) - peak(fits)) // (guess - fits))
        if peak(guess) <= budget:
            fits = guess
        else:
            too_large = guess
        guess = int(min(fits + max(1, (budget - peak(fits)) // slope), too_large - 1))
    return fits


def remedies(workload: Workload, budget: int) -> list[Remedy]:
    """The changes that bring the predicted peak within `budget` bytes, each by itself.

    Where none does, all of them at once, if there are any, which may still be too much.
    """
    changes = _changes(workload)
    found = [Remedy(words, peak_bytes(dataclasses.replace(workload, **fields))) for words, fields in changes.items()]
    largest = largest_batch(workload, budget)
    if 0 < largest < workload.batch:
        found.append(Remedy(f"batch {largest}", peak_bytes(dataclasses.replace(workload, batch=largest))))
    enough = [one for one in found if one.nbytes <= budget]
    if enough or not found:
        return enough
    fields = {name: value for several in changes.values() for name, value in several.items()}
    best = dataclasses.replace(workload, **fields)
    batch = max(1, min(workload.batch, largest_batch(best, budget)))
    words = [*changes, *([f"batch {batch}"] if batch < workload.batch else [])]
    return [Remedy(" and ".join(words), peak_bytes(dataclasses.replace(best, batch=batch)))]


def _changes(workload: Workload) -> dict[str, dict[str, Any]]:
    """What a workload can do without a change of the network or of the batch, to take less memory."""
    found: dict[str, dict[str, Any]] = {}
    ways = families.named(workload.spec.family).implementations
    if ways and workload.implementation != ways.default:
        found[ways.words(ways.default)] = {"implementation": ways.default}
    if workload.operands == "kept":
        found["operands recomputed"] = {"operands": "recomputed"}
    if workload.action != "train" and workload.weights == "float32":
        found["bfloat16 weights"] = {"dtype": "bfloat16", "weights": "bfloat16"}
    if workload.action == "train":
        if workload.dtype == "float32":
            found["bfloat16"] = {"dtype": "bfloat16"}
        if not workload.checkpointing:
            found["checkpointing"] = {"checkpointing": True}
    return found


def _of_depth(workload: Workload, depth: int) -> Workload:
    return dataclasses.replace(workload, spec=dataclasses.replace(workload.spec, depth=depth))


def _before(peak: Peak) -> int:
    """The most bytes that are alive before the first block's turn: weights, gradients and the optimizer's tensors."""
    return max(peak.climb[: peak.passes[0].begins])


def _shared(two: Peak, three: Peak) -> list[tuple[Bytes, Bytes]]:
    """The bytes alive in the turns of the first and of the last blocks, of each run through them, in a shallow and in a
    deeper network. Nothing where no depth follows from them: where the two do not allocate alike, or the blocks in the
    middle are others or take more."""
    found: list[tuple[Bytes, Bytes]] = []
    runs, deeper = _runs(two), _runs(three)
    for one, other in zip(runs, deeper, strict=False):
        more = len(other) - len(one)
        first, middle, last = (other[n * more : (n + 1) * more] for n in range(3))
        alike = list(map(two.made, one)) == list(map(three.made, [*first, *last]))
        if len(runs) != len(deeper) or len(one) != 2 * more or not alike:
            return []
        if not all(_between(three, *spans) for spans in zip(first, middle, last, strict=True)):
            return []
        found += [(_bytes(two, a), _bytes(three, b)) for a, b in zip(one, [*first, *last], strict=True)]
    return found


def _between(peak: Peak, first: slice, middle: slice, last: slice) -> bool:
    """Whether a block in the middle allocates as the first or the last does, and never has more alive than these."""
    begun = slice(last.start, last.start + middle.stop - middle.start)  # a last turn goes on with what follows
    like = [_bytes(peak, span) for span in (first, begun) if peak.made(span) == peak.made(middle)]
    return bool(like) and bool((_bytes(peak, middle) <= np.max(like, axis=0)).all())


def _bytes(peak: Peak, span: slice) -> Bytes:
    return np.array(peak.climb[span])


def _runs(peak: Peak) -> list[list[slice]]:
    """The runs through the blocks, up in the forward pass and down in the backward one, as the spans of their turns."""
    runs: list[list[slice]] = []
    ends = [one.begins for one in peak.passes[1:]] + [len(peak.log)]
    for before, one, end in zip([None, *peak.passes], peak.passes, ends, strict=False):
        goes_on = before and before.backward == one.backward and (one.block < before.block) == one.backward
        if not goes_on:
            runs.append([])
        runs[-1].append(slice(one.begins, end))
    return runs
