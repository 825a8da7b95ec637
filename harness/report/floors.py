"""Floors as a table and as rows for a terminal: what no implementation can beat, by card, and where floors cross."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.core import paths, store
from harness.core.cards import CPU, DEVICES, Card, card, figures, measured_card
from harness.core.formats import render
from harness.core.provenance import Provenance
from harness.core.records import LatencyRecord, RateRecord, Record
from harness.core.workload import CHOICES, Workload
from harness.cost.analytic import rivals
from harness.cost.floors import OF_DTYPE, Crossover, Floor, crossover, floor
from harness.report.hardware import MIXER, Fields, columns_of, measured
from harness.report.latency import quartiles
from harness.report.layout import Block, Table
from models import ModelSpec, spec

CARDS = tuple(figures())
MODELS = ("DiT-XL/2", "DiM-XL/2", "DiM-XL/2-matched")
RESOLUTIONS = (256, 512, 1024, 2048)
ACTIONS = {"forward": "a forward pass", "sample": "a guided denoising step", "train": "a training step"}
COMMAND = "python -m harness.bench --floor --card cpu"
NOTES = [
    "A floor is the largest of four times: matrix products at the card's dense peak; multiply-adds outside of them "
    "(the scan's) on FP32 units; exponentials on special-function units; bytes that must come from memory or go there. "
    "It assumes that all four overlap fully. The word after a floor names the largest of the four. Derivations: "
    "`harness/cost/floors.py`; the cards' figures and their sources: `results/published/cards.csv`.",
    "H100, H200 and A100 are the SXM boards, A100 with 80 GB. tf32: float32 tensors on tensor cores; float32: on FP32 "
    "units, as torch does unless it is permitted tf32.",
    "From the first resolution of a pair on, DiM's floor is below DiT's, so that DiM can be faster. From the second "
    "on, DiM at the peak rate of each unit is faster even if nothing of its step overlaps and all of DiT's does. "
    "Between the two, floors do not decide. 16, one patch, is the smallest resolution.",
    MIXER,
    "cpu: the best rates that were measured on it (`results/measurements/peaks.jsonl`).",
]


@dataclass(frozen=True)
class Line:
    """A floor, and of what it is."""

    workload: Workload
    card: Card
    arithmetic: str
    floor: Floor

    def fields(self) -> Fields:
        """Every digit, in milliseconds."""
        w = self.workload
        where = {"card": self.card.name, "model": w.spec.name, "resolution": w.resolution, "batch": w.batch}
        where |= {"frames": w.spec.frames, "action": w.action, "arithmetic": self.arithmetic}
        seconds = {f"{resource}_ms": 1e3 * value for resource, value in self.floor.seconds.items()}
        whole = {"floor_ms": 1e3 * self.floor.value, "apart_ms": 1e3 * self.floor.apart}
        return {**where, **seconds, **whole, "binds": self.floor.binds}

    def row(self) -> Fields:
        """For reading."""
        w = self.workload
        row = {"card": self.card.name, "model": w.spec.name, "px": w.resolution, "batch": w.batch}
        row["run"] = f"{w.action}, {self.arithmetic}"
        row |= {f"{resource} ms": 1e3 * value for resource, value in self.floor.seconds.items()}
        return row | {"floor ms": 1e3 * self.floor.value, "binds": self.floor.binds}


def lines(workloads: Iterable[Workload], cards: Iterable[Card]) -> list[Line]:
    """The floors of workloads on cards, in every arithmetic of their dtype that the card has."""
    return [
        Line(w, one, arithmetic, floor(w, one, arithmetic))
        for one, w in itertools.product(cards, workloads)
        for arithmetic in OF_DTYPE[w.dtype]
        if arithmetic in one.flop_per_s
    ]


def floors_text(workloads: Sequence[Workload], names: Sequence[str], style: str, records: Path | None) -> str:
    """Floors as rows of text, and for reading the crossovers under them.

    The rates of a CPU are of the project's records and of those in a file, where they are measured into if there are
    none of this machine. Raises ValueError for an unknown card, and for models whose floors are not known.
    """
    workloads = list(dict.fromkeys(replace(w, implementation="", checkpointing=False) for w in workloads))
    cards = [this_cpu(records) if name == CPU else card(name) for name in names]
    found = lines(workloads, cards)
    if style != "table":
        return render([line.fields() for line in found], style)
    sentences = [sentence(*pair) for pair in crossings(found)]
    return "\n\n".join(filter(None, (render([line.row() for line in found], style), "\n".join(sentences))))


def this_cpu(path: Path | None = None) -> Card:
    """The CPU of this machine, by its measured rates; they are measured now where no record has them."""
    path = path or paths.measurements() / "peaks.jsonl"
    device = Provenance.here("cpu").device
    known = [*store.load(), *(store.load(path) if path.exists() else [])]
    found = measured_card(known, device)
    if found is None:
        from harness.cost.ceilings import measure_rates

        rates: list[RateRecord] = measure_rates()
        store.append(path, rates)
        found = measured_card(rates, device)
    assert found
    return found


def crossings(found: Iterable[Line]) -> Iterator[tuple[Line, Line, Crossover]]:
    """Each model beside its counterpart, once for every card, action, batch and arithmetic."""
    unlike = list({(x.card.name, x.workload.spec, _run(x)): x for x in found}.values())
    for one, other in itertools.product(unlike, unlike):
        same = one.card.name == other.card.name and _run(one) == _run(other)
        if same and rivals(one.workload.spec, other.workload.spec):
            yield one, other, crossover(one.workload, other.workload, one.card, one.arithmetic)


def _run(line: Line) -> tuple[str, str, int]:
    return line.workload.action, line.arithmetic, line.workload.batch


def sentence(one: Line, other: Line, where: Crossover) -> str:
    """A crossover in words."""
    names = f"{one.workload.spec.name} beside {other.workload.spec.name}"
    what = f"{one.card.name}, {one.workload.action}, {one.arithmetic}: {names}"
    can = f"can be faster from {where.lower_from} px" if where.lower_from else "cannot be faster"
    surely = f"at peak rates is faster from {where.faster_from} px, whatever overlaps" if where.faster_from else ""
    slower = f"at peak rates is slower up to {where.slower_to} px, whatever overlaps" if where.slower_to else ""
    decided = where.lower_from and where.faster_from == where.lower_from
    rest = "" if decided else "elsewhere it cannot be decided by floors"
    return "; ".join(filter(None, (f"{what} {can}", surely, slower, rest)))


def floors_table(records: Sequence[Record]) -> Table:
    """Floors of XL/2 on every card, where they cross, and how far above its floor each measured step is."""
    import pandas as pd

    workloads = [
        Workload(spec=spec(model), resolution=px, action=action, dtype=dtype)
        for action, dtype, model, px in itertools.product(ACTIONS, CHOICES["dtype"], MODELS, RESOLUTIONS)
    ]
    found = lines(workloads, map(card, CARDS))
    crossed = {
        (one.card.name, one.workload.spec.name, one.workload.action, one.arithmetic): where
        for one, _, where in crossings(found)
    }
    data = []
    for line in found:
        fields = line.fields()
        where = crossed.get((fields["card"], fields["model"], fields["action"], fields["arithmetic"]))
        px = {"can_be_faster_from_px": where.lower_from, "faster_at_peak_from_px": where.faster_from} if where else {}
        data.append(fields | px)
    above = measured_fields(records)
    blocks = [_floors(found, action) for action in ACTIONS] + [_crossovers(crossed)] + _measured(above)
    frame = pd.DataFrame([*data, *above])
    return Table(
        "floors",
        "Floors: the least time of a step, by card",
        frame,
        blocks,
        [*NOTES, *below(above), *_unknown(records)],
    )


def _floors(found: Iterable[Line], action: str) -> Block:
    """Floors in bfloat16, a line a card and model, a column a resolution."""
    cells: dict[tuple[str, str], list[str]] = {}
    for line in found:
        if (line.workload.action, line.arithmetic) == (action, "bfloat16"):
            cell = f"{shown(1e3 * line.floor.value)} {line.floor.binds}"
            cells.setdefault((line.card.name, line.workload.spec.name), []).append(cell)
    header = ["card", "model", *(f"{px} px" for px in RESOLUTIONS)]
    caption = f"Floor of {ACTIONS[action]} of one image in bfloat16, ms"
    return Block(header, [[*key, *row] for key, row in cells.items()], caption)


def _crossovers(crossed: dict[tuple[str, str, str, str], Crossover]) -> Block:
    """A line a card and DiM, a column an action and arithmetic."""
    columns = list(dict.fromkeys((action, arithmetic) for _, _, action, arithmetic in crossed))
    rows = {(name, model): [name, model] for name, model, _, _ in crossed}
    for (name, model, _, _), where in crossed.items():
        rows[name, model].append(" / ".join(str(px or "–") for px in (where.lower_from, where.faster_from)))
    groups = [
        ("", 2),
        *((action, len(list(several))) for action, several in itertools.groupby(columns, lambda c: c[0])),
    ]
    header = ["card", "model", *(arithmetic for _, arithmetic in columns)]
    caption = f"Resolution (px) from which DiM can be faster than {MODELS[0]} / is faster at peak rates (batch 1)"
    return Block(header, list(rows.values()), caption, groups)


def card_of(device: str, records: Sequence[Record]) -> Card | None:
    """The card behind a device's name, of a CPU by its recorded rates; None where neither is known."""
    if device in DEVICES:
        return card(DEVICES[device])
    return measured_card(records, device) if device.startswith(CPU) else None


