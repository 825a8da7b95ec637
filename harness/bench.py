"""`python -m harness.bench`: memory, OOM, latency and throughput, predicted without a GPU and measured on one.

    python -m harness.bench --predict --res 256 512 1024 2048 --device-memory 24GiB 40GiB 80GiB 141GiB
    python -m harness.bench --preset gpu-sweep
    python -m harness.bench --compare before.jsonl after.jsonl

A prediction runs the real model on fake tensors. A measurement runs each workload in a process of its own; an OOM is a
row, a failure is a row, and the same command continues where it was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import re
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from harness import report
from harness.core import paths, store
from harness.core.command import Parser, add_model_flags, positive, sweep, writable
from harness.core.provenance import Provenance
from harness.core.records import LatencyRecord, MemoryRecord, Record, of_kind
from harness.core.workload import CHOICES, PRESETS, Workload, runs
from harness.cost import equal_macs_depth, rivals
from models.families import FAMILIES, implementations

MODELS = ["DiT-XL/2", "DiM-XL/2"]
RESOLUTIONS = [256, 512, 1024, 2048]
CARDS = ["24GiB", "40GiB", "80GiB", "141GiB"]
PREDICTIONS = paths.measurements() / "memory.jsonl"
RECORDS = paths.measurements() / "bench.jsonl"


def main(argv: list[str] | None = None) -> None:
    """Predict, measure or compare."""
    parser = _parser()
    chosen, _ = parser.parse_known_args(argv)
    if chosen.preset:
        parser.set_defaults(**PRESETS[chosen.preset])
    args = parser.parse_args(argv)
    try:
        if args.compare:
            text = _compare(*args.compare)
        else:
            workloads = _workloads(args)
            text = _predict(args, workloads) if args.predict else _measure(args, workloads)
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"cannot use {error.filename}: {error.strerror}")
    print(text)


def _parser() -> Parser:
    parser = Parser(prog="harness.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_flags(parser, MODELS, RESOLUTIONS)
    parser.add_argument("--action", nargs="+", choices=CHOICES["action"], default=["forward"])
    parser.add_argument("--dtype", nargs="+", choices=CHOICES["dtype"], default=["float32"])
    for field, ways in implementations().items():
        names = [family.name for family in FAMILIES if family.implementations is ways]
        how = f"of {', '.join(names)} (default: {' '.join(ways.usual)})"
        parser.add_argument(f"--{field}", nargs="+", default=list(ways.usual), metavar="BACKEND", help=how)
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations in the backward pass")
    parser.add_argument("--equal-macs", action="store_true", help="add a DiM of DiT's multiply-adds at each resolution")
    parser.add_argument("--preset", choices=list(PRESETS), help="defaults for the flags not given")
    parser.add_argument("--format", choices=report.FORMATS, default="table")
    parser.add_argument("--records", type=writable, metavar="FILE", help="default: in results/measurements")
    prediction = parser.add_argument_group("prediction")
    prediction.add_argument("--predict", action="store_true", help="predict peak memory; run nothing")
    prediction.add_argument(
        "--device-memory", nargs="+", type=_bytes, default=[_bytes(c) for c in CARDS], metavar="SIZE"
    )
    measurement = parser.add_argument_group("measurement")
    measurement.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    measurement.add_argument("--rounds", type=positive, default=10, help="timed steps (default 10)")
    measurement.add_argument("--warmup", type=positive, default=3, help="steps before them (default 3)")
    measurement.add_argument(
        "--steps", type=positive, default=250, help="denoising steps of a full sample (default 250)"
    )
    measurement.add_argument(
        "--timeout", type=positive, default=600, metavar="S", help="for each workload (default 600)"
    )
    measurement.add_argument("--memory-limit", type=_bytes, metavar="SIZE", help="of each process, on a CPU")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="what changed from records A to B")
    return parser


def _bytes(text: str) -> int:
    """argparse type: `80GiB`, `512MiB`, `24GB` or bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(GiB|MiB|GB|MB|)", text)
    if not match or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 80GiB, 24GB or 512MiB")
    unit = {"GiB": 2**30, "MiB": 2**20, "GB": 10**9, "MB": 10**6, "": 1}[match[2]]
    return int(float(match[1]) * unit)


def _workloads(args: argparse.Namespace) -> list[Workload]:
    """The sweep, in order of models and resolutions, each in the implementations of its family's mixer."""
    chosen = {field: getattr(args, field) for field in implementations()}
    for field, ways in implementations().items():
        for name in chosen[field]:
            ways.check(name)
    base = sweep(args)
    if args.equal_macs:
        base += [_of_equal_macs(one, other) for one, other in itertools.product(base, base) if _rivals(one, other)]
    return runs(base, args.action, args.dtype, chosen, args.checkpointing)


def _rivals(one: Workload, other: Workload) -> bool:
    return rivals(one.spec, other.spec) and one.resolution == other.resolution and not one.spec.variant


