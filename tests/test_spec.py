"""The catalogue: its sizes are the papers', its names parse, its mistakes are named."""

import csv
import dataclasses
from pathlib import Path

import pytest

from harness.cost import analytic
from models import catalogue, counterpart, spec
from models.families import FAMILIES

PUBLISHED = Path(__file__).parents[1] / "results" / "published"
MATCHED = [
    (family, size)
    for family in FAMILIES
    for size in family.depths[""]
    if counterpart(spec(f"{family.name}-{size}/{family.patches[0]}"))
]


def test_dim_sizes_are_those_of_table_1():
    rows = list(csv.DictReader((PUBLISHED / "table1_configs.csv").open()))
    assert len(rows) == 4
    for row in rows:
        model = spec(row["model"] + "/2")
        assert (model.depth, model.width) == (int(row["layers"]), int(row["hidden_size"]))


def test_dit_sizes_are_those_of_peebles_and_xie():
    published = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}
    models = {size: spec(f"DiT-{size}/2") for size in published}
    assert {size: (model.depth, model.width, model.heads) for size, model in models.items()} == published


@pytest.mark.parametrize(("family", "size"), MATCHED, ids=lambda x: getattr(x, "name", x))
def test_matched_depth_has_the_parameters_nearest_to_dit(family, size):
    """Among the depths of the family's form: those of pairs of blocks around one in the middle, where it has skips."""
    paper = spec(f"{family.name}-{size}/{family.patches[0]}")
    target = analytic(counterpart(paper), 256).params
    depths = range(1, 60, family.skeleton.period)
    distance = {n: abs(analytic(dataclasses.replace(paper, depth=n), 256).params - target) for n in depths}
    matched = family.depths.get("matched", {}).get(size, paper.depth)
    assert matched == min(distance, key=distance.__getitem__)


@pytest.mark.parametrize("name", catalogue())
def test_name_parses_back_to_itself(name):
    assert spec(name).name == name


def test_name_spells_out_a_departure_from_the_catalogue():
    assert spec("DiM-XL/2", depth=24, merge="sum").name == "DiM-XL/2(depth=24,merge=sum)"
    assert spec("DiM-XL/2", num_classes=10).name == "DiM-XL/2"


@pytest.mark.parametrize(
    ("name", "overrides", "complaint"),
    [
        ("DiM-XL/3", {}, "nearest: DiM-XL"),
        ("dit-b/4", {}, r"nearest: DiT-B/4, .* \(DiT-P\|.*\|XL/2\|4\|8, then -video"),
        ("DiT-B/1", {}, r"nearest: DiT-B/.* \(DiT-[^/]*/2\|4\|8,"),
        ("Mixer-B/2", {}, r"\(FAMILY-SIZE/PATCH, of the families DiT, DiM, "),
        ("dit-xl/2", {}, "unknown model 'dit-xl/2'"),
        ("DiT-XL/2-matched", {}, "unknown model"),
        ("", {}, "unknown model"),
        ("DiM-B/4", {"merge": "max"}, "choose from mean, sum"),
        ("DiM-B/4", {"depth": 0}, "depth must be a positive integer"),
        ("DiM-B/4", {"dept": 3}, "unknown model field dept"),
        ("DiM-B/4", {"class_dropout": 1.5}, "class_dropout"),
    ],
)
def test_a_wrong_name_or_field_is_named(name, overrides, complaint):
    with pytest.raises(ValueError, match=complaint):
        spec(name, **overrides)


@pytest.mark.parametrize(
    ("resolution", "complaint"), [(100, "nearest that is: 96"), (0, "positive"), (-256, "positive")]
)
def test_a_resolution_that_does_not_divide_is_named(resolution, complaint):
    with pytest.raises(ValueError, match=complaint):
        spec("DiT-XL/2").tokens(resolution)
