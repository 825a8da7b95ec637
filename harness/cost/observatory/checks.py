"""The closed forms behind the verdicts, held against the tools themselves, for models that can be built."""

from __future__ import annotations

from collections.abc import Iterable

from harness.cost.conventions import CONVENTIONS
from harness.cost.observatory.outlines import outline
from harness.cost.observatory.verdicts import Observation

TRACED = ("exact", "normalised")
"""Rules whose operations the trace of torch's dispatcher gives."""


def check(observations: Iterable[Observation]) -> list[str]:
    """Run thop, or trace, what those verdicts rest on; a line a tool, with the models.

    Raises ValueError where a tool and the closed form of the same passes differ, and where a tool is not installed.
    """
    from harness.cost.extension import Counts
    from harness.cost.operations import differences
    from models import spec

    counts, done = Counts(), dict[str, list[str]]()
    for one in observations:
        if not one.built or one.best is None or not one.printed.model.startswith(("DiT", "DiM")):
            continue
        reading, name, pixels = one.best.reading, one.printed.model, one.printed.resolution
        found = outline(name, pixels, reading.batch)
        assert found is not None
        if reading.rule in TRACED:
            traced = counts.trace(spec(name), pixels, reading.batch)
            if lines := differences(found.cost, traced.cost):
                raise ValueError(f"the two counts of {name} differ: {'; '.join(lines)}")
            done.setdefault("traced on the meta device", []).append(f"{name} at {pixels}")
        elif reading.rule == "thop":
            read = counts.read("thop", spec(name), pixels, reading.batch)
            if read.count != (by_rule := CONVENTIONS["thop"].total(found.cost)):
                raise ValueError(f"{read.tool} gives {read.count} for {name}, its rule {by_rule}")
            done.setdefault(read.tool, []).append(f"{name} at {pixels}")
    return [f"{tool}: {', '.join(dict.fromkeys(names))}" for tool, names in done.items()]
