"""The page: made of the records alone, the same file twice, with the costs of harness.flops and nothing that runs."""

import dataclasses
import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from test_report_hardware import latency

from harness import report
from harness.__main__ import COMMANDS
from harness.core import paths, store
from harness.cost import CONVENTIONS, analytic
from harness.report.__main__ import main
from harness.report.page import library, page
from harness.report.page.packing import packed
from harness.report.recorded import Recorded, RecordsFile
from models import catalogue, counterpart, spec
from models.families import FAMILIES

COMMITTED = paths.PROJECT / "report.html"
AGAIN = "make it again: python -m harness.report --html results/report.html"
LARGEST = 3_000_000  # bytes


def without_library(text: str) -> str:
    """The page apart from the plotting library, which is as its package has it."""
    return re.sub(r'(<script id="library">\n).*?(\n</script>)', r"\1\2", text, count=1, flags=re.DOTALL)


def data_of(text: str) -> dict:
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)[1])


@pytest.fixture(scope="module")
def made() -> str:
    return page(Recorded().files(), script="")


@pytest.fixture(scope="module")
def data(made) -> dict:
    return data_of(made)


def test_the_committed_page_is_what_the_committed_records_make_and_small_enough_to_send(made):
    committed = COMMITTED.read_text(encoding="utf-8")
    assert len(committed.encode()) < LARGEST
    assert without_library(committed) == without_library(made), AGAIN
    assert "Interactive Data Lab" in committed, "the library comes with its licence"


def test_nothing_is_fetched_and_nothing_may_be(made):
    assert "default-src 'none'" in made
    assert re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:)[^"']*""", made) == []
    assert "import(" not in made


def test_costs_are_those_of_the_closed_form_for_every_model_and_convention(data):
    cost = data["cost"]
    names = {model["name"]: model for model in cost["models"]}
    assert set(names) >= set(catalogue(("S", "B", "L", "XL")))
    rules = {rule["name"]: rule for rule in cost["conventions"]}
    assert list(rules) == list(CONVENTIONS)
    for name, pixels in (("DiT-XL/2", 256), ("DiM-B/8", 1024), ("DiM-XL/2-matched", 2048), ("DiM-S/4-video", 512)):
        at = cost["resolutions"].index(pixels)
        for rule in CONVENTIONS.values():
            stated = rules[rule.name]
            amount = names[name]["totals"][stated.get("of", rule.name)][at] * stated.get("times", 1)
            assert amount == rule.total(analytic(spec(name), pixels, rule.batch or 1)), (name, pixels, rule.name)
        assert sum(kind[at] for kind in names[name]["by_kind"].values()) == analytic(spec(name), pixels).macs


def test_every_family_is_there_with_its_variants_its_look_and_its_rivals(data):
    kinds = {kind["id"] for kind in data["kinds"]}
    models = data["cost"]["models"]
    for family in FAMILIES:
        for variant in family.depths:
            assert "-".join(filter(None, (family.name, variant))) in kinds
        assert {model["kind"] for model in models if model["name"].startswith(f"{family.name}-")} <= kinds
    for model in models:
        rival = counterpart(spec(model["name"]))
        assert model["rival"] == (rival.name if rival else None)
    looks = [(kind["colour"], tuple(kind["dash"]), kind["symbol"]) for kind in data["kinds"]]
    assert len(set(looks[:3])) == 3
    assert all(
        re.fullmatch("#[0-9A-Fa-f]{6}", kind[name]) for kind in data["kinds"] for name in ("colour", "in_the_dark")
    )


def unpacked(table: dict) -> list[dict]:
    """What the page's scripts make of packed rows."""
    texts, columns = table["texts"], table["columns"]
    return [
        {name: texts[name][cell] if name in texts and cell is not None else cell
         for name, cell in zip(columns, row, strict=True)}
        for row in table["rows"]
    ]  # fmt: skip


def test_packed_rows_are_the_rows_with_recurring_texts_once():
    rows = [{"a": "x", "b": 1.23456789, "c": 3.0}, {"a": "y", "b": None, "d": 1}, {"a": "x", "b": 2}]
    table = packed(rows, ["a", "b", "c"])
    assert table["texts"] == {"a": ["x", "y"]}
    assert table["rows"][0] == [0, 1.234568, 3]
    assert unpacked(table)[1] == {"a": "y", "b": None, "c": None}


