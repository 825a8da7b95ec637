"""Scores as a terminal shows them: never a number without its protocol."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from harness.core import store
from harness.core.formats import render
from harness.core.records import ScoreRecord

SPREAD = ("standard_error", "low", "high")
VIDEO = ("split", "stride_real", "stride_fake", "real_videos", "offset_seed", "codec", "codec_real", "covariance")


def report(scored: Iterable[list[ScoreRecord]], file: Path, style: str, quiet: bool = False) -> None:
    """Add the scores of each set of samples to a file and print them: tables as they come, CSV or JSON at the end.

    A `quiet` process takes part in scoring alone.
    """
    everything: list[ScoreRecord] = []
    for records in scored:
        if quiet:
            continue
        store.append(file, records)
        everything += records
        if style == "table":
            drawn = [one.workload["source"] for one in records[:1] if one.workload.get("sampling")]
            print(*drawn, show(records, style), sep="\n")
    if everything and style != "table":
        print(show(everything, style))


def show(records: list[ScoreRecord], style: str) -> str:
    """Records as text: in full as CSV or JSON, or as a table under the protocol they follow."""
    if style != "table":
        return render([{**one.row(), "provenance": asdict(one.provenance)} for one in records], style)
    rows = []
    for one in records:
        spread = {name: f"{one.parts[name]:.4g}" if name in one.parts else "-" for name in SPREAD}
        count = one.workload["n_reference"]
        rows.append(
            {
                "metric": one.workload["metric"],
                "quantity": one.quantity,
                "value": f"{one.value:.6g}",
                **spread,
                "samples": one.workload["n_samples"],
                "reference": "-" if count is None else count,
            }
        )
    extra = {"infinite_samples": "at infinite N", "min": "least of the repeats", "one_chunk": "in one chunk"}
    lines = []
    for one in records:
        further = [f"{extra[name]} {value:.6g}" for name, value in one.parts.items() if name in extra]
        notes = "; ".join([*further, one.note]).strip("; ")
        lines.append(f"{one.workload['metric']} {one.quantity}: {notes}")
    protocols = dict.fromkeys(protocol(one) for one in records)
    return "\n".join([*protocols, render(rows, "table"), *lines])


def protocol(one: ScoreRecord) -> str:
    """What two numbers must share to be compared, in one line."""
    about = one.workload
    extractor = about["extractor"]
    assert isinstance(extractor, dict)
    weights = str(extractor["weights_sha256"])[:8]
    parts = [
        f"{extractor['network']} (weights {weights}{'' if extractor['published_weights'] else ', not published'})",
        f"resize {extractor['resize']}",
        f"{extractor['dtype']}, TF32 off",
        f"samples {_short(about['samples_sha256'])}",
    ]
    if about["reference"]:
        parts.append(f"reference {about['reference']} {_short(about['reference_sha256'])}")
    if one.quantity in ("precision", "recall"):
        parts.append(f"distances in {about['arithmetic']}")
    parts += [f"{name} {about[name]}" for name in VIDEO if name in about]
    return "protocol: " + ", ".join(parts)


def _short(digest: object) -> str:
    return " ".join(str(one)[:8] for one in (digest if isinstance(digest, list) else [digest]))
