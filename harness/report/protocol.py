"""Under which protocol measured cells stand: stated in a line, from their records, and refused where it differs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from harness.core.paper import NEWER, NEWER_OF_CLIPS, TableSpec
from harness.core.records import ScoreRecord, frozen
from harness.report.cells import offered

if TYPE_CHECKING:
    from harness.suites.rows import Suite

OF_ALL = (
    "reference", "reference_sha256", "resolution", "split", "stride_real", "stride_fake", "real_videos", "covariance",
)  # fmt: skip
"""Fields of a record that cells of one table share, as they do those of `training`, `sampling` and `extractor`."""
OF_QUANTITY = ("metric", "n_samples", "n_reference", "arithmetic", "permute_seed")
"""Fields that cells of one column share."""
CHOSEN = "as chosen for each family"
FREE = {"training.model", "training.depth", "training.seed", "sampling.seed"}
"""What rows and seeds are."""

Values = dict[str, list[Any]]
"""The values of each field of a protocol; more than one only of what rows vary."""


def fields(record: ScoreRecord) -> dict[str, Any]:
    """What a record's protocol consists of, flat; what is absent is None."""
    flat: dict[str, Any] = {name: frozen(record.get(name)) for name in OF_ALL}
    if flat["reference"] is None:  # an Inception Score needs none
        del flat["reference"], flat["reference_sha256"]
    flat |= {f"{name} of {record.quantity}": frozen(record.get(name)) for name in OF_QUANTITY}
    flat["step"] = record.get("step")
    for group in ("training", "sampling"):
        flat |= {f"{group}.{name}": frozen(value) for name, value in (record.get(group) or {}).items()}
    own = record.quantity if record.quantity in (*NEWER, *NEWER_OF_CLIPS) else ""  # its features are no other's
    space = str(record.get("metric")).partition("@")[2] or own
    features = f" of {space}" if space else ""
    flat |= {f"extractor.{name}{features}": frozen(value) for name, value in (record.get("extractor") or {}).items()}
    return {name: value for name, value in flat.items() if name not in FREE}


def common(
    table: TableSpec, records: Iterable[tuple[str, ScoreRecord]], free: Collection[str] = frozenset()
) -> Values:
    """The protocol of labelled records; fields that are `free` are each record's own.

    Raises ValueError naming the field, two rows and their values where they differ in anything that rows do not vary.
    """
    values: Values = {}
    first: dict[str, str] = {}
    for label, record in records:
        for name, value in fields(record).items():
            if name in free:
                continue
            known = values.setdefault(name, [value])
            where = first.setdefault(name, label)
            if value in known:
                continue
            if name not in table.varies:
                raise ValueError(
                    f"{table.part}: {where} and {label} differ in {name}: {known[0]!r} and {value!r}; "
                    "cells of one table follow one protocol"
                )
            known.append(value)
    return values


def requested(table: TableSpec, suite: Suite) -> Values:
    """What a suite's scores fix of the protocol before anything is measured: metrics, and how samples are drawn."""
    values: Values = {}
    for row in suite.rows:
        for score in row.scores if row.part == table.part else ():
            stated = {f"sampling.{name}": value for name, value in score.sampling.items()}
            stated |= {f"metric of {q}": metric for metric in score.metrics for q in sorted(offered([metric]))}
            for name, value in stated.items():
                if name not in FREE and value not in values.setdefault(name, []):
                    values[name].append(value)
    return values


def difference(table: TableSpec, record: ScoreRecord, shared: Values) -> str:
    """How a user's record departs from the protocol of a table, in words; empty where it does not.

    How its weights were trained is free, how they are scored is not.
    """
    scored = [name.removeprefix("metric of ") for name in shared if name.startswith("metric of ")]
    if scored and record.quantity not in (*scored, *table.beside):
        return f"{record.quantity} is not measured here, but {', '.join(sorted(scored))}"
    unlike = {
        name: value
        for name, value in _scoring(record).items()
        if name not in table.varies and name in shared and value not in shared[name]
    }
    return ", ".join(f"{name} is {value!r}, here {shared[name][0]!r}" for name, value in unlike.items())


def join(table: TableSpec, record: ScoreRecord, shared: Values) -> None:
    """Add the fields of a user's record that fits to those that a table's rows share."""
    for name, value in _scoring(record).items():
        known = shared.setdefault(name, [value])
        if value not in known and name in table.varies:
            known.append(value)


def _scoring(record: ScoreRecord) -> dict[str, Any]:
    """The fields of a record's protocol but those of the training."""
    return {n: value for n, value in fields(record).items() if n != "step" and not n.startswith("training.")}


def words(values: Values, seeds: Iterable[int]) -> str:
    """A protocol as a line: features, samples, reference, sampling, training, seeds."""

    from harness.data import NAMED

    def one(name: str) -> Any:
        several = values.get(name, [None])
        return several[0] if len(several) == 1 else None

    parts = []
    if one("resolution"):
        clips = f", {one('training.frames')} frames a clip" if one("training.frames") else ""
        parts.append(f"{one('resolution')} pixels a side{clips}")
    for name in values:
        if name.startswith("extractor.network"):
            features = name.removeprefix("extractor.network")
            published = "" if one(f"extractor.published_weights{features}") else ", not published"
            digest = str(one(f"extractor.weights_sha256{features}"))[:8]
            parts.append(f"{one(name)} (weights {digest}{published})")
    metrics = {name.partition(" of ")[2]: one(name) for name in values if name.startswith("metric of ")}
    samples = {metric: one(f"n_samples of {quantity}") for quantity, metric in metrics.items()}
    parts.append(", ".join(f"{metric}: {count:,} samples" for metric, count in samples.items() if count))
    if one("reference"):
        counts = {one(name) for name in values if name.startswith("n_reference of ")} - {None}
        size = f", {max(counts):,} items" if counts else ""
        parts.append(f"reference {one('reference')} ({str(one('reference_sha256'))[:8]}{size})")
    if one("stride_real"):
        chosen = f", {one('real_videos')} videos" if one("real_videos") else ""
        parts.append(f"real clips of stride {one('stride_real')}{chosen}, generated ones of {one('stride_fake')}")
    if one("sampling.steps"):
        scale = one("sampling.cfg_scale")
        guidance = "guidance as in the rows" if scale is None else f"guidance {scale}"
        guided = 1 if one("training.dataset") in NAMED else one("sampling.cfg_channels")  # data by name have no more
        channels = "1 channel" if guided == 1 else f"{guided} channels"
        parts.append(f"{one('sampling.steps')} {one('sampling.sampler')} steps, {guidance} on {channels}")
        parts.append(f"{one('sampling.weights')} weights, {one('sampling.precision')}")
    if one("training.batch"):
        step = one("step")
        steps = "steps as in the rows" if step is None else f"{step:,} steps"
        trained = f"trained for {steps} at batch {one('training.batch')}"
        rate, decay = (one(f"training.{name}") for name in ("learning_rate", "ema_decay"))
        parts.append(f"{trained}, learning rate {rate or CHOSEN}")
        parts.append(f"EMA {decay or CHOSEN}")
    known = sorted(set(seeds))
    parts.append(f"training seeds {', '.join(map(str, known))}" if known else "")
    return "; ".join(part for part in parts if part) + "."
