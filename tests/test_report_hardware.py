"""Memory and latency as tables and figures: what was measured, what was predicted, and what nobody has measured."""

import dataclasses
import math

import pandas as pd
import pytest

from harness import bench, plots, report, tables
from harness.core.provenance import Provenance
from harness.core.records import LatencyRecord, MemoryRecord
from harness.core.workload import Workload, preset
from harness.report.crossing import crossing, crossing_block, crossings
from harness.report.latency import latency_rows, shown_time
from harness.report.memory import memory_rows
from models import spec

GPU = "Some Card 80GB"


def latency(model, resolution, seconds, verdict="ok", device=GPU, note="", **fields) -> LatencyRecord:
    """A record as harness.bench writes it, of six samples around a median."""
    workload = Workload(spec=spec(model), resolution=resolution, dtype="bfloat16", **fields)
    samples = [seconds * factor for factor in (0.98, 0.985, 0.995, 1.005, 1.015, 1.02)] if verdict == "ok" else []
    parts = {"peak_bytes": 2 * 2**30, "predicted_bytes": 2**30, "flops": 4e12} if verdict == "ok" else {}
    return LatencyRecord(
        quantity="latency", value=seconds if samples else None, unit="s", method="CUDA events", verdict=verdict,
        workload={**workload.settings(), "device": device, "rounds": 6, "warmup": 1}, samples=samples, parts=parts,
        note=note, provenance=Provenance.here(device),
    )  # fmt: skip


def prediction(model, resolution, gib, **fields) -> MemoryRecord:
    workload = Workload(spec=spec(model), resolution=resolution, **fields)
    return MemoryRecord(
        quantity="peak_memory", value=int(gib * 2**30), unit="byte", method="by hand", verdict="estimated",
        workload=workload.settings(), parts={"weights": gib * 2**30}, note="largest activation: a",
        provenance=Provenance.here("none"),
    )  # fmt: skip


SWEEP = [
    latency("DiT-XL/2", 256, 0.010), latency("DiM-XL/2", 256, 0.020),
    latency("DiT-XL/2", 1024, 0.100), latency("DiM-XL/2", 1024, 0.080),
    latency("DiT-XL/2", 1024, 0, "oom", implementation="naive", note="met: bmm: 4 GiB; predicted: softmax: 4 GiB"),
]  # fmt: skip


def test_every_run_of_the_gpu_sweep_that_nobody_measured_is_missing_by_name():
    for records in ([], [latency("DiT-N/2", 64, 0.1, device="cpu: slow")]):
        rows = [row for row in latency_rows(records) if row["device"] == "any CUDA GPU"]
        assert len(rows) == len(preset("gpu-sweep")) == 64
        assert {row["verdict"] for row in rows} == {"missing"}
        for table in (report.latency_table(records), report.memory_table(records)):
            lines = [line for line in table.markdown().splitlines() if "missing" in line]
            assert lines[0] == (
                "- missing on any CUDA GPU: 64 runs (DiT-XL/2, DiM-XL/2, DiM-XL/2-matched; forward, train; "
                "bfloat16, float32; 256 to 2048 px): `python -m harness.bench --preset gpu-sweep` measures them."
            )
            assert all(line.startswith("- Not predicted, missing: 64 runs (") for line in lines[1:])


def test_latency_throughput_and_flops_follow_from_the_samples():
    rows = latency_rows(SWEEP)
    (row,) = [r for r in rows if (r["model"], r["resolution"], r["action"]) == ("DiM-XL/2", 256, "forward")
              and r["dtype"] == "bfloat16"]  # fmt: skip
    assert row["ms"] == pytest.approx(20)
    assert row["iqr_ms"] == pytest.approx(20 * (1.0125 - 0.9875))
    assert row["items_per_s"] == pytest.approx(50)
    assert row["tflop_per_s"] == pytest.approx(200)
    text = report.latency_table(SWEEP).markdown()
    assert "| DiT-XL/2 | 1 | forward | bfloat16 | naive attention | missing | missing | OOM | missing |" in text
    assert "| DiM-XL/2 | 1 | forward | bfloat16 | auto scan | 20 ± 0.25 | missing | 80 ± 1 | missing |" in text


