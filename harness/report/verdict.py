"""The last lines under a table: whether the paper's claim holds in what was measured."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from harness.core.paper import BASELINE, CHALLENGER, JOINT, TableSpec
from harness.report.cells import COLUMNS, NAMES
from harness.report.claims import METHOD, Claim, sentence, tally
from harness.report.lines import Line, at_depth, counterpart_of, measured_name, rival

PAIR = f"{CHALLENGER} and {BASELINE}"
TREND, OF_COUNTERPART = "trend", "trend of the counterpart"
JOINTLY, JOINTLY_MATCHED = "joint", "joint, matched"
KINDS = {
    "": f"{PAIR} at the paper's depths",
    "matched": f"{PAIR} at equal parameters",
    "equal-macs": f"{PAIR} at equal multiply-adds",
    JOINTLY: "Joint training and clips alone",
    JOINTLY_MATCHED: f"Joint training and clips alone, {CHALLENGER} of equal parameters",
    TREND: f"{CHALLENGER}, step by step",
    OF_COUNTERPART: f"{BASELINE}, step by step, which the paper does not print here",
}


def words_of(kind: str, families: Iterable[str] = (CHALLENGER,)) -> str:
    """What is compared, of a variant: which families, at which size, and with joint images or not."""
    alone = kind.removesuffix(JOINT)
    words = KINDS.get(alone, alone) + ", joint images" * kind.endswith(JOINT)
    return words if set(families) <= {CHALLENGER} else words.replace(PAIR, f"each family and {BASELINE}")


HOLDS = (
    "Holds: the measured difference has the sign of the printed one, whichever model the paper prints ahead; reversed: "
    "it has the other sign. What the paper prints as equal is not counted."
)


def verdict(table: TableSpec, suite: str, lines: Sequence[Line]) -> list[str]:
    """Sentences: what the paper prints, how often its signs hold and how often significantly, what that is worth."""
    columns = table.quality
    if table.trend:
        claims = [*_trend(lines, columns), *_figure1(table.figure1, lines)]
    else:
        claims = [*contests(lines, columns), *_joint(lines, columns)]
    counts = tally(claims)
    sentences = [_printed(table, claims), HOLDS]
    for wanted in dict.fromkeys(kind for kind, _ in counts):
        chosen = {measured_name(metric, lines): n for (kind, metric), n in counts.items() if kind == wanted}
        sentences.append(sentence(KINDS.get(wanted, wanted), chosen))
    if not any(count.measured for count in counts.values()):
        return [_printed(table, claims), "Nothing is measured yet, so nothing can be said."]
    sentences.append(f"Significantly: {METHOD}")
    if any(count.untested for count in counts.values()):
        sentences.append("With a single seed only the sign of a difference is known, and it may be chance.")
    if any(kind == "" for kind, _ in counts):
        sentences.append(_unequal(lines))
    if suite != "paper":
        sentences.append(
            "These are small models on a small data set: they neither confirm nor refute the printed figures."
        )
    return sentences


def _unequal(lines: Sequence[Line]) -> str:
    """How unequal the models are that the paper compares: the ratio of their parameters over the rows."""
    pairs = [(line.params_m, dit.params_m) for line in lines if line.printed and (dit := rival(line, lines))]
    ratios = sorted({f"{dim / dit:.1f}" for dim, dit in pairs if dim and dit})
    times = " to ".join(dict.fromkeys((ratios[0], ratios[-1]))) if ratios else "about 1.5"
    return (
        f"At the paper's depths a {CHALLENGER} has {times} times the parameters of its {BASELINE}. Only the "
        "comparisons at equal parameters and at equal multiply-adds use models of equal size, to the nearest block."
    )


def contests(lines: Sequence[Line], columns: Iterable[str]) -> list[Claim]:
    """Each row against its rival, by the sign that the paper prints for their contest."""
    claims = []
    for one, column in itertools.product(lines, columns):
        other = rival(one, lines)
        if other is None:
            continue
        sign = _sign(_printed_of(one, lines).get(column), other.printed.get(column))
        kind = "" if one.printed else one.variant.removesuffix(JOINT)
        claims.append(Claim(column, kind, sign, *_measured(column, one, other)))
    return claims


def _printed_of(line: Line, lines: Sequence[Line]) -> Mapping[str, str]:
    """What the paper prints for a row, or for the one of its contest and family at the paper's depth."""
    alike = (one for one in lines if (one.contest, one.family) == (line.contest, line.family) and at_depth(one))
    return line.printed or next((one.printed for one in alike), {})


