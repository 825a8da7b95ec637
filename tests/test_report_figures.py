"""Figures of quality and samples: what stands in them, that they are the same bytes twice, and what they refuse."""

import json

import numpy as np
import pytest
from PIL import Image
from test_report import SEEDS, record, row

from harness import plots, report, suites
from harness.report.figures import contact_sheets, style
from harness.report.figures import quality as quality_figures
from harness.suites import Suite
from harness.suites.budget import exact_cost

PAIRS = [("DiT-N/4", ""), ("DiM-N/4", ""), ("DiM-N/4-matched", "matched"), ("DiT-P/4", ""), ("DiM-P/4", "")]
SUITE = Suite("digits", "embedded digits", tuple(
    [row("figure1", model, None, "c", variant, step) for model, variant in PAIRS for step in (250, 500)]
    + [row(6, model, None, "c", variant) for model, variant in PAIRS]
    + [row(7, model, None, str(cfg), variant, 500, cfg) for model, variant in PAIRS[:2] for cfg in (1.0, 1.5)]
    + [row(5, f"{family}-N/{patch}", None, str(patch)) for family in ("DiT", "DiM") for patch in (4, 2)]
), seeds=3)  # fmt: skip


@pytest.fixture(scope="module")
def records():
    """Every score of the suite answered: 10 by the size, times 2 early, 1.5 unguided; DiM 1 less; seeds 1 apart."""
    found = {}
    for line in SUITE.rows:
        for score in line.scores:
            model, seed = score.run.model, score.run.seed
            value = 10.0 * (2 if score.step == 250 else 1) * (1.5 if score.cfg_scale == 1 else 1)
            value += seed - 1 - model.startswith("DiM")
            found[score] = record(model, seed, value, cfg=score.cfg_scale, step=score.step)
    return list(found.values())


def lines(axes) -> dict[str, list[tuple[float, float]]]:
    """The means that are drawn, by their label."""
    handles, labels = axes.get_legend_handles_labels()
    found = {}
    for handle, label in zip(handles, labels, strict=True):
        line = handle[0] if isinstance(handle, tuple) else handle
        found[label] = list(zip(line.get_xdata(), line.get_ydata(), strict=True))
    return found


def test_figure_1_has_a_panel_a_size_a_line_a_family_and_a_band_of_a_deviation(records):
    drawing = report.figure("figure1", records, SUITE)
    panels = {axes.get_title(): axes for axes in drawing.axes}
    assert list(panels) == ["size P, patch 4", "size N, patch 4"]  # by width
    assert lines(panels["size N, patch 4"]) == {
        "DiT": [(250, 20), (500, 10)], "DiM": [(250, 19), (500, 9)], "DiM, equal parameters": [(250, 19), (500, 9)],
    }  # fmt: skip
    (band, *_) = panels["size P, patch 4"].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (9, 21)  # seeds are 1 apart: the deviation is 1


def test_sweeps_stand_over_what_is_swept(records):
    guidance = report.figure("guidance", records, SUITE).axes[0]
    assert lines(guidance)["DiT-N/4"] == [(1.0, 15), (1.5, 10)]
    assert {text.get_text() for text in guidance.texts} == {"DiT-N/4", "DiM-N/4"}, (
        "lines have their names at their ends"
    )
    patches = {axes.get_title(): axes for axes in report.figure("patch-size", records, SUITE).axes}
    assert list(patches) == ["patch 2", "patch 4"]
    assert [y for _, y in lines(patches["patch 4"])["DiM"]] == [9]
    assert patches["patch 2"].get_shared_y_axes().get_siblings(patches["patch 2"]) == [patches["patch 2"]]


def test_the_fair_comparison_stands_over_exact_counts(records):
    params = report.figure("quality-vs-params", records, SUITE).axes[0]
    runs = [score.run for line in SUITE.rows for score in line.scores]
    counts = {run.model: exact_cost(run).params / 1e3 for run in runs}
    (wide,) = [x for x, _ in lines(params)["DiM"] if x == pytest.approx(counts["DiM-N/4"])]
    (matched,) = [x for x, _ in lines(params)["DiM, equal parameters"]]
    assert matched == pytest.approx(counts["DiT-N/4"], rel=0.15)  # to the nearest depth
    assert wide > 1.2 * matched
    assert params.get_xlabel() == "parameters (thousand)"
    assert "MMAC" in report.figure("quality-vs-gmacs", records, SUITE).axes[0].get_xlabel()


