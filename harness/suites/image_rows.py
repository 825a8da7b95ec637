"""Rows of the paper's image tables at a scale, and of the curves of its Figure 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from harness.core.paper import BASELINE, CHALLENGER, FIGURE_1, TABLES, printed
from harness.suites.chosen import Chosen
from harness.suites.rows import FAMILIES, SEQUENCE, Row
from harness.suites.scales import GUIDANCE, MATCHED, PATCH, UNGUIDED, Changes, ImageScale
from models import spec

CONTESTANTS = ((BASELINE, ""), (CHALLENGER, ""), (CHALLENGER, MATCHED))
"""Family and variant of the rows of a contest; one of equal cost joins them where its depth is known."""
BOTH_OF_ONE_COST = ((BASELINE, ""), (CHALLENGER, MATCHED))
"""The same where only models of equal parameters or cost are compared."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What the rows of one contest share: their part and name, the paper's size, patch, step and guidance, our patch.

    `stated` is what a row's label says behind its model. Without `cfg_scale` each family has the guidance that was
    chosen for it. `resolution` is that of the images, where it is not the preset's. Samples are drawn several times,
    where the scale does, at its own guidance alone: that is enough to tell what they vary by.
    """

    part: str
    name: str
    size: str
    patch: int
    paper_patch: int
    paper_step: int
    cfg_scale: float | None = GUIDANCE
    stated: str = ""
    resolution: int | None = None

    def rows(self, settled: Chosen[ImageScale]) -> Iterator[Row]:
        """A row for each contestant whose settings are chosen; of all families none before a third one's are."""
        scale = settled.scale
        ours = f"{scale.sizes[self.size]}/{self.patch}"
        contestants = BOTH_OF_ONE_COST if self.part in (SEQUENCE, FAMILIES) else CONTESTANTS
        if self.part == FAMILIES and scale.tuning:
            further = [(family, MATCHED) for family, model in scale.tuning.others.items() if model == ours]
            if not any(settled.changes(family, ours) for family, _ in further):
                return
        else:
            further = [(CHALLENGER, "equal-macs")] if ours in scale.equal_macs else []
        for family, variant in (*contestants, *further):
            row = self.row(settled, family, variant)
            if row:
                yield row

    def row(self, settled: Chosen[ImageScale], family: str, variant: str = "") -> Row | None:
        """The row of a family and variant, beside the paper's row if it has one; None while its settings are open."""
        scale = settled.scale
        cfg_scale = settled.guidance(family) if self.cfg_scale is None else self.cfg_scale
        ours = f"{scale.sizes[self.size]}/{self.patch}"
        matched = variant == MATCHED
        depth: Changes = ()
        if variant == "equal-macs":
            if spec(scale.model(family, ours, matched=True)).depth == scale.equal_macs[ours]:
                matched = True  # equal in both: one run serves
            else:
                depth = (("depth", scale.equal_macs[ours]),)
        model = scale.model(family, ours, matched)
        changes = settled.changes(family, ours)
        if changes is None or cfg_scale is None:
            return None
        step = scale.milestones[self.paper_step]
        seeds, draws = scale.repeats(ours, family, variant, curve=self.part == FIGURE_1)
        draws = draws if cfg_scale == scale.guidance else 1
        stated = self.stated if self.cfg_scale is not None else f"{self.stated} {cfg_scale:g}"
        need = scale.need(ours, family, variant, step, cfg_scale)
        metrics = scale.metrics
        if self.resolution:
            changes += (("resolution", self.resolution),)
            metrics, need = scale.shrunk_metrics, None if need is None else scale.place(scale.order[2])
        return Row(
            part=self.part,
            label=f"{model}{f' of depth {depth[0][1]}' if depth else ''}{stated}",
            family=family,
            contest=self.name,
            scores=scale.scores(scale.run(model, changes + depth), step, cfg_scale, seeds, draws, metrics),
            published=None if variant else self.published(family),
            variant=variant,
            need=need,
        )

    def published(self, family: str) -> dict[str, str] | None:
        """The key of the paper's row of a family, or None where the paper prints none."""
        table = next((table for table in TABLES.values() if table.part == self.part), None)
        if table is None or self.cfg_scale is None:
            return None
        known = {"model": f"{family}-{self.size}/{self.paper_patch}", "steps": str(self.paper_step)}
        known |= {"cfg": str(self.cfg_scale)}
        key = {name: known[name] for name in table.keys}
        return key if any(key.items() <= row.items() for row in printed(table.number)) else None


def image_rows(settled: Chosen[ImageScale]) -> tuple[Row, ...]:
    """Tables 2, 5, 6 and 7 at a scale, and Figure 1's curves: each size of both families at each milestone.

    The paper prints no DiT in Tables 5 and 6; they are trained here all the same, or nothing could be compared. Where
    the scale has resolutions, the base is trained at these, too: its sequences are shorter there. Where it has other
    families, each is compared with the same baseline at equal parameters.
    """
    scale = settled.scale
    rows = [row for contest in _contests(scale) for row in contest.rows(settled)]
    for size in scale.sizes:
        for paper_step, step in scale.milestones.items():
            name = f"size {scale.sizes[size]}, {step:,} steps"
            curve = Contest(
                part=FIGURE_1, name=name, size=size, patch=scale.patch, paper_patch=PATCH, paper_step=paper_step
            )
            rows += [row for family in (BASELINE, CHALLENGER) if (row := curve.row(settled, family))]
    return tuple(rows)


def _contests(scale: ImageScale) -> Iterator[Contest]:
    """The contests of the tables, in their order."""
    last = max(scale.milestones)
    base = Contest(part="", name="", size="B", patch=scale.patch, paper_patch=PATCH, paper_step=last)
    for paper_step, step in scale.milestones.items():
        name = f"{step:,} steps"
        yield replace(base, part=TABLES[2].part, name=name, paper_step=paper_step, stated=f" at {name}")
    for cfg in (UNGUIDED, GUIDANCE):
        name = f"guidance {cfg:g}"
        yield replace(base, part=TABLES[7].part, name=name, cfg_scale=cfg, stated=f", {name}")
    if scale.tuning:
        yield replace(base, part=TABLES[7].part, name="chosen guidance", cfg_scale=None, stated=", chosen guidance")
    for size, ours in scale.sizes.items():
        yield replace(base, part=TABLES[6].part, name=f"size {ours}", size=size)
    for patch in scale.patches:
        yield replace(base, part=TABLES[5].part, name=f"patch {patch}", patch=patch, paper_patch=patch)
    for resolution in scale.resolutions:
        at = f"{resolution} pixels"
        yield replace(base, part=SEQUENCE, name=at, stated=f" at {at}", resolution=resolution)
    if scale.resolutions:
        for patch in (patch for patch in scale.patches if patch <= scale.patch):
            yield replace(base, part=SEQUENCE, name=f"patch {patch}", patch=patch, paper_patch=patch)
    others = scale.tuning.others if scale.tuning else {}
    for model in dict.fromkeys(others.values()):
        size = next(size for size, ours in scale.sizes.items() if ours == model.partition("/")[0])
        patch = int(model.partition("/")[2])
        yield replace(base, part=FAMILIES, name=model, size=size, patch=patch, paper_patch=patch)