def _trend(lines: Sequence[Line], columns: Iterable[str]) -> list[Claim]:
    """Each row that the paper prints against the one before it; and the same of the rows that these compare with."""
    printed = [line for line in lines if line.printed and counterpart_of(line.family)]
    claims = []
    for (before, after), column in itertools.product(itertools.pairwise(printed), columns):
        sign = _sign(after.printed.get(column), before.printed.get(column))
        pairs = {TREND: (after, before), OF_COUNTERPART: (rival(after, lines), rival(before, lines))}
        for kind, (one, other) in pairs.items():
            if one and other:
                claims.append(Claim(column, kind, sign, *_measured(column, one, other), question=kind))
    return claims


def _figure1(column: str, lines: Sequence[Line]) -> list[Claim]:
    """Each row against its rival in the column in which Figure 1 has the challenger ahead throughout, if any."""
    pairs = [(one, rival(one, lines)) for one in lines] if column else []
    return [
        Claim(column, one.variant, COLUMNS[column][1], *_measured(column, one, other)) for one, other in pairs if other
    ]


def _joint(lines: Sequence[Line], columns: Iterable[str]) -> list[Claim]:
    """Each row of joint image-video training against that of clips alone, of the same model."""
    claims = []
    for one, other, column in itertools.product(lines, lines, columns):
        if (one.variant, one.family) == (other.variant + JOINT, other.family):
            sign = _sign(_printed_of(one, lines).get(column), _printed_of(other, lines).get(column))
            kind = JOINTLY if at_depth(one) else JOINTLY_MATCHED
            claims.append(Claim(column, kind, sign, *_measured(column, one, other), question=JOINTLY))
    return claims


def _measured(column: str, one: Line, other: Line) -> tuple[Sequence[float], Sequence[float], bool]:
    """Both sides' values, and whether the features have that metric."""
    cells = one.cells[column], other.cells[column]
    return cells[0].values, cells[1].values, all(cell.mark != "unsupported" for cell in cells)


def _sign(first: str | None, second: str | None) -> int | None:
    """Of the difference of two printed figures; None where either is none."""
    try:
        difference = float(first or "") - float(second or "")
    except ValueError:
        return None
    return (difference > 0) - (difference < 0)


def _printed(table: TableSpec, claims: Sequence[Claim]) -> str:
    """How often the paper has the challenger, or the later row, ahead, by metric."""
    own = [claim for claim in claims if claim.kind == (TREND if table.trend else "") and claim.printed is not None]
    parts = []
    for metric in dict.fromkeys(claim.metric for claim in own):
        signs = [claim.printed for claim in own if claim.metric == metric]
        parts.append(
            f"{NAMES.get(metric, metric)} in {sum(sign == COLUMNS[metric][1] for sign in signs)} of {len(signs)}"
        )
    further = ""
    if table.figure1:
        column = NAMES.get(table.figure1, table.figure1)
        further = f" Of {PAIR} by size it says in Figure 1 that {CHALLENGER}'s {column} is better throughout."
    joint = [claim.printed == COLUMNS[claim.metric][1] for claim in claims if claim.kind == JOINTLY]
    further += f" It prints joint training ahead of clips alone in {sum(joint)} of {len(joint)}." if joint else ""
    where = f"each step of {table.trend} better in" if table.trend else f"{CHALLENGER} ahead of {BASELINE} in"
    return (
        f"Of what is compared here, the paper prints {where} {', '.join(parts)}.{further}"
        if parts
        else "The paper prints no pair that this suite could compare."
    )
