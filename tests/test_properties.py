"""Whatever is typed or lies on disk: it is what it says, or it is refused in one line."""

import argparse
import dataclasses
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.core import store
from harness.core.command import Parser
from harness.core.files import read_json
from harness.core.options import add_options, check, from_arguments, option
from harness.core.provenance import Provenance
from harness.core.records import CostRecord, LatencyRecord, MemoryRecord, RateRecord, ScoreRecord, frozen, latest
from harness.cost.inputs import parse_shapes
from harness.data.npz import Npz
from harness.metrics.recipes import parse
from harness.report.layout import Block, Table, escape
from models import catalogue, spec

HERE = Provenance(None, None, "python", "3", {}, "none", "2026-01-01T00:00:00+00:00")
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
QUESTIONS = st.dictionaries(
    st.sampled_from(["model", "resolution", "batch", "frames", "device", "metric", "training", "note"]), JSON
)


@st.composite
def records(draw):
    quantity, kind = draw(st.sampled_from([
        ("cost", CostRecord), ("peak_memory", MemoryRecord), ("latency", LatencyRecord), ("peak_rate", RateRecord),
        ("fd", ScoreRecord),
    ]))  # fmt: skip
    return kind(
        quantity=quantity, value=draw(st.none() | NUMBERS), unit=draw(st.text()), method=draw(st.text()),
        workload=draw(QUESTIONS), provenance=HERE, verdict=draw(st.sampled_from(["ok", "oom", "error"])),
        parts=draw(st.dictionaries(st.text(), NUMBERS, max_size=3)), samples=draw(st.lists(NUMBERS, max_size=3)),
        seed=draw(st.none() | st.integers(0, 2**31)), note=draw(st.text()),
    )  # fmt: skip


@given(written=st.lists(records(), min_size=1, max_size=5))
def test_what_is_stored_is_what_is_loaded(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("store") / "records.jsonl"
    store.append(path, written)
    assert store.load(path) == written
    assert store.append(path, written, repeat=False) == 0
    assert {record.key() for record in written} == set(latest(store.load(path)))


@given(content=st.binary(max_size=300) | st.lists(JSON.map(json.dumps), max_size=4).map("\n".join).map(str.encode))
@example(content=b'{"schema": 1}')
@example(content=b"\xff\xfe")
def test_no_file_of_records_stops_a_reader_or_is_believed(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("store") / "records.jsonl"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert store.load(path) == []


@given(value=JSON)
def test_a_key_can_be_hashed_and_does_not_depend_on_the_order_of_fields(value):
    again = json.loads(json.dumps(value, sort_keys=True))
    assert hash(frozen(value)) == hash(frozen(again))


def attempt(work: Callable[..., Any], *arguments: object) -> tuple[Any, str]:
    """What a function returns and "", or None and why it refuses; a refusal is one line."""
    try:
        return work(*arguments), ""
    except ValueError as error:
        text = str(error)
    assert text
    assert "\n" not in text
    return None, text


@given(name=st.text() | st.sampled_from(catalogue() + catalogue(video=True)) | st.from_regex(r"Di[TM]-[SBLX]+/[0-9]+"))
def test_a_name_is_a_model_or_is_refused_with_the_nearest(name):
    found, why = attempt(spec, name)
    assert "nearest" in why if found is None else found.name == name


METRIC = (
    r"\A(fid|fd|is|pr|kid|adm|(cd)?fvd|cmmd|mind|fdr|panel)[0-9]{1,4}k?(_[0-9]{1,3}f)?(@(timm:)?[a-z-]+(#[0-9a-f]{0,9})?)?\Z"
)


@given(name=st.text() | st.from_regex(METRIC))
@example(name="fd\u0661k@digits")
@example(name="fd1k@timm:")
@example(name="panel1k")
def test_a_metrics_name_means_one_thing_or_is_refused(name):
    found, why = attempt(parse, [name])
    if found is None:
        assert repr(name) in why
    else:
        assert found == parse([recipe.name for recipe in found])
        assert all(recipe.count >= 2 for recipe in found)


@dataclass(frozen=True, kw_only=True)
class Numbers:
    steps: int = option(1, "a whole number", least=1, most=1000)
    scale: float = option(1.5, "a number", least=0)
    kind: str = option("a", "one of two", choices=("a", "b"))

    def __post_init__(self) -> None:
        check(self)


@given(field=st.sampled_from(["steps", "scale", "kind"]), text=st.text() | NUMBERS.map(str))
@example(field="scale", text="nan")
@example(field="scale", text="-0.0")
@example(field="steps", text="\u0663")
def test_a_flag_is_within_its_bounds_or_ends_in_one_line_and_exit_code_2(capsys, field, text):
    parser = Parser(prog="tool")
    add_options(parser, Numbers)
    code = 0
    try:
        found = from_arguments(Numbers, parser.parse_args([f"--{field}={text}"]))
    except SystemExit as stopped:
        code = stopped.code
    if code:
        assert code == 2
        assert capsys.readouterr().err.startswith(f"tool: error: argument --{field}: ")
    else:
        assert 1 <= found.steps <= 1000
        assert 0 <= found.scale < float("inf")
        assert found.kind in ("a", "b")
        assert from_arguments(Numbers, argparse.Namespace(**dataclasses.asdict(found))) == found


@given(text=st.text() | st.from_regex(r"\A[0-9x]{1,12}(:[a-z0-9]{1,9})?\Z"))
def test_an_input_is_a_shape_or_is_refused(text):
    found, why = attempt(parse_shapes, [text])
    assert repr(text) in why if found is None else len(found) == 1


@given(content=st.binary(max_size=400))
def test_no_bytes_are_taken_for_an_archive(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz"):
        Npz(path)


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_an_archive_with_a_flipped_bit_is_whole_or_refused(tmp_path_factory, place, bit):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    arrays = {"arr_0": np.arange(300, dtype=np.uint8).reshape(3, 10, 10), "mu": np.arange(20.0)}
    np.savez(path, **arrays)
    damaged = bytearray(path.read_bytes())
    damaged[place % len(damaged)] ^= 1 << bit
    path.write_bytes(damaged)

    def read() -> dict:
        file = Npz(path)
        return {name: file.array(name) for name in arrays if name in file}

    found, why = attempt(read)
    assert "a.npz" in why if found is None else all((found[name] == arrays[name]).all() for name in found)


@given(content=st.binary(max_size=100) | JSON.map(json.dumps).map(str.encode))
def test_a_file_of_settings_is_an_object_or_is_refused_by_name(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("json") / "settings.json"
    path.write_bytes(content)
    found, why = attempt(read_json, path)
    assert "settings.json" in why if found is None else isinstance(found, dict)


@given(cells=st.lists(st.text(alphabet=st.characters(codec="ascii")), min_size=2, max_size=2))
def test_a_cell_stays_one_cell(cells):
    import pandas as pd

    text = Table("t", "T", pd.DataFrame(), [Block(["a", "b"], [cells])]).markdown()
    row = text.split("| --- | --- |\n", 1)[1].split("\n", 1)[0]
    assert row.replace(r"\|", "").count("|") == 3


@given(text=st.text(alphabet=st.characters(codec="ascii", exclude_categories=["Cc"])))
def test_ascii_text_has_a_form_in_latex(text):
    set_ = escape(text)
    assert not any(f" {character}" in f" {set_}" for character in "%#") or "\\" in set_