def test_what_was_measured_stands_first_and_what_nobody_measured_has_no_lines():
    table = report.memory_table([*SWEEP, prediction("DiT-XL/2", 256, 1.5, dtype="bfloat16")])
    measured, ran_out, predicted = table.blocks
    assert (measured.caption, ran_out.caption, predicted.caption) == (
        f"Measured peak on {GPU}, GiB (over the predicted peak)", f"Out of memory on {GPU}",
        "Predicted peak, GiB [smallest card]",
    )  # fmt: skip
    assert ran_out.rows == [["DiT-XL/2", "1024", "forward", "missing", "bmm: 4 GiB", "softmax: 4 GiB"]]
    assert {(line[0], line[2], line[3]) for line in measured.rows} == {
        ("DiT-XL/2", "forward", "bfloat16"), ("DiM-XL/2", "forward", "bfloat16")
    }  # fmt: skip
    assert any(note.startswith(f"missing on {GPU}: 59 runs (") for note in table.notes)
    assert (table.data["measured"] == "missing").sum() == 59, "the data has every run"


@pytest.mark.parametrize(
    ("ms", "iqr_ms", "text"),
    [(3503.0, 320.0, "3500 ± 160"), (3503.0, 3.2, "3503 ± 1.6"), (12.34, 0.5, "12.3 ± 0.25"),
     (99_700.0, 199.8, "99700 ± 100"), (420.0, 500.0, "420 ± 250")],
)  # fmt: skip
def test_a_time_ends_where_its_error_does(ms, iqr_ms, text):
    assert shown_time({"verdict": "ok", "ms": ms, "iqr_ms": iqr_ms}) == text


def test_an_error_does_not_hide_an_answer_and_a_later_answer_replaces_it():
    good, bad, better = (latency("DiT-XL/2", 256, s, v) for s, v in ((1.0, "ok"), (0, "error"), (2.0, "ok")))
    for several, ms in (([good, bad], 1000), ([bad, better], 2000), ([good, better], 2000)):
        assert [row["ms"] for row in latency_rows(several, [])] == pytest.approx([ms])


def test_measured_memory_stands_beside_its_prediction():
    records = [*SWEEP, prediction("DiT-XL/2", 256, 1.5, dtype="bfloat16"), prediction("DiT-XL/2", 2048, 90.0)]
    rows = memory_rows(records, [])
    (row,) = [r for r in rows if (r["model"], r["resolution"]) == ("DiT-XL/2", 256)]
    assert (row["predicted_gib"], row["measured_gib"], row["measured_over_predicted"]) == (1.5, 2, 2)
    text = report.memory_table(records).markdown()
    assert "90.00 [141]" in text
    assert {row["frames"] for row in rows} == {0}
    assert "| DiT-XL/2 | 1 | forward | bfloat16 | sdpa attention | 2.00 (2.000) |" in text


def test_a_card_keeps_a_margin_and_kept_operands_stand_beside_recomputed_ones():
    how = {"action": "train", "dtype": "bfloat16"}
    predictions = [prediction("DiM-XL/2", 512, 22.5, **how), prediction("DiM-XL/2", 512, 21.5, **how, operands="kept")]
    text = report.memory_table(predictions, []).markdown()
    assert "| DiM-XL/2 | 1 | train | bfloat16 | auto scan | 22.50 [40] |" in text  # of 24 GiB two are left
    assert "| DiM-XL/2 | 1 | train | bfloat16 | auto scan, operands kept | 21.50 [24] |" in text
    assert "over one that stores them, is not measured: `python -m harness.bench" in text
    steps = [latency("DiM-XL/2", r, s, action="train", operands=o)
             for r, s, o in ((256, 1.04, "recomputed"), (256, 1.0, "kept"), (512, 2.0, "recomputed"))]  # fmt: skip
    text = report.memory_table([*predictions, *steps], []).markdown()
    assert f"over one that stores them, is 1.040 on {GPU} (1 x measured)" in text
    assert f"Measured over predicted on {GPU}: 2.000 to 2.000 in 3 runs." in text


def test_where_one_line_falls_below_another():
    """On logarithmic axes both are straight: t = a x and t = b x^2 meet at a / b."""
    one, two = [(x, 300.0 * x) for x in (100, 1000)], [(x, 1.0 * x * x) for x in (100, 1000)]
    assert crossing(one, two) == pytest.approx((300, 90000))
    assert crossing(two, one) is None
    assert crossing(one, [(50, 1.0)]) is None


