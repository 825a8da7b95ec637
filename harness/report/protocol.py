"""Under which protocol measured cells stand: told in a line from their records, and refused where it differs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.core.records import ScoreRecord, frozen
from harness.data import EMBEDDED

OF_ALL = ("reference", "reference_sha256", "resolution", "split", "stride_real", "stride_fake", "covariance")
"""Fields of a record that cells of one table share, as they do those of `training`, `sampling` and `extractor`."""
OF_QUANTITY = ("metric", "n_samples", "n_reference", "arithmetic", "permute_seed")
"""Fields that cells of one column share."""
FREE = {"training.model", "training.depth", "training.seed", "sampling.seed"}
"""What rows and seeds are."""
VARIES = {2: {"step"}, 3: {"training.joint_images"}, 7: {"sampling.cfg_scale"}}
"""By table, what its rows vary."""


def fields(record: ScoreRecord) -> dict[str, Any]:
    """What a record's protocol consists of, flat; what is absent is None."""
    flat: dict[str, Any] = {name: frozen(record.get(name)) for name in OF_ALL}
    if flat["reference"] is None:  # an Inception Score needs none
        del flat["reference"], flat["reference_sha256"]
    flat |= {f"{name} of {record.quantity}": frozen(record.get(name)) for name in OF_QUANTITY}
    flat["step"] = record.get("step")
    for group in ("training", "sampling", "extractor"):
        flat |= {f"{group}.{name}": frozen(value) for name, value in (record.get(group) or {}).items()}
    return {name: value for name, value in flat.items() if name not in FREE}


def check(
    table: int, records: Iterable[tuple[str, ScoreRecord]], own: Iterable[tuple[str, ScoreRecord]] = ()
) -> dict[str, Any]:
    """The values of each field of the protocol over all labelled records; more than one only of what rows vary.

    `own` are of a user's checkpoints: how those were trained is not asked, how they are scored is. Raises ValueError
    naming the field, two rows and their values where the records differ in anything else.
    """
    values: dict[str, list[Any]] = {}
    first: dict[str, str] = {}
    labelled = [(label, record, False) for label, record in records] + [(label, record, True) for label, record in own]
    for label, record, is_own in labelled:
        for name, value in fields(record).items():
            if is_own and (name == "step" or name.startswith("training.")):
                continue
            known = values.setdefault(name, [value])
            where = first.setdefault(name, label)
            if value in known:
                continue
            if name not in VARIES.get(table, ()):
                raise ValueError(
                    f"table {table}: {where} and {label} differ in {name}: {known[0]!r} and {value!r}; "
                    "cells of one table follow one protocol"
                )
            known.append(value)
    return values


def words(values: dict[str, Any], seeds: Iterable[int]) -> str:
    """The protocol of `check` as a line: features, samples, reference, sampling, training, seeds."""

    def one(name: str) -> Any:
        several = values.get(name, [None])
        return several[0] if len(several) == 1 else None

    parts = []
    if one("resolution"):
        clips = f", {one('training.frames')} frames a clip" if one("training.frames") else ""
        parts.append(f"{one('resolution')} pixels a side{clips}")
    if one("extractor.network"):
        published = "" if one("extractor.published_weights") else ", not published"
        parts.append(f"{one('extractor.network')} (weights {str(one('extractor.weights_sha256'))[:8]}{published})")
    metrics = {name.partition(" of ")[2]: one(name) for name in values if name.startswith("metric of ")}
    samples = {metric: one(f"n_samples of {quantity}") for quantity, metric in metrics.items()}
    parts.append(", ".join(f"{metric}: {count:,} samples" for metric, count in samples.items() if count))
    if one("reference"):
        counts = {one(name) for name in values if name.startswith("n_reference of ")} - {None}
        size = f", {max(counts):,} items" if counts else ""
        parts.append(f"reference {one('reference')} ({str(one('reference_sha256'))[:8]}{size})")
    if one("sampling.steps"):
        scale = one("sampling.cfg_scale")
        guidance = "guidance as in the rows" if scale is None else f"guidance {scale}"
        guided = 1 if one("training.dataset") in EMBEDDED else one("sampling.cfg_channels")  # embedded data has no more
        channels = "1 channel" if guided == 1 else f"{guided} channels"
        parts.append(f"{one('sampling.steps')} {one('sampling.sampler')} steps, {guidance} on {channels}")
        parts.append(f"{one('sampling.weights')} weights, {one('sampling.precision')}")
    if one("training.batch"):
        step = one("step")
        steps = "steps as in the rows" if step is None else f"{step:,} steps"
        parts.append(f"trained for {steps} at batch {one('training.batch')}, rate {one('training.learning_rate')}")
        parts.append(f"EMA {one('training.ema_decay')}")
    known = sorted(set(seeds))
    parts.append(f"training seeds {', '.join(map(str, known))}" if known else "")
    return "; ".join(part for part in parts if part) + "."
