"""Parts of documents on costs: counted, printed by others, measured, and those of training at the paper's scale."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.paper import BASELINE, CHALLENGER, printed
from harness.core.records import Record
from harness.cost import crossover
from harness.cost.analytic import at_tokens
from harness.cost.observatory import observe
from harness.report.cost import costs
from harness.report.crossing import Crossing, crossings
from harness.report.document_tables import grid, preloaded
from harness.report.hardware import measured
from harness.report.observatory import largest, ratio
from models import ModelSpec, catalogue, counterpart, spec
from models.families import FAMILIES

SIZES = ("S", "B", "L", "XL")
PUBLISHED_AT = 256
"""Pixels a side: where most papers print a cost."""


def published_gflops(records: Sequence[Record]) -> str:
    """Table 4 as printed, under thop's rule, and exact, with a DiM's ratio to its DiT of both."""
    counted = {(row["model"], row.get("resolution")): row for row in costs(records) if "paper_gmacs" in row}
    shown = {(cell["model"], int(cell["resolution"])): cell["gflops"] for cell in printed(4)}
    rows = []
    for (model, pixels), gflops in shown.items():
        row, rival, ratios = counted[model, pixels], counterpart(spec(model)), ["", ""]
        if rival:
            beside, theirs = counted[rival.name, pixels], shown[rival.name, pixels]
            exact = row["exact_gmacs"] / beside["exact_gmacs"]
            number = theirs.replace(".", "").isdigit()
            ratios = [f"**{exact:.3f}**", f"{float(gflops) / float(theirs):.3f}" if number else f"({theirs})"]
        rows.append([model, str(pixels), gflops, f"{row['paper_gmacs']:.2f}", f"{row['exact_gmacs']:.2f}", *ratios])
    header = ["model", "resolution", 'published "Gflops"', "thop, batch of 3 (GMAC)", "exact, one image (GMAC)"]
    return grid([*header, "exact, DiM / DiT", "published, DiM / DiT"], rows)


def crossovers(records: Sequence[Record]) -> str:
    """The resolutions from which on a model costs less than its counterpart, by size, at patch 2."""
    rows = []
    for family in (family for family in FAMILIES if family.counterpart):
        for variant, words in (("", "the published depths"), ("-matched", "equal parameters")):
            names = [f"{family.name}-{size}/2{variant}" for size in SIZES]
            cells = [_crossover_cell(name) if name in catalogue() else "" for name in names]
            if any(cells):
                rows.append([f"{family.name} costs less than {family.counterpart} above (px), {words}", *cells])
    return grid(["size, patch 2", *SIZES], rows)


def _crossover_cell(name: str) -> str:
    rival = counterpart(spec(name))
    pixels = crossover(spec(name), rival) if rival else None
    return f"{pixels:.0f}" if pixels else "" if rival is None else "always" if _cheaper(name, rival) else "never"


def _cheaper(name: str, rival: ModelSpec) -> bool:
    """Whether a model that never meets its counterpart is the one below."""
    return at_tokens(spec(name), 1).macs < at_tokens(rival, 1).macs


def published_costs(records: Sequence[Record]) -> str:
    """Of each family the largest model whose cost is printed at 256 pixels, beside its exact cost; of data alone."""
    header = ["model", "printed (Gflops)", "by", "counting rule", "verdict", "not counted"]
    rows = []
    for one in largest(observe(), PUBLISHED_AT):
        shares: dict[str, float] = {}
        for name, share in one.missing.items():
            kind = name.partition(" ")[0]
            shares[kind] = shares.get(kind, 0) + share
        left_out = [f"{kind} {share:.1%}" for kind, share in sorted(shares.items(), key=lambda item: -item[1])]
        rule = one.best.reading.reading if one.best else ""
        rows.append([one.printed.model, one.printed.printed, one.printed.paper, rule, one.verdict, ", ".join(left_out),
                     f"{one.exact_gmacs:.2f}", f"{ratio(one):.3f}"])  # fmt: skip
    return grid([*header, "exact (GMAC)", "printed per image / exact"], rows)


def measured_crossovers(records: Sequence[Record]) -> str:
    """Measured times of a forward pass over the counterpart's, where they are equal, and where multiply-adds are.

    Those of MKL's AVX-512 kernels on a CPU of AMD follow.
    """
    several = {"": records, ", with MKL's AVX-512 kernels": preloaded()}
    return "\n\n".join(filter(None, (_times_over_counterparts(of, how) for how, of in several.items())))


def _times_over_counterparts(records: Sequence[Record], how: str) -> str:
    found = [
        (device, one)
        for device, runs in measured(records).items()
        for one in crossings(runs)
        if one.action == "forward" and not one.rival_mixer.startswith("naive")
    ]
    resolutions = sorted({pixels for _, one in found for pixels in one.ratios})
    header = ["model", "divided by", *(f"{pixels} px" for pixels in resolutions)]
    header += ["equal time at (px)", "equal multiply-adds at (px)"]
    devices = dict.fromkeys(device for device, _ in found)
    return "\n\n".join(
        f"Time of a forward pass of the model, divided by that of its DiT (batch 1, {device}{how}):\n\n"
        + grid(header, [_crossing_cells(one, resolutions) for where, one in found if where == device])
        for device in devices
    )


def _crossing_cells(one: Crossing, resolutions: Sequence[int]) -> list[str]:
    ratios = [f"{one.ratios[pixels]:.2f}" if pixels in one.ratios else "" for pixels in resolutions]
    equal = f"{one.equal_macs_pixels:.0f}" if one.equal_macs_pixels else "never"
    return [one.model, one.rival, *ratios, one.verdict, equal]


def measured_memory(records: Sequence[Record]) -> str:
    """How far measured peaks of memory are from the predicted ones, by device."""
    lines = []
    for device, runs in measured(records).items():
        ratios = [r.parts["peak_bytes"] / r.parts["predicted_bytes"] for r in runs if r.verdict == "ok"]
        ran_out = [r for r in runs if r.verdict == "oom"]
        ends = f"; {len(ran_out)} runs ended out of memory" if ran_out else ""
        if ratios:
            between = f"{min(ratios):.3f} to {max(ratios):.3f}"
            lines.append(f"Measured over predicted peak on {device}: {between} in {len(ratios)} runs{ends}.")
    return "\n\n".join(lines)


def sizes(records: Sequence[Record]) -> str:
    """Width, heads and depths of the sizes that both families of the paper have; of the specifications alone."""
    from models.sizes import SIZES as EVERY

    names = [(size, [f"{BASELINE}-{size}/4", f"{CHALLENGER}-{size}/4", f"{CHALLENGER}-{size}/4-matched"])
             for size in EVERY]  # fmt: skip
    header = ["size", "width", "heads", f"blocks of {BASELINE}", f"of {CHALLENGER}", f"of {CHALLENGER} `-matched`"]
    rows = [
        [size, str(EVERY[size].width), str(EVERY[size].heads), *(str(spec(name).depth) for name in row)]
        for size, row in names
        if all(name in catalogue() for name in row)
    ]
    return grid(header, rows)


def paper_hours(records: Sequence[Record]) -> str:
    """GPU-hours of the networks' multiply-adds in each training run of the suite at the paper's scale; of no record."""
    from harness.suites.budget import training_macs
    from harness.suites.catalogue import suite
    from harness.suites.estimate import DEVICE_FLOPS
    from harness.suites.scales import MATCHED

    columns = [BASELINE, CHALLENGER, f"{CHALLENGER}-{MATCHED}"]
    hours: dict[str, dict[str, str]] = {}
    for run in suite("paper").runs():
        matched = run.model.endswith(MATCHED)
        size = run.model.removeprefix(f"{run.spec.family}-").removesuffix(f"-{MATCHED}")
        images = f", {run.config.joint_images} joint images" if run.config.joint_images else ""
        name = f"{size}{images}: {max(run.milestones):,} steps"
        column = f"{run.spec.family}-{MATCHED}" if matched else run.spec.family
        hours.setdefault(name, {})[column] = f"{2 * training_macs(run) / DEVICE_FLOPS / 3600:,.1f}"
    rows = [[name, *(row.get(column, "") for column in columns)] for name, row in hours.items()]
    return grid(["run", *columns], rows)