def test_the_measured_crossover_stands_beside_the_one_of_multiply_adds():
    (one,) = [c for c in crossings(SWEEP) if c.rival_mixer == "sdpa attention"]
    assert one.ratios == pytest.approx({256: 2.0, 1024: 0.8})
    assert one.pixels == pytest.approx(256 * 4 ** (math.log(2) / math.log(2.5)))
    low, high = one.interval
    assert 0.9 * one.pixels < low < one.pixels < high < 1.1 * one.pixels, "samples scatter by 2 %"
    assert one.equal_macs_pixels == pytest.approx(1022, abs=1)
    slower, faster = SWEEP[:2], [latency("DiT-XL/2", 256, 0.020), latency("DiM-XL/2", 256, 0.010)]
    assert [c.verdict for c in crossings(slower)] == ["slower up to 256 px"]
    assert [c.verdict for c in crossings(faster)] == ["faster from 256 px on"]
    (block,) = crossing_block(SWEEP, GPU)
    assert block.rows[0][:6] == ["DiM-XL/2", "DiT-XL/2, sdpa attention", "forward", "bfloat16", "2.00", "0.80"]
    assert crossing_block(SWEEP[:1], GPU) == []


def test_a_crossover_has_no_interval_where_a_median_is_of_fewer_than_six_samples():
    for which in range(4):
        few = [*SWEEP[:which], dataclasses.replace(SWEEP[which], samples=SWEEP[which].samples[:5]), *SWEEP[which + 1 :]]
        (one,) = [c for c in crossings(few) if c.rival_mixer == "sdpa attention"]
        assert one.interval is None
        assert one.verdict == f"{one.pixels:.0f}"


def test_an_interval_has_no_end_where_resampled_lines_do_not_meet():
    """Three of a model's eight last times are above the other's, and so is about one in seven resampled medians."""
    undecided = dataclasses.replace(SWEEP[3], samples=[0.070, 0.070, 0.070, 0.070, 0.079, 0.130, 0.130, 0.130])
    (one,) = crossings([*SWEEP[:3], undecided])
    assert one.interval is not None
    assert one.interval[1] == math.inf
    assert 256 < one.interval[0] < one.pixels < 1024
    assert one.verdict.endswith(" to above 1024)")
    (axes,) = report.figure("crossover", [*SWEEP[:3], undecided]).axes
    assert list(axes.lines[-1].get_xdata())[1] == 1024


def texts(drawing) -> str:
    found = []
    for axes in drawing.axes:
        legend = axes.get_legend()
        found += [t.get_text() for t in axes.texts] + [axes.get_title()]
        found += [t.get_text() for t in ([*legend.get_texts(), legend.get_title()] if legend else [])]
    return "\n".join(found)


def test_the_latency_figure_marks_the_measured_crossover_and_names_what_ran_out_of_memory():
    text = texts(report.figure("latency", SWEEP))
    where, _ = crossing([(256, 0.020), (1024, 0.080)], [(256, 0.010), (1024, 0.100)])
    assert f"{where:.0f} px" in text
    assert "naive attention at 1024 px: OOM" in text
    assert texts(report.figure("latency", [latency("DiT-N/2", 64, 0.1, device="cpu: slow")])).startswith(
        "N/2 on cpu: slow\nbfloat16, batch 1"
    )


def test_the_crossover_figure_has_measured_ratios_solid_and_those_of_multiply_adds_dashed():
    (axes,) = report.figure("crossover", SWEEP).axes
    measured, macs, one, interval = axes.lines
    assert list(measured.get_ydata()) == pytest.approx([2.0, 0.8])
    assert list(macs.get_ydata()) == pytest.approx([1.533, 0.998], abs=0.002)
    assert (measured.get_linestyle(), macs.get_linestyle()) == ("-", "--")
    assert list(one.get_ydata()) == [1, 1]
    low, high = interval.get_xdata()
    assert low < high
    with pytest.raises(ValueError, match="needs forward passes of both families"):
        report.figure("crossover", SWEEP[:2])


def test_the_memory_figure_has_lines_predicted_and_rings_measured():
    predictions = [prediction("DiT-XL/2", r, r / 100, implementation=a) for r in (256, 512) for a in ("sdpa", "naive")]
    drawing = report.figure("memory", predictions)
    labels = [line.get_label() for line in drawing.axes[0].lines]
    assert {"DiT-XL/2, sdpa attention", "DiT-XL/2, naive attention"} <= set(labels)
    assert "rings" not in texts(drawing)
    with pytest.raises(ValueError, match="bench --predict"):
        report.figure("memory", [])


def test_sizes_and_families_are_told_apart_in_the_figures_of_memory_and_latency():
    models = ("DiT-B/4", "DiT-XL/2", "DiM-B/4", "DiM-XL/2", "DiM-XL/2-matched")
    records = [prediction(model, r, r / 100) for model in models for r in (256, 512)]
    lines = [line for line in report.figure("memory", records).axes[0].lines if line.get_label()[0] != "_"]
    assert [line.get_label().split(",")[0] for line in lines] == list(models)
    assert len({line.get_color() for line in lines}) == len({line.get_marker() for line in lines}) == len(models)
    panels = report.figure("latency", [latency(model, r, r / 100) for model in models for r in (256, 512)]).axes
    assert [axes.get_title().split(" ")[0] for axes in panels] == ["B/4", "XL/2"]
    for axes, n in zip(panels, (2, 3), strict=True):
        assert len({(line.get_color(), line.get_marker()) for line in axes.lines if line.get_label()[0] != "_"}) == n