def test_exact_counts_are_of_the_model_that_is_trained():
    tasks = []
    for name in ("digits", "paper"):
        model = suites.suite(name).rows[0].scores[0].run.spec
        tasks.append((model.channels, model.downsample, model.num_classes))
    assert tasks == [(1, 1, 10), (4, 8, 1000)]


@pytest.mark.parametrize("name", ["figure1", "quality-vs-params"])
def test_the_same_records_give_the_same_bytes(records, tmp_path, name):
    for where in ("a", "b"):
        style.save(report.figure(name, records, SUITE), tmp_path / where)
    for suffix in (".svg", ".png"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_families_differ_in_colour_marker_and_line():
    looks = [style.look(*kind) for kind in (*style.KINDS, ("DiM", "equal-macs"))]
    for part in ("color", "marker"):
        assert len({look[part] for look in looks}) == len(looks)
    assert style.look("DiT")["marker"] != style.look("DiM")["marker"]


def test_contact_sheets_show_every_grid_under_its_settings(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="reproduce --suite digits"):
        contact_sheets.contact_figure(SUITE, tmp_path)
    for model in ("DiM-N/4", "DiT-N/4"):
        folder = tmp_path / model.replace("/", "-")
        folder.mkdir()
        settings = {"model": model, "data": "digits", "step": 1000, "steps": 25, "sampler": "ddpm", "cfg_scale": 1.5}
        (folder / "settings.json").write_text(json.dumps(settings))
        Image.fromarray(np.full((8, 16), 128, np.uint8)).save(folder / "grid.png")
    drawing = contact_sheets.contact_figure(SUITE, tmp_path)
    titles = [axes.get_title() for axes in drawing.axes]
    assert [title.splitlines()[0] for title in titles] == ["DiT-N/4", "DiM-N/4"]
    assert "25 ddpm steps, guidance 1.5" in titles[0]
    again = contact_sheets.contact_figure(SUITE, tmp_path)  # while the first is alive: another place in memory
    first, second = (style.save(one, tmp_path / name)[0] for one, name in ((drawing, "a"), (again, "b")))
    assert first.read_bytes() == second.read_bytes()
    assert b'clip-path="url(#clip0)"' in first.read_bytes()


def test_quality_figures_without_records_name_the_command(capsys, tmp_path):
    for name in ("figure1", "guidance", "patch-size", "quality-vs-gmacs"):
        with pytest.raises(ValueError, match="reproduce --suite digits"):
            report.figure(name, [], SUITE)
    with pytest.raises(SystemExit) as stopped:
        plots.main(["--figure", "guidance", "--records", str(tmp_path), "--output", str(tmp_path)])
    assert stopped.value.code == 2
    assert "harness.reproduce" in capsys.readouterr().err


def test_a_point_of_several_seeds_is_their_mean_and_deviation(records):
    point = next(p for p in quality_figures.points(SUITE, records) if (p.model, p.step) == ("DiT-P/4", 500))
    assert len(point.values) == len(SEEDS)
    assert (point.mean, point.deviation) == (10, 1)
    assert (point.size, point.patch) == ("P", 4)


def test_your_scores_are_marked_over_their_exact_cost_where_they_follow_the_protocol(records):
    task = {"dataset": "digits", "autoencoder": "identity", "num_classes": 10, "depth": 0, "frames": 0}
    fits = record("DiM-N/2-matched", 0, 5.0, source="mine", training=task)
    mine = [fits, record("DiT-N/2", 0, 4.0, n_samples=9)]
    yours, left_out = report.own_rows(records, mine, SUITE)
    assert [line.label for line in yours] == ["mine (DiM-N/2-matched), yours"]
    assert left_out == ["left out: runs/DiT-N/2-0 (DiT-N/2): n_samples of fd is 9, here 1000."]
    counted = exact_cost(row(6, "DiM-N/2-matched", None, "c").scores[0].run)
    costs = {"quality-vs-params": counted.params / 1e3, "quality-vs-gmacs": counted.macs / 1e6}
    assert set(costs) < set(report.WITH_OWN)
    for name, cost in costs.items():
        ((x, y),) = lines(report.figure(name, records, SUITE, yours=yours).axes[0])["mine (DiM-N/2-matched), yours"]
        assert (x, y) == (pytest.approx(cost), 5)
        assert "yours" not in str(lines(report.figure(name, records, SUITE).axes[0]))


def test_include_of_figures_that_show_no_scores_of_yours_names_those_that_do(capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        plots.main(["--figure", "figure1", "--include", "mine.jsonl", "--output", str(tmp_path)])
    assert stopped.value.code == 2
    assert "quality-vs-gmacs, quality-vs-params, frontier" in capsys.readouterr().err
