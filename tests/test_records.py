"""Records: each kind knows which fields make the question, and nothing else decides what replaces what."""

import dataclasses
import json
import os
import warnings
import zlib

import pytest

from harness.core import store
from harness.core.provenance import Provenance
from harness.core.records import CostRecord, LatencyRecord, ScoreRecord, latest, of_kind, require_same
from harness.core.workload import Workload
from harness.report.cost import costs, table
from models import spec

HERE = Provenance.here("none")


def cost(value: float, model: str = "DiT-S/4", **fields) -> CostRecord:
    workload = {**Workload(spec=spec(model), resolution=256).key(), "convention": "exact"} | fields
    return CostRecord(quantity="cost", value=value, unit="MAC", method="", workload=workload, provenance=HERE)


def test_a_batch_of_another_size_is_another_question():
    one, eight = cost(1.41e9), cost(11.3e9, batch=8)
    assert one.key() != eight.key()
    assert len(latest([one, eight])) == 2
    rows = costs([one, eight])
    assert [(row.get("batch"), row["exact_gmacs"]) for row in rows] == [(None, 1.41), (8, 11.3)]


def test_a_users_batch_does_not_change_the_papers_tables():
    project = of_kind(store.load(), CostRecord)
    printed = table(6, project)
    theirs = [dataclasses.replace(one, value=8 * one.value, workload={**one.workload, "batch": 8})
              for one in project if one.quantity == "cost"]  # fmt: skip
    assert table(6, [*project, *theirs]).equals(printed)


def test_what_a_record_does_not_state_is_its_default():
    assert cost(1.0).key() == cost(1.0, frames=0, joint_images=0).key()
    assert cost(1.0).key() != cost(1.0, frames=16).key()
    usual = Workload(spec=spec("DiT-S/4"), resolution=256, dtype="bfloat16")
    stored = dataclasses.replace(usual, weights="bfloat16")
    assert "weights" not in usual.settings()
    assert LatencyRecord.key_of("latency", usual.settings()) != LatencyRecord.key_of("latency", stored.settings())


def test_one_model_for_another_task_is_another_question():
    digits = Workload(spec=spec("DiT-S/4", channels=1, downsample=1, num_classes=10), resolution=256)
    assert digits.key() == {**Workload(spec=spec("DiT-S/4"), resolution=256).key(), "channels": 1, "downsample": 1,
                            "num_classes": 10}  # fmt: skip
    assert cost(1.0).key() != cost(1.0, channels=1).key()


def test_a_later_answer_to_the_same_question_counts():
    assert [one.value for one in latest([cost(1.0), cost(2.0), cost(3.0, model="DiM-S/4")]).values()] == [2.0, 3.0]


def test_unlike_records_are_not_compared():
    with pytest.raises(ValueError, match="batch is 1 in one and 8 in the other"):
        require_same(cost(1.0), cost(2.0, batch=8))


def test_a_score_is_known_by_its_training_wherever_the_file_lies():
    def score(source: str, **fields) -> ScoreRecord:
        workload = {"metric": "fd1k@digits", "model": "DiT-N/2", "source": source, "step": 4, **fields}
        return ScoreRecord(quantity="fd", value=1.0, unit="1", method="", workload=workload, provenance=HERE)

    training = {"model": "DiT-N/2", "seed": 0, "batch": 16}
    assert score("a", training=training).key() == score("b", training=training).key()
    assert score("a", training=training).key() != score("a", training={**training, "seed": 1}).key()
    assert score("a").key() != score("b").key()


BAD = {
    "another schema": {"schema": 99},
    "no quantity": {"quantity": None},
    "a value that is text": {"value": "1.41"},
    "a question that is a list": {"workload": []},
    "an unknown verdict": {"verdict": "fine"},
    "an unknown field": {"colour": "red"},
    "provenance without a time": {"provenance": {"commit": None}},
    "parts that are a number": {"parts": 3},
}


def sealed(fields):
    """A line with the checksum that belongs to it."""
    text = json.dumps(fields)
    return f'{text[:-1]}, "crc32": "{zlib.crc32(text.encode()):08x}"}}'


def test_a_line_without_a_checksum_is_named_and_skipped(tmp_path):
    path = tmp_path / "records.jsonl"
    store.append(path, [cost(1.0)])
    fields = json.loads(path.read_text())
    del fields["crc32"]
    path.write_text(json.dumps(fields) + "\n" + sealed(fields) + "\n")
    with pytest.warns(UserWarning, match=r"records.jsonl:1 is not a valid record \(it has no checksum\); skipped"):
        assert [one.value for one in store.load(path)] == [1.0]


@pytest.mark.parametrize("name", BAD)
def test_a_line_that_is_no_valid_record_is_named_and_skipped(tmp_path, name):
    path = tmp_path / "records.jsonl"
    store.append(path, [cost(1.0)])
    good = path.read_text()
    bad = {**json.loads(good), **BAD[name]}
    del bad["crc32"]
    path.write_text(sealed(bad) + "\n" + "[" * 100_000 + "\n" + '"text"\n' + good)
    with pytest.warns(UserWarning, match="skipped") as caught:
        assert [one.value for one in store.load(path)] == [1.0]
    assert [f"records.jsonl:{number} " in str(one.message) for number, one in zip((1, 2, 3), caught, strict=True)]


@pytest.mark.slow
def test_no_flipped_bit_changes_a_number(tmp_path):
    path = tmp_path / "records.jsonl"
    store.append(path, [cost(1.41e9)])
    whole = path.read_bytes()
    for place in range(len(whole) - 1):
        for bit in (0, 1, 4):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = store.load(path)
            assert found in ([], [cost(1.41e9)]), damaged


def test_no_file_holds_a_number_that_is_not_finite(tmp_path):
    path = tmp_path / "records.jsonl"
    store.append(path, [cost(1.0)])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.append(path, [cost(2.0), cost(float("nan"))])
    assert path.read_bytes() == before


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "records.jsonl"
    store.append(path, [cost(1.0)])
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as failure:
        store.append(path, [cost(2.0)])
    assert failure.value.filename == str(path)
    assert path.read_bytes() == before


def test_a_disk_that_fills_up_in_mid_line_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path, write = tmp_path / "records.jsonl", os.write
    store.append(path, [cost(1.0)])
    before = path.read_bytes()

    def half(descriptor: int, text: bytes) -> int:
        if len(text) < 100:
            raise OSError(28, "No space left on device")
        return write(descriptor, bytes(text)[: len(text) // 2])

    monkeypatch.setattr(store.os, "write", half)
    with pytest.raises(OSError, match="No space left"):
        store.append(path, [cost(2.0)])
    assert path.read_bytes() == before


def test_kinds_follow_from_the_quantity():
    kinds = {type(record) for record in store.load()}
    assert CostRecord in kinds
    assert ScoreRecord in kinds
    assert LatencyRecord.KEY[-1] == "device"