def measured_fields(records: Sequence[Record]) -> list[Fields]:
    """Measured steps on devices whose card is known, each beside its floor: the median, the best, and their ratio."""
    rows = []
    for device, answers in measured(records).items():
        known = card_of(device, records)
        for record in answers if known else []:
            workload = workload_of(record)
            if record.verdict != "ok" or workload is None:
                continue
            assert known
            line = Line(workload, known, workload.dtype, floor(workload, known, workload.dtype))
            median = 1e3 * quartiles(record.samples)[1]
            beside = {"device": device, "mixer": columns_of(record.workload)["mixer"], "measured_ms": median}
            beside |= {
                "fastest_ms": 1e3 * min(record.samples),
                "measured_over_floor": median / (1e3 * line.floor.value),
            }
            rows.append({**line.fields(), **beside})
    return rows


def below(rows: Iterable[Fields]) -> list[str]:
    """Which measured steps were faster than their floor, in a sentence each: then a rate or a count is wrong."""
    return [
        f"{row['model']} at {row['resolution']} px on {row['device']} ({row['action']}, {row['arithmetic']}) took "
        f"{row['fastest_ms']:.4g} ms, below its floor of {row['floor_ms']:.4g} ms: a rate or a count is wrong."
        for row in rows
        if row["fastest_ms"] < row["floor_ms"]
    ]


