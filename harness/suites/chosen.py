"""What has been chosen so far at a scale, of what records hold: the rule is in harness.suites.tuning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from harness.core.paper import BASELINE, CHALLENGER
from harness.core.records import Record
from harness.suites.run import Run, Setting
from harness.suites.scales import Changes, Scale
from harness.suites.score import Score
from harness.suites.tuning import FIRST_SEED, Choice, Tuning, beside

RATE, DECAY, SCALE = "learning_rate", "ema_decay", "cfg_scale"
"""The settings that are chosen."""
RIVALS = (BASELINE, CHALLENGER)
"""The families that the paper compares."""
AScale = TypeVar("AScale", bound=Scale)


@dataclass(frozen=True)
class Chosen(Generic[AScale]):
    """The choices of a scale, and the values of those that are made."""

    scale: AScale
    choices: tuple[Choice, ...] = ()
    values: Mapping[tuple[str, str, str], Setting] = field(default_factory=dict)  # setting, family, model

    def changes(self, family: str, model: str) -> Changes | None:
        """The settings of a family at a model ("N/4"); None while they are not all chosen."""
        tuning = self.scale.tuning
        if tuning is None:
            return self.scale.changes
        settings = (RATE, *[DECAY] * bool(tuning.decays))
        found = [(name, self.values.get((name, family, tuning.tuned_at(family, model)))) for name in settings]
        chosen = tuple((name, value) for name, value in found if value is not None)
        return self.scale.changes + chosen if len(chosen) == len(found) else None

    def guidance(self, family: str) -> float | None:
        """The guidance of a family, its own where it is chosen; None while it is not."""
        tuning = self.scale.tuning
        if tuning is None or not tuning.guidances:
            return self.scale.guidance
        value = self.values.get((SCALE, family, tuning.base))
        return None if value is None else float(value)


def chosen(scale: AScale, records: Iterable[Record] = ()) -> Chosen[AScale]:
    """The choices of a scale: rates first, then the average's decay with its rate, then the guidance of the base.

    Decay and guidance are tried on the first tuning seed alone: they change one training less than its rate does.
    """
    tuning = scale.tuning
    if tuning is None:
        return Chosen(scale)
    records = list(records)
    choices: list[Choice] = []
    values: dict[tuple[str, str, str], Setting] = {}

    def choice_of(
        setting: str, family: str, model: str, candidates: Iterable[tuple[Setting, Changes, float]], seeds: int = 1
    ) -> Choice:
        name = scale.model(family, model, matched=family != BASELINE)
        return Choice(
            setting=setting, family=family, model=model, need=scale.place(model, family),
            candidates=tuple(
                (value, tuple(_tuned(scale, tuning, name, seed, changes, cfg) for seed in range(seeds)))
                for value, changes, cfg in candidates
            ),
        )  # fmt: skip

    def settle(choice: Choice) -> Setting | None:
        choices.append(choice)
        made = choice.made(records)
        if made is not None:
            values[choice.setting, choice.family, choice.model] = made
        return made

    def rate_of(family: str, model: str) -> Choice:
        rates, (low, high) = tuning.rates, tuning.limits
        while True:
            tried = ((rate, ((RATE, rate),), scale.guidance) for rate in rates)
            choice = choice_of(RATE, family, model, tried, tuning.seeds[model])
            made = choice.made(records)
            further = {choice.ends[0]: min(rates) / 2, choice.ends[1]: max(rates) * 2}.get(made) if made else None
            if further is None or not low <= further <= high:
                return choice
            rates = (*rates, further)

    def decay_of(family: str, model: str, best: Changes) -> Choice:
        decays, (low, high) = tuning.decays, tuning.decay_limits
        while True:
            tried = ((decay, (*best, (DECAY, decay)), scale.guidance) for decay in decays)
            choice = choice_of(DECAY, family, model, tried)
            made = choice.made(records)
            beyond = {min(decays): beside(min(decays), longer=False), max(decays): beside(max(decays), longer=True)}
            further = beyond.get(float(made)) if made else None
            if further is None or not low <= further <= high:
                return choice
            decays = (*decays, further)

    def guidance_of(family: str, best: Changes) -> Choice:
        guidances = tuning.guidances
        while True:
            choice = choice_of(SCALE, family, tuning.base, ((cfg, best, cfg) for cfg in guidances))
            further = 2 * max(guidances)
            if choice.made(records) != max(guidances) or further > tuning.strongest:
                return choice
            guidances = (*guidances, further)

    tried = [(family, model) for model in dict.fromkeys(tuning.models.values()) for family in RIVALS]
    tried += tuning.others.items()
    for family, model in tried:
        settle(rate_of(family, model))
    for family, model in tried:
        rate = values.get((RATE, family, model))
        if rate is None:
            continue
        best: Changes = ((RATE, rate),)
        if tuning.decays:
            decay = settle(decay_of(family, model, best))
            if decay is None:
                continue
            best = (*best, (DECAY, decay))
        if tuning.guidances and family in RIVALS and model == tuning.base:
            settle(guidance_of(family, best))
    return Chosen(scale, tuple(choices), values)


def _tuned(scale: Scale, tuning: Tuning, model: str, seed: int, changes: Changes, cfg_scale: float) -> Score:
    """A score of a candidate: at the last step, on a tuning seed, against the part that decides.

    What is the preset's own setting is no change, so that equal candidates are one; and a decay is none of the training
    run, which keeps all averages.
    """
    from harness.diffusion.config import PRESETS

    preset = PRESETS[scale.preset]
    changed = {name: value for name, value in scale.changes + changes if getattr(preset, name) != value}
    decay = changed.pop(DECAY, None)
    run = Run(
        preset=scale.preset, model=model, milestones=(scale.last,), seed=FIRST_SEED + seed,
        changes=tuple(changed.items()),
        further_decays=tuple(one for one in tuning.every_decay if one != preset.ema_decay),
    )  # fmt: skip
    return Score(
        run=run, step=scale.last, metrics=tuning.metrics, cfg_scale=cfg_scale, sampling_steps=scale.sampling_steps,
        sampler=scale.sampler, ref=tuning.ref, bootstrap=scale.bootstrap, protocol=scale.protocol,
        ema_decay=None if decay is None else float(decay),
    )  # fmt: skip
