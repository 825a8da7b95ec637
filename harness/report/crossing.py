"""Where one model's measured time falls to its counterpart's, beside where their multiply-adds do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.core.records import LatencyRecord
from harness.cost import crossover
from harness.cost.timing import LEAST_SAMPLES
from harness.report.hardware import columns_of
from harness.report.layout import Block
from models import catalogue, counterpart, spec
from models.families import named

RESAMPLES = 2000
CONFIDENCE = 0.95
SAME_RUN = ("batch", "frames", "action", "dtype", "checkpointing")


@dataclass(frozen=True)
class Crossing:
    """Two models on a device. `pixels` and `seconds` are None where the measured lines do not meet.

    `interval` is of the pixels, from resampled medians; None where a median that it rests on is of fewer than
    LEAST_SAMPLES. An end is 0, or infinite, where resampled lines do not meet because the model is always the faster,
    or the slower, one. `ratios` are times of the model over its counterpart's, by resolution; `equal_macs_pixels` is
    where the exact multiply-adds are equal.
    """

    model: str
    rival: str
    rival_mixer: str
    action: str
    dtype: str
    ratios: dict[int, float]
    pixels: float | None
    interval: tuple[float, float] | None
    seconds: float | None
    equal_macs_pixels: float | None

    @property
    def verdict(self) -> str:
        """Where the model is the faster one, in words."""
        first, last = min(self.ratios), max(self.ratios)
        if self.pixels is None:
            if self.ratios[first] <= 1 < self.ratios[last]:
                return f"faster at {first} px, slower at {last} px"
            return f"slower up to {last} px" if self.ratios[last] > 1 else f"faster from {first} px on"
        if not self.interval:
            return f"{self.pixels:.0f}"
        low, high = self.interval
        at_least = f"{low:.0f}" if low else f"below {first}"
        at_most = f"{high:.0f}" if math.isfinite(high) else f"above {last}"
        return f"{self.pixels:.0f} ({at_least} to {at_most})"


def crossings(records: Sequence[LatencyRecord]) -> Iterator[Crossing]:
    """Every measured model against its counterpart in each of the latter's implementations, on one device."""
    lines: dict[tuple[str, str, tuple[object, ...]], dict[int, LatencyRecord]] = {}
    for record in records:
        if record.verdict == "ok":
            run = columns_of(record.workload)
            line = (run["model"], run["mixer"], tuple(run[name] for name in SAME_RUN))
            lines.setdefault(line, {})[run["resolution"]] = record
    for (model, mixer, same), mine in lines.items():
        rival = counterpart(spec(model)) if model in catalogue() else None
        ways = named(spec(model).family).implementations if rival else None
        if rival is None or (ways and mixer != ways.words(ways.default)):
            continue
        for (other, other_mixer, other_same), theirs in lines.items():
            if (other, other_same) == (rival.name, same) and set(mine) & set(theirs):
                yield _crossing(model, other, other_mixer, mine, theirs)


def _crossing(
    model: str, rival: str, mixer: str, mine: Mapping[int, LatencyRecord], theirs: Mapping[int, LatencyRecord]
) -> Crossing:
    import numpy as np

    common = sorted(set(mine) & set(theirs))
    sides = [{r: line[r].samples for r in common} for line in (mine, theirs)]
    medians = [[(r, float(np.median(side[r]))) for r in common] for side in sides]
    met = crossing(*medians)
    generator = np.random.default_rng(0)
    found = []
    known = met and _known(sides, common, met[0], met[0])
    for _ in range(RESAMPLES if known else 0):
        drawn = [[(r, float(np.median(generator.choice(s, len(s))))) for r, s in side.items()] for side in sides]
        again = crossing(*drawn)
        found.append(again[0] if again else math.inf if drawn[0][-1][1] > drawn[1][-1][1] else 0.0)
    interval = _ends(found, (1 - CONFIDENCE) / 2) if found else None
    if interval and not _known(sides, common, *interval):
        interval = None
    first = next(iter(mine.values()))
    return Crossing(
        model=model,
        rival=rival,
        rival_mixer=mixer,
        action=first.workload["action"],
        dtype=first.workload["dtype"],
        ratios={r: a / b for (r, a), (_, b) in zip(*medians, strict=True)},
        pixels=met[0] if met else None,
        interval=interval,
        seconds=met[1] if met else None,
        equal_macs_pixels=crossover(spec(model), spec(rival)),
    )


def _ends(found: Sequence[float], outside: float) -> tuple[float, float]:
    """The quantiles that leave out so much of the values on each side; of infinite ones nothing is interpolated."""
    import numpy as np

    low, high = np.quantile(found, outside, method="lower"), np.quantile(found, 1 - outside, method="higher")
    return float(low), float(high)


def crossing(one: Sequence[tuple[int, float]], other: Sequence[tuple[int, float]]) -> tuple[float, float] | None:
    """Where `one` falls to `other`, both interpolated between common resolutions on logarithmic axes; None: nowhere."""
    a, b = dict(one), dict(other)
    common = sorted(set(a) & set(b))
    for left, right in itertools.pairwise(common):
        before, after = (math.log(a[x] / b[x]) for x in (left, right))
        if before > 0 >= after:
            share = before / (before - after)
            return left * (right / left) ** share, a[left] * (a[right] / a[left]) ** share
    return None


def _known(
    sides: Sequence[Mapping[int, Sequence[float]]], resolutions: Sequence[int], low: float, high: float
) -> bool:
    """Whether enough samples are behind every median that a crossing from `low` to `high` pixels rests on."""
    first = max((r for r in resolutions if r <= low), default=resolutions[0])
    last = min((r for r in resolutions if r >= high), default=resolutions[-1])
    return all(len(side[r]) >= LEAST_SAMPLES for side in sides for r in resolutions if first <= r <= last)


def crossing_block(records: Sequence[LatencyRecord], device: str) -> list[Block]:
    """The crossovers of a device as a grid; none where nothing is measured beside its counterpart."""
    found = list(crossings(records))
    if not found:
        return []
    resolutions = sorted({r for one in found for r in one.ratios})
    rows = [
        [
            one.model, f"{one.rival}, {one.rival_mixer}" if one.rival_mixer else one.rival, one.action, one.dtype,
            *(f"{one.ratios[r]:.2f}" if r in one.ratios else "" for r in resolutions),
            one.verdict, f"{one.seconds:.3g}" if one.seconds else "–",
            f"{one.equal_macs_pixels:.0f}" if one.equal_macs_pixels else "–",
        ]
        for one in found
    ]  # fmt: skip
    header = ["model", "against", "run", "dtype", *(f"{r} px" for r in resolutions)]
    header += ["equal time at, px", "time there, s", "equal multiply-adds at, px"]
    caption = (
        f"Measured time divided by the counterpart's on {device}, and the resolution of equal time (in brackets its "
        f"95 % interval from resampled medians, if each has at least {LEAST_SAMPLES} samples)"
    )
    return [Block(header, rows, caption)]
