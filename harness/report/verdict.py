"""Whether the paper's claim of a table holds in what was measured: the last lines under it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from harness.report.cells import COLUMNS, NAMES, Line, counterpart_of, measured_name, rival
from harness.report.claims import METHOD, Claim, sentence, tally

TRENDS = {5: "patch size", 6: "model size"}
KINDS = {
    "": "DiM and DiT at the paper's depths",
    "matched": "DiM and DiT at equal parameters",
    "equal-macs": "DiM and DiT at equal multiply-adds",
    "joint": "Joint training and clips alone",
    "trend": "DiM, step by step",
    "counterpart's trend": "DiT, step by step, which the paper does not print here",
}


def verdict(table: int, suite: str, lines: Sequence[Line], columns: Iterable[str]) -> list[str]:
    """Sentences: what the paper prints, how often its signs hold and how often significantly, what that is worth."""
    if table in TRENDS:
        claims = [*_trend(lines, columns), *_figure1(table, lines)]
    else:
        claims = [*_contests(lines, columns), *_joint(lines, columns)]
    counts = tally(claims)
    said = [_printed(table, claims)]
    for wanted in dict.fromkeys(kind for kind, _ in counts):
        chosen = {measured_name(metric, lines): n for (kind, metric), n in counts.items() if kind == wanted}
        said.append(sentence(KINDS.get(wanted, wanted), chosen))
    if not any(count.measured for count in counts.values()):
        return [said[0], "Nothing is measured yet, so nothing can be said."]
    said.append(f"Significance: {METHOD}.")
    if any(count.untested for count in counts.values()):
        said.append("Of differences between single seeds nothing is known but their sign, which may be chance.")
    if any(kind == "" for kind, _ in counts):
        said.append(_unequal(lines))
    if suite != "paper":
        said.append("These are small models on a small data set: they neither confirm nor refute the printed figures.")
    return said


def _unequal(lines: Sequence[Line]) -> str:
    """How unequal the models are that the paper compares: the ratio of their parameters over the rows."""
    pairs = [(line.params_m, dit.params_m) for line in lines if line.printed and (dit := rival(line, lines))]
    ratios = sorted({f"{dim / dit:.1f}" for dim, dit in pairs if dim and dit})
    times = " to ".join(dict.fromkeys((ratios[0], ratios[-1]))) if ratios else "about 1.5"
    return (
        f"At the paper's depths a DiM has {times} times the parameters of its DiT: only the comparisons at equal "
        "parameters and at equal multiply-adds are of models of one size, as near as whole blocks come."
    )


def _contests(lines: Sequence[Line], columns: Iterable[str]) -> list[Claim]:
    """Each DiM against its DiT, by the sign that the paper prints for their contest."""
    claims = []
    for dim, column in itertools.product(lines, columns):
        dit = rival(dim, lines)
        if dit is None:
            continue
        said = dim if dim.printed else next((x for x in lines if _at_depth(x, dim)), dim)
        sign = _sign(said.printed.get(column), dit.printed.get(column))
        kind = "" if dim.printed else dim.variant
        claims.append(Claim(column, kind, sign, *_measured(column, dim, dit)))
    return claims


def _at_depth(line: Line, dim: Line) -> bool:
    return (line.contest, line.family, line.variant) == (dim.contest, dim.family, "")


def _trend(lines: Sequence[Line], columns: Iterable[str]) -> list[Claim]:
    """Each row that the paper prints against the one before it, for DiM and for the DiT of the same contest."""
    printed = [line for line in lines if line.printed and counterpart_of(line.family)]
    claims = []
    for (before, after), column in itertools.product(itertools.pairwise(printed), columns):
        sign = _sign(after.printed.get(column), before.printed.get(column))
        pairs = {"trend": (after, before), "counterpart's trend": (rival(after, lines), rival(before, lines))}
        for kind, (one, other) in pairs.items():
            if one and other:
                claims.append(Claim(column, kind, sign, *_measured(column, one, other)))
    return claims


def _figure1(table: int, lines: Sequence[Line]) -> list[Claim]:
    """DiM against DiT by model size: the paper prints no DiT there, but says of FID, in Figure 1, that DiM is ahead."""
    pairs = [(dim, rival(dim, lines)) for dim in lines] if table == 6 else []
    return [Claim("fid", dim.variant, -1, *_measured("fid", dim, dit)) for dim, dit in pairs if dit]


def _joint(lines: Sequence[Line], columns: Iterable[str]) -> list[Claim]:
    """Each row of joint image-video training against that of clips alone."""
    claims = []
    for one, other, column in itertools.product(lines, lines, columns):
        if (one.variant, other.variant, other.family) == ("+IMG", "", one.family):
            sign = _sign(one.printed.get(column), other.printed.get(column))
            claims.append(Claim(column, "joint", sign, *_measured(column, one, other)))
    return claims


def _measured(column: str, one: Line, other: Line) -> tuple[Sequence[float], Sequence[float], bool]:
    """Both sides' values, and whether the features have that metric."""
    cells = one.cells[column], other.cells[column]
    return cells[0].values, cells[1].values, all(cell.mark != "unsupported" for cell in cells)


def _sign(first: str | None, second: str | None) -> int:
    """Of the difference of two printed figures; 0 where either is none."""
    try:
        difference = float(first or "") - float(second or "")
    except ValueError:
        return 0
    return (difference > 0) - (difference < 0)


def _printed(table: int, claims: Sequence[Claim]) -> str:
    """How often the paper has DiM, or the later row, ahead, by metric."""
    own = [claim for claim in claims if claim.kind == ("trend" if table in TRENDS else "")]
    parts = []
    for metric in dict.fromkeys(claim.metric for claim in own):
        signs = [claim.printed for claim in own if claim.metric == metric]
        parts.append(
            f"{NAMES.get(metric, metric)} in {sum(sign == COLUMNS[metric][1] for sign in signs)} of {len(signs)}"
        )
    further = " Of DiM and DiT by size it says in Figure 1 that DiM's FID is better throughout." if table == 6 else ""
    joint = [claim.printed == COLUMNS[claim.metric][1] for claim in claims if claim.kind == "joint"]
    further += f" It prints joint training ahead of clips alone in {sum(joint)} of {len(joint)}." if joint else ""
    where = f"each step of {TRENDS[table]} better in" if table in TRENDS else "DiM ahead of DiT in"
    return (
        f"The paper prints {where} {', '.join(parts)}.{further}"
        if parts
        else "The paper prints no pair that this suite could compare."
    )
