"""The closed forms behind the verdicts, held against the tools themselves, for models that can be built."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from harness.cost.observatory.outlines import built, outline
from harness.cost.observatory.verdicts import Observation

if TYPE_CHECKING:
    from harness.cost.extension import Counts

TOOLS = ("thop", "fvcore")
LINEAR = "linear in "


def check(observations: Iterable[Observation]) -> list[str]:
    """Run thop or fvcore, or trace, what those verdicts rest on; a line a tool, with the models.

    A tool sees the model with the same products hidden as the reading has; terms that a reading adds are not part of
    the check. Shows a progress bar on a terminal. Raises ValueError where a tool, or a trace, and the closed form of
    the same pass differ, and where a tool is not installed.
    """
    from tqdm import tqdm

    from harness.cost.extension import Counts

    counts, done = Counts(), dict[str, list[str]]()
    catalogued = [one for one in observations if one.built and one.best]
    for one in tqdm(catalogued, desc="checking", unit="figure", disable=None, leave=False):
        done.setdefault(_checked(one, counts), []).append(f"{one.printed.model} at {one.printed.resolution}")
    return [f"{how}: {', '.join(dict.fromkeys(names))}" for how, names in done.items()]


def _checked(one: Observation, counts: Counts) -> str:
    """How it was checked."""
    from harness.cost.operations import differences

    assert one.best is not None
    reading, pixels = one.best.reading, one.printed.resolution
    found, model = outline(one.printed.model, pixels, reading.batch), built(one.printed.model)
    assert found is not None
    assert model is not None
    if reading.rule not in TOOLS:
        traced = counts.trace(model, pixels, reading.batch)
        if lines := differences(found.cost, traced.cost):
            raise ValueError(f"the two counts of {model.name} differ: {'; '.join(lines)}")
        return "traced on the meta device"
    hidden = tuple(name.removeprefix(LINEAR) for name in reading.hidden if name.startswith(LINEAR))
    said = counts.read(reading.rule, model, pixels, reading.batch, hidden)
    if said.count != (by_rule := reading.counted(found.cost)):
        raise ValueError(f"{said.tool} gives {said.count} for {model.name}, its rule {by_rule}")
    return said.tool
