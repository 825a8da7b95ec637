"""tables, plots, reproduce and bench as commands: quick refusals, places, pipes, full disks, damaged records."""

import dataclasses
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_report import record

from harness import plots, tables
from harness.core import files, paths, store
from harness.suites import Plan, suite

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "numpy", "pandas", "matplotlib", "scipy")
IMPORTED = f"""
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
finally:
    print("imported:", *[name for name in {HEAVY!r} if name in sys.modules])
"""


def start(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen:
    """A command in another folder than the checkout, with a home of its own unless `environment` names one."""
    clean = {name: value for name, value in os.environ.items() if name != paths.VARIABLE}
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv(paths.VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


# ------------------------------------------------------------------------------------------------------ quick refusals


@pytest.mark.parametrize("command", ["tables", "plots", "reproduce", "bench"])
@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (["--help"], 0, "usage: harness."),
        (["--no-such-flag"], 2, "unknown flag --no-such-flag"),
        ({"tables": ["--table", "9"], "plots": ["--figure", "9"], "reproduce": ["--suite", "9"],
          "bench": ["--model", "DiM-B/9"]}, 2, "DiM-B/9"),
        ({"tables": ["--output", __file__], "plots": ["--output", __file__], "reproduce": ["--results", __file__],
          "bench": ["--records", str(ROOT)]}, 2, "cannot write"),
        ({"tables": ["--records", "nowhere"], "plots": ["--records", "nowhere"], "reproduce": ["--card-gib", "-1"],
          "bench": ["--compare", "nowhere", "nowhere"]}, 2, "nowhere"),
    ],
    ids=["help", "flag", "name", "destination", "value"],
)  # fmt: skip
def test_help_and_refusals_import_nothing_that_is_slow_to_import(command, flags, code, text, tmp_path):
    given = flags[command] if isinstance(flags, dict) else flags
    process = start("-c", IMPORTED, f"harness.{command}", *given, cwd=tmp_path)
    out, err = process.communicate()
    assert process.returncode == code, err
    assert out.splitlines()[-1] == "imported:"
    assert any(word in out + err for word in (text, "choose from", "must be at least 1"))
    assert code == 0 or err.count("\n") == 1
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------------------------------- places


def test_what_a_user_runs_is_written_to_output_in_the_working_directory(tmp_path):
    committed = {path: path.stat().st_mtime_ns for path in (ROOT / "results").rglob("*") if path.is_file()}
    process = start("-m", "harness.tables", "--table", "memory", "7", cwd=tmp_path)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.count("written to") == 1
    assert out.splitlines()[-1] == "written to output/tables"
    made = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    kinds = ("csv", "md", "tex")
    assert made == [f"output/tables/{name}.{kind}" for name in ("memory", "table7") for kind in kinds]
    assert all((ROOT / "results" / "tables" / Path(name).name).exists() for name in made)
    assert committed == {path: path.stat().st_mtime_ns for path in (ROOT / "results").rglob("*") if path.is_file()}


BOUNCING = ("bouncing-digits", ["3", "tuning"])


def test_the_committed_tables_of_quality_are_those_that_the_committed_records_make(home):
    tables.main(["--table", "2", "3", "5", "6", "7"])
    for name, several in (("fashion", ["tuning"]), ("clips", ["tuning"]), ("digits", ["2", "7"]), BOUNCING):
        tables.main(["--table", *several, "--suite", name, "--output", str(home / "tables" / name)])
    made = sorted(path for path in (home / "tables").rglob("*.*"))
    assert {path.suffix for path in made} == {".csv", ".md", ".tex"}
    for path in made:
        where = path.relative_to(home / "tables")
        assert path.read_bytes() == (ROOT / "results" / "tables" / where).read_bytes(), where


def test_records_are_the_projects_others_by_name_and_a_users_own_on_request(home, tmp_path, capsys):
    mine = record("DiM-T/2", 5, 3.0, source="mine", metric="fd500@digits", n_samples=500, sampling={"steps": 25})
    store.append(home / "measurements" / "eval.jsonl", [mine])
    of_digits = ["--table", "7", "--suite", "digits"]
    tables.main(of_digits)
    assert "mine" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        tables.main([*of_digits, "--records", str(tmp_path / "nowhere")])
    assert "no records at" in capsys.readouterr().err
    tables.main([*of_digits, "--records", str(home / "measurements")])
    assert "missing" in capsys.readouterr().out, "those of the project are not read"


