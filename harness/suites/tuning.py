"""Settings that are chosen before anything is scored, each family's on its own: what is tried, and the rule.

A choice is made on training seeds and on a part of the data that no score sees afterwards. It takes the candidate of
the lowest Fréchet distance, the mean over the tuning seeds, and is made once every candidate has been scored. It is
made anew from the records each time, so that nobody types it in.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.core.records import Record, ScoreRecord, of_kind
from harness.suites.run import Setting
from harness.suites.score import Score

FIRST_SEED = 100
"""Of the training seeds that settings are chosen on: scores are of seeds below."""
FRECHET = ("fd", "fid", "fvd")
"""The quantities that decide."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What a suite chooses, and from what, at the models that are tuned.

    `rates`, and then `decays` of the moving average, are tried of every family at each of the `models` ("N/4": size and
    patch), which map those that share the choice to the one that is tuned; where the best rate is the largest or the
    smallest, twice or half of it is tried too, within `limits`, and where the best decay is, half or twice of what it
    lacks to one, within `decay_limits`. A training of a candidate keeps averages of `every_decay`, so that decays cost
    no further ones. `guidances` are tried at `base` alone, at last; where there are none, or no decays, all have one.
    Where the best guidance is the largest, twice of it is tried too, up to `strongest`. `seeds` is how many training
    seeds each rate has; a decay or a guidance has one. `ref` is the part of the data that decides. `others` are
    families beside the two that the suite compares, each with the model at which its rate and its decay are tried; it
    has no guidance of its own.
    """

    rates: tuple[float, ...]
    limits: tuple[float, float]
    decays: tuple[float, ...]
    guidances: tuple[float, ...]
    base: str
    models: Mapping[str, str]
    seeds: Mapping[str, int]
    ref: str
    metrics: tuple[str, ...]
    decay_limits: tuple[float, float] = (0.0, 1.0)
    strongest: float = 16.0
    others: Mapping[str, str] = field(default_factory=dict)

    @property
    def every_decay(self) -> tuple[float, ...]:
        """All decays that may be tried, in order."""
        found = sorted(self.decays)
        while found and (shorter := beside(found[0], longer=False)) >= self.decay_limits[0]:
            found.insert(0, shorter)
        while found and (longer := beside(found[-1], longer=True)) <= self.decay_limits[1]:
            found.append(longer)
        return tuple(found)

    def tuned_at(self, family: str, model: str) -> str:
        """The model at which the rate and the decay of a family's model are tried."""
        return self.others.get(family) or self.models[model]


def beside(decay: float, longer: bool) -> float:
    """The decay of an average over twice as many steps, or over half as many."""
    return round(1 - (0.5 if longer else 2) * (1 - decay), 6)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A setting of a family at a model, and its candidates: each a value, and its scores, one a tuning seed.

    `need` says how early it is wanted.
    """

    setting: str
    family: str
    model: str
    candidates: tuple[tuple[Setting, tuple[Score, ...]], ...]
    need: int = 0

    @property
    def tuned(self) -> str:
        """The name of the model that the candidates are of."""
        return self.candidates[0][1][0].run.model

    def values(self, records: Iterable[Record]) -> dict[Setting, list[float]]:
        """The Fréchet distances of each candidate, one a tuning seed that is scored; infinite where it has diverged."""
        known = [record for record in of_kind(records, ScoreRecord) if record.quantity in FRECHET]
        return {value: _answers(scores, known) for value, scores in self.candidates}

    @property
    def ends(self) -> tuple[Setting, Setting]:
        """The smallest and the largest candidate."""
        values = sorted(value for value, _ in self.candidates)
        return values[0], values[-1]

    def made(self, records: Iterable[Record]) -> Setting | None:
        """The best candidate; None while any lacks a score."""
        found = self.values(records)
        if any(len(found[value]) < len(scores) for value, scores in self.candidates):
            return None
        return min(found, key=lambda value: statistics.fmean(found[value]))

    @property
    def scores(self) -> tuple[Score, ...]:
        """All that must be known, seed by seed."""
        count = max(len(scores) for _, scores in self.candidates)
        several = [scores for _, scores in self.candidates]
        return tuple(score for seed in range(count) for scores in several for score in scores[seed : seed + 1])


def _answers(scores: Sequence[Score], known: Sequence[ScoreRecord]) -> list[float]:
    found = []
    for score in scores:
        values = [_distance(record) for record in known if score.matches(record)]
        found += [value for value in values if value is not None][-1:]
    return found


def _distance(record: ScoreRecord) -> float | None:
    if record.verdict == "error":
        return math.inf
    return None if record.value is None or record.verdict != "ok" else float(record.value)
