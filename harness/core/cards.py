"""Cards: what a device can do in a second, from vendors' data sheets or, of a CPU, from rates measured on it.

The data sheets' figures are in results/published/cards.csv, each with its source. Peaks of tensor cores are those of
dense matrices, never those with sparsity.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from harness.core.paths import PROJECT
from harness.core.records import RateRecord, Record, of_kind

TABLE = PROJECT / "published" / "cards.csv"
ARITHMETICS = ("float32", "tf32", "bfloat16")
"""What matrix products are computed in. float32: by FP32 units, which is what torch does unless it is permitted more.
tf32: float32 tensors on tensor cores, which round the factors to ten bits of mantissa. bfloat16: on tensor cores."""

DEVICES = {
    "NVIDIA H100 80GB HBM3": "H100",
    "NVIDIA H200": "H200",
    "NVIDIA A100-SXM4-80GB": "A100",
    "NVIDIA L4": "L4",
    "NVIDIA GeForce RTX 4090": "RTX4090",
}
"""Cards by what nvidia-smi and torch call them: of H100, H200 and A100 the SXM boards."""

SAME_PEAKS = {
    "NVIDIA A100-SXM4-40GB": "A100",
    "NVIDIA A100-PCIE-40GB": "A100",
    "NVIDIA A100 80GB PCIe": "A100",
}
"""Boards with the peaks of a card and another memory."""

CPU = "cpu"


@dataclass(frozen=True, kw_only=True)
class Card:
    """The rates of a device.

    `flop_per_s`: of dense matrix products (two a multiply-add), by arithmetic. `fp32_macs_per_s`: multiply-adds of its
    FP32 units. `exponentials_per_s`: 2^x, and functions of its kind. `bytes_per_s`: from or to its memory.
    `on_chip_bytes`: the size of all memory nearer than that.
    """

    name: str
    flop_per_s: Mapping[str, float]
    fp32_macs_per_s: float
    exponentials_per_s: float
    bytes_per_s: float
    on_chip_bytes: int


def card(name: str) -> Card:
    """A card of the data sheets. Raises ValueError with the choices.

    The special-function units share the clock of the FP32 units, so that their rate follows from the FP32 peak: half of
    it are multiply-adds, and for every `fp32_per_clock` of those there are `exp2_per_clock` results.
    """
    if name not in figures():
        raise ValueError(f"unknown card {name!r}; choose from {', '.join(figures())}")
    sheet = figures()[name]
    macs = 1e12 * sheet["float32"] / 2
    per_sm = sheet["sm_l1"] + sheet["sm_registers"]
    return Card(
        name=name,
        flop_per_s={arithmetic: 1e12 * sheet[arithmetic] for arithmetic in ARITHMETICS},
        fp32_macs_per_s=macs,
        exponentials_per_s=macs * sheet["exp2_per_clock"] / sheet["fp32_per_clock"],
        bytes_per_s=1e9 * sheet["bandwidth"],
        on_chip_bytes=int(1024 * (sheet["l2"] + sheet["sms"] * per_sm)),
    )


def measured_card(records: Iterable[Record], device: str) -> Card | None:
    """A CPU by the best rates that were ever measured on it; None where one is missing.

    Its products and its other arithmetic run on the same units. bfloat16 may be computed in float32.
    """
    best: dict[str, float] = {}
    for record in of_kind(records, RateRecord):
        if record.workload["device"] == device and record.value is not None:
            of = record.workload["of"]
            best[of] = max(record.value, best.get(of, 0))
    if not {"float32", "exponentials", "memory", "on-chip memory"} <= set(best):
        return None
    return Card(
        name=CPU,
        flop_per_s={"float32": best["float32"], "bfloat16": max(best["float32"], best.get("bfloat16", 0))},
        fp32_macs_per_s=best["float32"] / 2,
        exponentials_per_s=best["exponentials"],
        bytes_per_s=best["memory"],
        on_chip_bytes=int(best["on-chip memory"]),
    )


def peak_flops(device_name: str, arithmetic: str) -> float | None:
    """Floating-point operations a second of dense matrix products, by the name that torch and nvidia-smi give a device.

    None where no data sheet is at hand. Raises ValueError, with the choices, for an unknown arithmetic.
    """
    if arithmetic not in ARITHMETICS:
        raise ValueError(f"unknown arithmetic {arithmetic!r}; choose from {', '.join(ARITHMETICS)}")
    name = card_of(device_name)
    return card(name).flop_per_s[arithmetic] if name else None


def card_of(device_name: str) -> str | None:
    """The card of the data sheets behind the name that torch and nvidia-smi give a device; None where there is none."""
    return {**DEVICES, **SAME_PEAKS}.get(device_name)


@cache
def sheets() -> tuple[dict[str, str], ...]:
    """The rows of the data sheets' table: card, figure, value, unit, source, where in it, its address."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


@cache
def figures() -> dict[str, dict[str, float]]:
    """The figures of each card by name, in the units of the table."""
    found: dict[str, dict[str, float]] = {}
    for row in sheets():
        found.setdefault(row["card"], {})[row["figure"]] = float(row["value"])
    return found
