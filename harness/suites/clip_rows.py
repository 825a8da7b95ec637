"""Rows of the paper's table of clips."""

from __future__ import annotations

from collections.abc import Iterator

from harness.core.paper import BASELINE, CHALLENGER, JOINT, TABLES
from harness.suites.chosen import Chosen
from harness.suites.rows import Row
from harness.suites.scales import MATCHED, Changes, ClipScale

OF_CLIPS = {BASELINE: "Latte", CHALLENGER: "DiM"}
"""What Table 3 calls the models of a family."""


def clip_rows(settled: Chosen[ClipScale]) -> tuple[Row, ...]:
    """Table 3's last four rows: both families over clips, alone and with single frames trained beside them.

    With `matched` a DiM of the DiT's parameters is beside each pair. Rows of a family whose settings are open are not
    there yet.
    """
    scale = settled.scale
    ways: list[tuple[str, Changes]] = [("", ())]
    if scale.joint_images:
        ways.append((JOINT, (("joint_images", scale.joint_images),)))
    rows: list[Row] = []
    for place, (extra, further) in enumerate(ways):
        rows += _rows(settled, place, extra, further)
        if scale.matched:
            rows += _rows(settled, place, extra, further, matched=True)
    return tuple(rows)


def _rows(
    settled: Chosen[ClipScale], place: int, extra: str, further: Changes, matched: bool = False
) -> Iterator[Row]:
    """A row of each family that has a model of that kind; `place` is that of the way of training."""
    scale = settled.scale
    for family, method in OF_CLIPS.items():
        changes, cfg_scale = settled.changes(family, scale.ours), settled.guidance(family)
        if changes is None or cfg_scale is None or (matched and family == BASELINE):
            continue
        model = scale.model(family, scale.ours, matched)
        at_depth = family == CHALLENGER and not matched
        yield Row(
            part=TABLES[3].part,
            label=f"{model}{extra}" + (f", guidance {cfg_scale:g}" if scale.tuning else ""),
            family=family,
            contest=f"clips{extra}",
            scores=scale.scores(scale.run(model, changes + further), scale.last, cfg_scale),
            published=None if matched else {"method": method + extra},
            variant=MATCHED * matched + extra,
            need=2 * place + at_depth if scale.matched else None,
        )