def _of_equal_macs(one: Workload, other: Workload) -> Workload:
    depth = equal_macs_depth(one.spec, other.spec, one.resolution)
    return dataclasses.replace(one, spec=dataclasses.replace(one.spec, depth=depth))


def _predict(args: argparse.Namespace, workloads: list[Workload]) -> str:
    """Peaks, what they consist of, the verdict for each card, and the tensor that breaks its budget."""
    from harness.cost.memory import largest_batches, predict

    rows, records = [], []
    for w in tqdm(workloads, desc="predicting", unit="workload", disable=None, leave=False):
        peak = predict(w)
        row = _label(w) | {"peak GiB": peak.nbytes / 2**30}
        row |= {k: n / 2**30 for k, n in peak.parts.items() if n or args.format != "table"}
        for card, batch in zip(args.device_memory, largest_batches(w, args.device_memory), strict=True):
            broken = peak.breaks(card)
            name = f"{card / 2**30:.4g} GiB"
            row[name] = f"{'OOM' if broken else 'fits'} (batch <= {batch})" if batch else "OOM (no batch)"
            if broken:
                row["broken by"] = f"{name}: {broken}"  # of the largest card that does not suffice
        rows.append(row)
        records.append(
            MemoryRecord(
                quantity="peak_memory", value=peak.nbytes, unit="byte", verdict="estimated",
                method="allocations of the real model on fake tensors", workload=w.settings(),
                parts={k: float(n) for k, n in peak.parts.items()}, note=f"largest activation: {peak.largest}",
                provenance=Provenance.here("none"),
            )
        )  # fmt: skip
    store.append(args.records or PREDICTIONS, records, repeat=False)
    return report.render(pd.DataFrame(rows), args.format)


def _label(w: Workload) -> report.Row:
    """A workload in a few columns."""
    how = [w.action, w.dtype, w.mixer, "checkpointing" if w.checkpointing else ""]
    return {"model": w.spec.name, "px": w.resolution, "batch": w.batch, "run": ", ".join(filter(None, how))}


def _measure(args: argparse.Namespace, workloads: list[Workload]) -> str:
    """Measure what is not yet among the records of this device and these settings; show all."""
    from harness.cost import clock

    path = args.records or RECORDS
    device = clock.device_name(args.device)
    settings = {"device": device, "rounds": args.rounds, "warmup": args.warmup}
    known = store.load(path) if path.exists() else []
    todo = [w for w in workloads if not _answers(known, w, settings)]
    try:
        for w in tqdm(todo, desc="measuring", unit="workload", disable=None):
            found = clock.measure(w, args.device, args.rounds, args.warmup, args.timeout, args.memory_limit)
            store.append(path, [clock.record(w, found, settings)])
    except KeyboardInterrupt:
        print(f"stopped: what is measured is in {path}, and the same command continues")
    records = store.load(path) if path.exists() else []
    latest = [_answers(records, w, settings)[-1:] for w in workloads]
    rows = [_shown(w, found[0], args.steps) for w, found in zip(workloads, latest, strict=True) if found]
    return f"{device}\n\n{report.render(pd.DataFrame(rows), args.format)}"


def _answers(records: list[Record], w: Workload, settings: report.Row) -> list[LatencyRecord]:
    """The records of this workload, on this device, with these settings; an error is no answer."""
    question = {**w.settings(), **settings}
    return [
        record
        for record in of_kind(records, LatencyRecord)
        if record.verdict != "error"
        and record.answers(question)
        and all(record.get(name) == question[name] for name in record.PROTOCOL)
    ]


def _shown(w: Workload, record: LatencyRecord, steps: int) -> report.Row:
    """A measured workload in a row: median and spread, throughput, achieved FLOP/s, memory beside its prediction."""
    row = _label(w) | {"verdict": record.verdict}
    parts = record.parts
    if record.verdict != "ok":
        return row | {"note": record.note}
    quarter, median, three_quarters = pd.Series(record.samples).quantile([0.25, 0.5, 0.75])
    row |= {"ms": 1e3 * median, "IQR ms": 1e3 * (three_quarters - quarter)}
    row[f"{w.unit}s/s"] = w.batch / median
    if w.action == "sample":
        row["full samples/s"] = w.batch / (steps * median)
    row |= {"TFLOP/s": parts["flops"] / median / 1e12, "peak GiB": parts["peak_bytes"] / 2**30}
    row["predicted GiB"] = parts["predicted_bytes"] / 2**30
    if "joules" in parts:
        row[f"J/{w.unit}"] = parts["joules"] / w.batch
    return row


def _compare(before: Path, after: Path) -> str:
    """What changed between two files of records, beyond the noise."""
    from harness.cost.compare import compare

    for path in (before, after):
        if not path.is_file():
            raise ValueError(f"no records at {path}")
    return report.render(pd.DataFrame(compare(store.load(before), store.load(after))), "table")


if __name__ == "__main__":
    main()