def test_every_score_of_the_suites_is_a_point_with_its_seed_and_its_record(data):
    records = [one for file in Recorded().files() for one in file.lines.values()]
    points = [point for suite in data["quality"]["suites"] for point in unpacked(suite["points"])]
    assert len({point["record"] for point in points}) == len(points), "each record once"
    for point in points:
        record = records[point["record"]]
        assert point["value"] == pytest.approx(record.value, rel=1e-6)
        assert (point["seed"], point["step"]) == (record.workload["training"]["seed"], record.get("step"))
        assert record.get("metric") in point["protocol"]
    names = ("digits", "clips")
    committed = [one for name in names for one in store.load(paths.PROJECT / "measurements" / f"{name}.jsonl")]
    assert len(points) >= 0.9 * len(committed)


def test_scores_that_one_line_of_the_chart_joins_are_of_one_protocol_and_one_recipe(data):
    """What the chart has no choice of: the reference, the sampler, joint images."""
    records = [one for file in Recorded().files() for one in file.lines.values()]
    joined = defaultdict(set)
    for suite in data["quality"]["suites"]:
        for point in unpacked(suite["points"]):
            line = [point[name] for name in ("metric", "kind", "model", "px", "guidance", "step")]
            workload = records[point["record"]].workload
            recipe = {k: v for k, v in workload["training"].items() if k not in ("seed", "resumed", "steps")}
            joined[suite["name"], *line].add((point["protocol"], json.dumps(recipe, sort_keys=True)))
    assert len(joined) > 100
    assert {line: several for line, several in joined.items() if len(several) > 1} == {}


def test_where_each_number_comes_from_names_file_line_commit_command_and_hash(data):
    rows = unpacked(data["origins"]["records"])
    files = Recorded().files()
    assert [one["sha256"] for one in data["origins"]["files"]] == [file.sha256 for file in files]
    assert len(rows) == sum(len(file.lines) for file in files)
    row = next(row for row in rows if (row["file"], row["line"]) == ("results/measurements/digits.jsonl", 1))
    assert re.fullmatch("[0-9a-f]{12}( .*)?", row["commit"])
    assert re.fullmatch("weights [0-9a-f]{12}, samples [0-9a-f]{12}", row["hash"])
    assert row["command"].startswith("python -m harness.eval --ckpt")


def test_the_tables_are_those_that_are_committed_with_their_files(made):
    for name in ("table2", "table4_cost", "table7", "memory", "fashion-tuning", "clips-tuning"):
        assert f'id="table-{name}"' in made
        for suffix in ("csv", "md", "tex"):
            assert f'download="{name}.{suffix}"' in made
    titled = re.findall(r'id="table-([\w-]+)-title"', made)
    assert len(set(titled)) == len(titled), "each once"
    assert made.count("<caption>") == made.count('<table class="sortable">')
    assert 'scope="row"' in made


def test_no_text_of_a_record_runs_or_ends_the_data():
    evil = "</script><img src=x onerror=alert(1)>"
    record = dataclasses.replace(latency("DiT-XL/2", 256, 0, "error", note=evil), method=evil)
    text = page([RecordsFile(f"{evil}.jsonl", "0" * 64, {1: record})], Path("nowhere"), script="")
    assert evil not in text
    assert data_of(text)["origins"]["files"][0]["name"] == f"{evil}.jsonl"


def test_without_records_the_page_names_the_commands_that_make_them():
    text = page([], Path("nowhere"), script="")
    assert data_of(text)["quality"]["suites"] == []
    assert "python -m harness.tables --table 4" in text
    assert "python -m harness.reproduce --suite fashion" in text


def test_the_command_writes_one_file_and_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(library, "script", lambda: "/* none */")
    target = tmp_path / "new" / "report.html"
    assert main(["--html", str(target)]) == 0
    assert [path.name for path in tmp_path.rglob("*.*")] == ["report.html"]
    assert str(target) in capsys.readouterr().out
    assert "report" in COMMANDS


def test_without_the_library_the_install_command_is_named_and_nothing_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(SystemExit) as stopped:
        main(["--html", str(tmp_path / "report.html")])
    assert stopped.value.code == 2
    assert 'pip install "dim-vs-dit[report]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_library_is_the_installed_package_s_and_cannot_end_its_script():
    pytest.importorskip("vl_convert", reason='pip install "dim-vs-dit[report]"')
    script = library.script()
    assert "vegaEmbed" in script
    assert "</script" not in script
    assert len(script) < 1_200_000


def test_records_are_read_by_file_and_line(tmp_path):
    store.append(tmp_path / "a.jsonl", [latency("DiT-XL/2", 256, 0.01), latency("DiT-XL/2", 512, 0.02)])
    (file,) = Recorded(records=(tmp_path,)).files()
    assert (file.name, sorted(file.lines)) == (str(tmp_path / "a.jsonl"), [1, 2])
    assert list(file.lines.values()) == report.load(tmp_path)
