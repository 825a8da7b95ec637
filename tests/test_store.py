"""The results store loses nothing: not to a second writer, not to a writer killed in mid-line."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from harness.core import paths, store
from harness.core.provenance import Provenance
from harness.core.records import CostRecord


def measurement(value: float = 1.0, **fields) -> CostRecord:
    defaults = {
        "quantity": "cost",
        "unit": "MAC",
        "method": "by hand",
        "workload": {"model": "DiT-N/2", "resolution": 64},
    }
    return CostRecord(value=value, provenance=Provenance.here(), **(defaults | fields))


def test_what_is_appended_is_loaded(tmp_path):
    path = tmp_path / "deep" / "records.jsonl"
    written = [measurement(1.5, parts={"linear": 1.0}), measurement(None, verdict="oom", note="too large")]
    assert store.append(path, written) == 2
    assert store.load(path) == written
    frame = store.frame(store.load(path))
    assert frame["value"].tolist()[0] == 1.5
    assert frame["verdict"].tolist() == ["ok", "oom"]
    assert frame["model"].tolist() == ["DiT-N/2"] * 2
    assert frame["parts"][0] == {"linear": 1.0}
    assert frame.equals(store.frame(written))


def test_a_torn_last_line_costs_only_itself(tmp_path):
    path = tmp_path / "records.jsonl"
    store.append(path, [measurement(1.0), measurement(2.0)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])  # killed while writing the second
    with pytest.warns(UserWarning, match=r"records\.jsonl:2 is not a valid record"):
        assert [record.row()["value"] for record in store.load(path)] == [1.0]
    store.append(path, [measurement(3.0)])
    with pytest.warns(UserWarning, match="not a valid record"):
        assert [record.row()["value"] for record in store.load(path)] == [1.0, 3.0]


def test_a_claim_that_is_known_is_not_repeated(tmp_path):
    path = tmp_path / "records.jsonl"
    first = measurement(1.0)
    later = dataclasses.replace(
        first, provenance=dataclasses.replace(first.provenance, time="2001-01-01", commit="abc")
    )
    other_tool = dataclasses.replace(first, provenance=dataclasses.replace(first.provenance, versions={"torch": "9"}))
    assert store.append(path, [first], repeat=False) == 1
    assert store.append(path, [later, measurement(2.0), other_tool], repeat=False) == 2
    assert store.append(path, [later]) == 1


WRITER = """
    import sys
    from pathlib import Path
    from harness.core.provenance import Provenance
    from harness.core.records import CostRecord
    from harness.core.store import append
    path, name = Path(sys.argv[1]), sys.argv[2]
    here = Provenance.here()
    for i in range(int(sys.argv[3])):
        record = CostRecord(quantity="cost", value=i, unit="MAC", method=name * 2000, workload={}, provenance=here)
        append(path, [record])
"""


def writer(path, name, n):
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), name, str(n)]
    return subprocess.Popen(command, cwd=paths.CHECKOUT)


def test_two_writers_at_once_lose_nothing(tmp_path):
    path = tmp_path / "records.jsonl"
    processes = [writer(path, name, 40) for name in "ab"]
    assert [p.wait() for p in processes] == [0, 0]
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for name in "ab":
        assert [r["value"] for r in records if r["method"][0] == name] == list(range(40))


def test_a_writer_killed_at_any_moment_leaves_whole_records(tmp_path):
    path = tmp_path / "records.jsonl"
    process = writer(path, "a", 100_000)
    while not path.exists() or path.stat().st_size < 50_000:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    store.append(path, [measurement(-1.0)])
    values = [json.loads(line)["value"] for line in path.read_text().splitlines() if line.endswith("}")]
    assert values[:-1] == list(range(len(values) - 1))
    assert values[-1] == -1.0


def test_an_unknown_verdict_is_refused():
    with pytest.raises(ValueError, match="choose from ok, oom"):
        measurement(verdict="fine")


def test_provenance_names_commit_versions_and_command():
    here = Provenance.here()
    assert here.commit is None or len(here.commit) == 12
    assert {"torch", "thop", "fvcore"} <= set(here.versions)
    assert here.command.startswith("python")
    assert str(paths.CHECKOUT) not in json.dumps(dataclasses.asdict(here))
