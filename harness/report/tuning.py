"""What was chosen before anything was scored, and from what: the sweep as a table; and what real images score."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from harness.core.grid import Bold
from harness.core.records import Record
from harness.report.cells import MISSING, NAMES, NOT_MADE, with_error
from harness.report.layout import Block, Table

if TYPE_CHECKING:
    from harness.suites.rows import Suite

DIVERGED = "diverged"
TITLES = {"learning_rate": "learning rate", "ema_decay": "EMA decay", "cfg_scale": "guidance scale"}


def floor(suite: Suite, records: Iterable[Record]) -> str:
    """A note: what real items of one part score against another, as many as of samples; empty without records."""
    if suite.floor is None:
        return ""
    found = suite.floor.answers(records)
    values = [f"{NAMES.get(one.quantity, one.quantity)} {one.value:.4g}" for one in found if one.value is not None]
    if not values:
        return ""
    from harness.metrics.features import space

    items = space(suite.floor.metrics[0].partition("@")[2]).items
    return f"Floor, real {items} ({suite.floor.samples}) in the place of samples: {', '.join(values)}."


def chosen(suite: Suite, records: Sequence[Record]) -> list[str]:
    """Notes: the settings of each family, and where they were chosen."""
    notes = []
    for setting in dict.fromkeys(choice.setting for choice in suite.choices):
        made = [
            f"{choice.tuned} {value:g}"
            for choice in suite.choices
            if choice.setting == setting and (value := choice.made(records)) is not None
        ]
        if made:
            name = TITLES.get(setting, setting)
            notes.append(f"Chosen on other seeds and other real data: {name} {', '.join(made)}.")
    return notes


def tuning_table(suite: Suite, records: Sequence[Record]) -> Table:
    """The Fréchet distances of all candidates, a row a family, model and setting, the chosen ones in bold.

    Raises ValueError for a suite that chooses nothing.
    """
    if not suite.choices:
        raise ValueError(f"suite {suite.name} chooses no settings: its recipe is one for all")
    import pandas as pd

    blocks, data = [], []
    for setting in dict.fromkeys(choice.setting for choice in suite.choices):
        several = [choice for choice in suite.choices if choice.setting == setting]
        values = sorted({value for choice in several for value, _ in choice.candidates})
        rows = []
        for choice in several:
            found, made = choice.values(records), choice.made(records)
            texts = [_text(found[value]) if value in found else NOT_MADE for value in values]
            shown = [Bold(text) if value == made else text for value, text in zip(values, texts, strict=True)]
            rows.append([choice.tuned, *shown])
            about = {"suite": suite.name, "family": choice.family, "model": choice.tuned, "setting": setting}
            data += [{**about, "value": value, **_data(found[value]), "chosen": value == made} for value in found]
        blocks.append(Block([TITLES.get(setting, setting), *(f"{value:g}" for value in values)], rows))
    order = dict.fromkeys(TITLES.get(choice.setting, choice.setting) for choice in suite.choices)
    score = suite.choices[0].candidates[0][1][0]
    return Table(
        name="tuning",
        title="Candidate settings, and the chosen ones",
        data=pd.DataFrame(data),
        blocks=blocks,
        notes=[
            "Lower is better; ± is the standard deviation over tuning seeds, where there are several (how many).",
            f"{NOT_MADE}: no candidate. If the best learning rate or EMA decay is at an end of its range, or the best "
            "guidance scale is the largest, the range is extended within limits.",
        ],
        protocol=f"Suite `{suite.name}`: {score.metrics[0]} against {score.ref}, {score.sampling_steps} steps. "
        "The choice is the candidate with the lowest mean. The settings are chosen one after the other, each with the "
        f"ones before it: {', '.join(order)}. Those of a `-matched` DiM are also used for the DiM of the paper's "
        "depth, which is not tuned.",
    )


def _text(values: Sequence[float]) -> str:
    if not values:
        return MISSING
    if not all(map(math.isfinite, values)):
        return DIVERGED
    if len(values) == 1:
        return with_error(values[0], None)
    return f"{with_error(statistics.fmean(values), statistics.stdev(values))} ({len(values)})"


def _data(found: Sequence[float]) -> dict[str, Any]:
    mean = statistics.fmean(found) if found else None
    return {"mean": mean if mean is None or math.isfinite(mean) else DIVERGED, "seeds": len(found)}