def test_no_panel_is_drawn_empty():
    """Nothing but a reference implementation is predicted; nothing but a failure, or a training step, is measured."""
    naive = [prediction("DiM-XL/2", r, 1.0, implementation="naive") for r in (256, 512)]
    with pytest.raises(ValueError, match="needs predictions"):
        report.figure("memory", naive)
    kept = [prediction("DiM-XL/2", r, 1.0, action="train", operands="kept") for r in (256, 512)]
    on_cpu = [latency("DiT-XL/2", r, 1.0, device="cpu: slow") for r in (256, 512)]  # with a prediction for that CPU
    with pytest.raises(ValueError, match="needs predictions"):
        report.figure("memory", [*kept, *on_cpu])
    other = [prediction("DiT-XL/2", r, 1.0, action="sample") for r in (256, 512)]
    assert [axes.get_title() for axes in report.figure("memory", [*naive, *other]).axes] == [
        "a denoising step, float32, one image"
    ]
    nothing = [latency("DiT-XL/2", 256, 0, "oom"), latency("DiT-XL/2", 256, 1.0, action="train")]
    with pytest.raises(ValueError, match=r"needs measured forward passes: python -m harness\.bench --preset gpu-sweep"):
        report.figure("latency", nothing)
    two = [*SWEEP, latency("DiT-N/2", 64, 0, "error", device="cpu: slow")]
    assert [axes.get_title() for axes in report.figure("latency", two).axes] == [f"XL/2 on {GPU}\nbfloat16, batch 1"]


@pytest.mark.slow
def test_records_of_the_preset_at_a_tiny_size_flow_into_tables_and_figures(capsys, tmp_path):
    records = tmp_path / "records"
    records.mkdir()
    tiny = ["--preset", "gpu-sweep", "--device", "cpu", "--model", "DiT-N/4", "DiM-N/4", "--res", "64", "128"]
    tiny += ["--action", "forward", "--dtype", "float32", "--attention", "sdpa", "--rounds", "1", "--warmup", "1"]
    tiny += ["--keep-all"]
    bench.main([*tiny, "--records", str(records / "bench.jsonl")])
    out = tmp_path / "out"
    tables.main(["--table", "memory", "latency", "--records", str(records), "--output", str(out)])
    plots.main(["--figure", "latency", "--records", str(records), "--output", str(out)])
    capsys.readouterr()
    frame = pd.read_csv(out / "latency.csv")
    tiny_rows = frame[frame["model"].isin(["DiT-N/4", "DiM-N/4"])]
    assert tiny_rows["verdict"].tolist() == ["ok"] * 4
    assert tiny_rows["device"].str.startswith("cpu").all()
    assert (frame["verdict"] == "missing").sum() == len(preset("gpu-sweep"))
    memory = pd.read_csv(out / "memory.csv")
    assert memory.loc[memory["model"] == "DiM-N/4", "measured_over_predicted"].tolist() == pytest.approx(
        [1, 1], rel=0.05
    )
    assert (out / "latency.svg").exists()
    assert (out / "latency.tex").read_text().count(r"\begin{tabular}") == 5  # of the CPU; what a GPU lacks is a note


def test_a_figure_without_records_is_an_error_by_name_and_a_note_otherwise(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "FIGURES", {"memory": report.FIGURES["memory"]})
    (tmp_path / "none").mkdir()
    arguments = ["--records", str(tmp_path / "none"), "--output", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        plots.main(["--figure", "memory", *arguments])
    assert stopped.value.code == 2
    assert "python -m harness.bench --predict" in capsys.readouterr().err
    plots.main(arguments)
    assert "not drawn: the memory figure needs predictions" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.svg"))


def test_utilisation_is_of_the_peak_in_the_data_sheet_and_none_without_one():
    """4 TFLOP in 20 ms are 200 TFLOP/s, of an H100's 989.4 in bfloat16."""
    (row,) = latency_rows([latency("DiM-XL/2", 256, 0.020, device="NVIDIA H100 80GB HBM3")], [])
    assert row["mfu"] == pytest.approx(200 / 989.4, rel=1e-3)
    assert latency_rows(SWEEP[:1], [])[0]["mfu"] is None