def test_own_without_records_of_ones_own_is_refused(home, capsys):
    with pytest.raises(SystemExit) as stopped:
        plots.main(["--figure", "guidance", "--own"])
    assert stopped.value.code == 2
    assert f"no records at {home}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("main", "arguments", "complaint"),
    [
        (tables.main, ["--table", "4", "--suite", "digits"], "--suite is of tables of quality"),
        (tables.main, ["--table", "memory", "--include", "x.jsonl"], "--include is of tables of quality"),
        (tables.main, ["--table", "3", "--suite", "digits"], "suite digits has no rows of table 3"),
        (plots.main, ["--figure", "memory", "--suite", "digits"], "--suite is of figures of quality"),
    ],
)
def test_a_flag_that_would_change_nothing_is_refused_by_name(home, capsys, main, arguments, complaint):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert complaint in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ a user's scores


def test_a_users_scores_join_the_table_and_what_does_not_fit_is_named_on_stderr(home, capsys):
    """The documents' own command after one evaluation at other settings: harness.eval --steps 10."""
    stored = next(r for r in store.load() if r.get("model") == "DiM-T/2" and r.get("metric") == "fd500@digits")
    theirs = [
        dataclasses.replace(stored, value=value, workload={**stored.workload, "source": "runs/DiM-T-2",
                            "sampling": {**stored.workload["sampling"], "steps": steps}})
        for value, steps in ((4.5, 25), (9.5, 10))
    ]  # fmt: skip
    store.append(home / "measurements" / "eval.jsonl", theirs)
    assert tables.main(["--suite", "digits", "--table", "2", "--include", "DiM-T/2"]) == 0
    captured = capsys.readouterr()
    assert "runs/DiM-T-2 (DiM-T/2) at 2,000 steps, yours" in " ".join(captured.out.split())
    assert "4.50" in captured.out
    assert "left out: runs/DiM-T-2 (DiM-T/2): sampling.steps is 10, here 25." in captured.out
    assert captured.err.splitlines() == [
        "table2: left out: runs/DiM-T-2 (DiM-T/2): sampling.steps is 10, here 25.",
    ]


# ------------------------------------------------------------------------------------------- pipes, disks and bad lines


def test_a_reader_that_goes_away_does_not_stop_the_tables(tmp_path):
    process = start("-m", "harness.tables", "--table", "2", "3", "7", "memory", "latency", cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "Table 2: quality over training steps, printed and measured\n"
    process.stdout.close()
    assert process.stderr is not None
    assert (process.stderr.read(), process.wait()) == ("", 0)
    made = {path.stem for path in (tmp_path / "output" / "tables").glob("*.tex")}
    assert made == {"table2", "table3", "table7", "memory", "latency"}


def test_a_full_disk_leaves_the_old_file_whole_and_is_named(home, capsys, monkeypatch):
    assert tables.main(["--table", "7"]) == 0
    assert plots.main(["--figure", "guidance"]) == 0
    before = {path: path.read_bytes() for path in sorted(home.rglob("*.*"))}
    capsys.readouterr()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    for main, name in ((tables.main, "table7.csv"), (plots.main, "guidance.svg")):
        arguments = ["--table", "7"] if main is tables.main else ["--figure", "guidance"]
        assert main(arguments) == 1
        assert f"{name}: No space left on device" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in sorted(home.rglob("*.*"))} == before


@pytest.mark.filterwarnings("ignore:.*is not a valid record")
def test_one_bad_line_among_the_records_stops_nothing(home, tmp_path, capsys):
    places = tmp_path / "records"
    places.mkdir()
    for path in (paths.PROJECT / "measurements").glob("*.jsonl"):
        text = path.read_text()
        (places / path.name).write_text('{"quantity": "fd", "value"\n' + text)
    assert tables.main(["--table", "7", "latency", "--records", str(places)]) == 0
    assert (home / "tables" / "table7.md").read_bytes() == (ROOT / "results" / "tables" / "table7.md").read_bytes()
    assert plots.main(["--figure", "guidance", "--records", str(places)]) == 0
    (home / "measurements").mkdir(exist_ok=True)
    (places / "digits.jsonl").rename(home / "measurements" / "digits.jsonl")
    assert Plan(suite=suite("digits")).work() == []