def _measured(rows: Sequence[Fields]) -> list[Block]:
    """A grid a device that was measured: each step's median, its floor, and how many times that it takes."""
    header = ["model", "px", "batch", "run", "measured ms", "floor ms", "ratio", "largest bound"]
    blocks = []
    for device in dict.fromkeys(row["device"] for row in rows):
        cells = []
        for row in (row for row in rows if row["device"] == device):
            run = ", ".join(filter(None, (row["action"], row["arithmetic"], row["mixer"])))
            times = [shown(row["measured_ms"]), shown(row["floor_ms"]), f"{row['measured_over_floor']:.3g}"]
            cells.append([row["model"], str(row["resolution"]), str(row["batch"]), run, *times, row["binds"]])
        blocks.append(Block(header, cells, f"Measured on {device}, and the floor"))
    return blocks


def _unknown(records: Sequence[Record]) -> list[str]:
    """Which measured devices have no rates, in a sentence; none where none has."""
    lacking = [device for device in measured(records) if card_of(device, records) is None]
    known = f"`{COMMAND}` measures those of a CPU."
    return [f"Measured on devices whose peak rates are unknown: {'; '.join(lacking)}. {known}"] if lacking else []


def workload_of(record: LatencyRecord) -> Workload | None:
    """What a record is of; None for what has no floor (joint images) or is of no model that is known here."""
    w = record.workload
    base, _, departures = str(w["model"]).removesuffix(")").partition("(")
    task = {name: w[name] for name in ("channels", "downsample", "num_classes", "frames") if w.get(name)}
    changes = dict(one.split("=") for one in departures.split(",") if one)
    try:
        model: ModelSpec = spec(base, **{**task, **{name: _value(text) for name, text in changes.items()}})
        if w.get("joint_images") or model.name != w["model"]:
            return None
        how: dict[str, Any] = {name: w[name] for name in ("resolution", "batch", "action", "dtype")}
        return Workload(spec=model, **how)
    except ValueError:
        return None


def _value(text: str) -> object:
    """A field of a specification as its name has it."""
    return int(text) if text.isdigit() else {"True": True, "False": False}.get(text, text)


def shown(ms: float) -> str:
    """Milliseconds to three digits."""
    return f"{ms:.3g}" if ms < 1000 else f"{ms:.0f}"
