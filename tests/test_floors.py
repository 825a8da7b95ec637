"""Floors against hand arithmetic and vendors' figures; crossovers; measured steps, none of them below its floor."""

import csv
import dataclasses
import io

import numpy as np
import pytest

from harness import bench, report
from harness.core import cards, store
from harness.core.cards import Card, card, measured_card, peak_flops
from harness.core.paths import PROJECT
from harness.core.provenance import Provenance
from harness.core.records import LatencyRecord, RateRecord
from harness.core.workload import Workload
from harness.cost import analytic, ceilings
from harness.cost.floors import crossover, demand, floor
from harness.report.floors import below, floors_table, measured_fields, workload_of
from models import spec

XL = {name: spec(f"{name}-XL/2") for name in ("DiT", "DiM")}
HERE = "cpu: Some CPU, 2 cores"


def workload(model, resolution, **fields) -> Workload:
    return Workload(spec=spec(model), resolution=resolution, **{"dtype": "bfloat16", **fields})


# ---------------------------------------------------------------------------------------------------------- data sheets


def test_every_figure_has_a_source_and_every_card_every_figure():
    rows = cards.sheets()
    for row in rows:
        assert row["source"], row
        assert row["where"], row
        assert float(row["value"]) > 0
        assert row["url"].startswith("https://") or row["source"] == "NVIDIA, CUDA Programming and Optimization (2024)"
    assert len({(row["card"], row["figure"]) for row in rows}) == len(rows)
    needed = {"sms", "float32", "tf32", "bfloat16", "memory", "bandwidth", "l2", "sm_l1", "sm_registers",
              "fp32_per_clock", "exp2_per_clock"}  # fmt: skip
    assert list(cards.figures()) == ["H100", "H200", "A100", "L4", "RTX4090"]
    for figures in cards.figures().values():
        assert needed <= set(figures)


# Multiply-adds a tensor core's SM does in a clock, bfloat16, dense: H100's whitepaper has twice A100's 1024; the L4's
# SM half of those, and GeForce with FP32 accumulation half again.
TENSOR_MACS = {"H100": 2048, "A100": 1024, "L4": 512, "RTX4090": 256}


@pytest.mark.parametrize("name", TENSOR_MACS)
def test_peaks_are_units_times_clock_to_the_last_printed_digit(name):
    printed = {row["figure"]: row["value"] for row in cards.sheets() if row["card"] == name}
    sheet = cards.figures()[name]

    def agrees(figure: str, macs_per_clock: float, mhz: float) -> bool:
        unit = 10.0 ** -len(printed[figure].partition(".")[2])
        tera = 2 * sheet["sms"] * macs_per_clock * mhz / 1e6
        return abs(tera - sheet[figure]) <= 0.6 * unit

    tensor_mhz = sheet.get("tensor_clock", sheet["boost_clock"])
    assert agrees("float32", sheet["fp32_per_clock"], sheet["boost_clock"])
    assert agrees("bfloat16", TENSOR_MACS[name], tensor_mhz)
    assert agrees("tf32", TENSOR_MACS[name] / 2, tensor_mhz), "half the rate of bfloat16"
    exponentials = 1e6 * sheet["sms"] * 16 * sheet["boost_clock"]
    assert card(name).exponentials_per_s == pytest.approx(exponentials, rel=2e-3)


def test_the_h200_is_an_h100_with_another_memory():
    one, other = card("H100"), card("H200")
    assert other.flop_per_s == pytest.approx(one.flop_per_s, rel=2e-3)
    assert other.exponentials_per_s == pytest.approx(one.exponentials_per_s, rel=2e-3)
    assert (other.bytes_per_s / one.bytes_per_s, other.on_chip_bytes) == (pytest.approx(4.8 / 3.35), one.on_chip_bytes)


def test_flashattention_3_has_the_same_rate_of_exponentials():
    """Shah et al., arXiv 2407.08608, footnote 5: 16 x 132 SMs x 1830 MHz = 3.9 T/s, at the clock of tensor cores."""
    assert card("H100").exponentials_per_s * 1830 / 1980 == pytest.approx(3.9e12, rel=0.01)


@pytest.mark.parametrize(
    ("device", "arithmetic", "tera"),
    [("NVIDIA H100 80GB HBM3", "bfloat16", 989.4), ("NVIDIA H100 80GB HBM3", "float32", 66.9),
     ("NVIDIA L4", "tf32", 60), ("NVIDIA A100 80GB PCIe", "bfloat16", 312),
     ("NVIDIA GeForce RTX 4090", "bfloat16", 165.2)],
)  # fmt: skip
def test_peaks_by_the_names_that_devices_have(device, arithmetic, tera):
    assert peak_flops(device, arithmetic) == pytest.approx(1e12 * tera)


def test_other_boards_have_no_peak_by_likeness_and_other_arithmetics_are_refused():
    for device in ("NVIDIA H100 PCIe", "NVIDIA GeForce RTX 4090 D", HERE):
        assert peak_flops(device, "bfloat16") is None
    with pytest.raises(ValueError, match="unknown arithmetic 'fp8'; choose from float32, tf32, bfloat16"):
        peak_flops("NVIDIA L4", "fp8")
    with pytest.raises(ValueError, match="unknown card 'V100'; choose from H100,"):
        card("V100")


# ------------------------------------------------------------------------------------------------------ hand arithmetic


def test_a_dit_at_256_pixels_on_an_h100():
    """118.62 GMAC; 674.83 M parameters of which 1000 classes' rows stay; 50 MiB of L2, 512 KiB in each of 132 SMs."""
    found = floor(workload("DiT-XL/2", 256), card("H100"), "bfloat16")
    assert found.seconds["matrix"] == pytest.approx(2 * 118.62e9 / 989.4e12, rel=1e-4)  # 0.24 ms
    weights = 2 * (674_834_720 - 1000 * 1152)
    latents = 2 * 32 * 32 * (4 + 8)
    chip = 50 * 2**20 + 132 * 512 * 2**10
    assert found.seconds["bytes"] == pytest.approx((weights + latents - chip) / 3.35e12, rel=1e-4)  # 0.37 ms
    assert (found.binds, found.value) == ("bytes", found.seconds["bytes"])
    assert found.apart == pytest.approx(sum(found.seconds.values()))


def test_exponentials_of_a_dim_at_2048_pixels():
    """36 blocks, 2 directions, 16384 tokens, 2304 channels of 16 states; then step sizes, SiLU and GELU."""
    channels = 36 * 2 * 16384 * 2304
    by_hand = channels * (16 + 2 + 1) + 36 * 16384 * 4608
    found = demand(workload("DiM-XL/2", 2048), 2)
    assert found.exponentials == pytest.approx(by_hand, rel=1e-4)  # beside the condition's own SiLU
    seconds = floor(workload("DiM-XL/2", 2048), card("H100"), "bfloat16").seconds
    assert seconds["exponentials"] == pytest.approx(by_hand / (132 * 16 * 1.98e9), rel=2e-3)  # 13 ms
    assert found.vector_macs == channels * 16 * 4
    assert seconds["vector"] == pytest.approx(found.vector_macs / 33.45e12)
    assert found.matrix_macs == analytic(XL["DiM"], 2048).macs - found.vector_macs


def test_exponentials_of_attention_are_the_square_of_the_tokens_a_head():
    found = demand(workload("DiT-XL/2", 1024), 2)
    assert found.exponentials == pytest.approx(28 * (16 * 4096**2 + 4096 * 4608), rel=1e-4)
    assert found.vector_macs == 0


def test_training_has_three_times_the_arithmetic_and_no_more_exponentials_for_certain():
    for model in ("DiT-XL/2", "DiM-XL/2"):
        once, step = (demand(workload(model, 512, action=action), 2) for action in ("forward", "train"))
        assert (step.matrix_macs, step.vector_macs) == (3 * once.matrix_macs, 3 * once.vector_macs)
        assert step.exponentials == once.exponentials


def test_training_reads_and_writes_thirty_six_bytes_a_parameter():
    """4 in the forward pass; then weight, two moments and the average, each 4 read and 4 written."""
    found = demand(workload("DiT-XL/2", 256, action="train"), 2)
    assert demand(workload("DiT-XL/2", 256, action="train", batch=8), 2).traffic[2] == (28 * 256 * 1152 * 2, 2 * 8)
    inputs_of_blocks = 2 * 28 * 256 * 1152 * 2  # kept for the backward pass, and smaller than any chip here
    assert found.nbytes(0) == 36 * (674_834_720 - 1000 * 1152) + 2 * 32 * 32 * 12 + inputs_of_blocks
    chip = card("H100").on_chip_bytes
    assert found.nbytes(chip) == pytest.approx(36 * (674_834_720 - 1000 * 1152) - 2 * chip, rel=1e-5)


def test_guidance_doubles_the_arithmetic_and_reads_the_weights_once():
    once, guided = (demand(workload("DiM-XL/2", 512, action=action), 2) for action in ("forward", "sample"))
    assert guided.matrix_macs == 2 * once.matrix_macs
    assert guided.exponentials == pytest.approx(2 * once.exponentials, rel=1e-3), "but for exp of A_log"
    assert guided.traffic[0] == once.traffic[0]


def test_what_the_chip_cannot_hold_between_layers_is_written_and_read():
    """At 4096 px the residual stream of XL/2 has 65536 x 1152 values: 151 MB, of which an L4 holds 70."""
    weights, residual = demand(workload("DiT-XL/2", 4096), 2).traffic
    assert residual == (2 * 65536 * 1152, 2 * 28)
    chip = card("L4").on_chip_bytes
    assert chip == 48 * 2**20 + 58 * 384 * 2**10
    found = demand(workload("DiT-XL/2", 4096), 2).nbytes(chip)
    assert found == weights[0] - chip + 56 * (residual[0] - chip)
    many = demand(workload("DiT-XL/2", 4096, batch=3), 2)
    assert many.traffic[1] == (2 * 65536 * 1152, 3 * 2 * 28), "samples can go one by one"
    assert demand(workload("DiM-XL/2-video", 256), 2).traffic[1] == (2 * 16 * 256 * 1152, 2 * 18)


def test_a_floor_is_of_a_dtypes_own_arithmetics():
    with pytest.raises(ValueError, match="bfloat16 is not computed in 'tf32'; choose from bfloat16"):
        floor(workload("DiT-XL/2", 256), card("L4"), "tf32")
    with pytest.raises(ValueError, match="joint images"):
        floor(workload("DiT-B/4-video", 256, action="train", joint_images=8), card("L4"), "bfloat16")
    cpu = Card(
        name="cpu",
        flop_per_s={"float32": 1e11},
        fp32_macs_per_s=5e10,
        exponentials_per_s=1e9,
        bytes_per_s=1e10,
        on_chip_bytes=0,
    )
    with pytest.raises(ValueError, match="cpu has no tf32; choose from float32"):
        floor(workload("DiT-XL/2", 256, dtype="float32"), cpu, "tf32")


# ----------------------------------------------------------------------------------------------------------- crossovers


def pair(resolution=256, **fields) -> tuple[Workload, Workload]:
    return workload("DiM-XL/2", resolution, **fields), workload("DiT-XL/2", resolution, **fields)


def test_where_products_alone_count_floors_cross_where_multiply_adds_but_for_the_scans_do():
    dim, dit = pair()
    free = dataclasses.replace(card("H100"), fp32_macs_per_s=1e30, exponentials_per_s=1e30, bytes_per_s=1e30)
    found = crossover(dim, dit, free, "bfloat16")
    assert found.lower_from == found.faster_from == found.slower_to + 16
    macs = {px: [demand(w, 2).matrix_macs for w in pair(px)] for px in (found.slower_to, found.lower_from)}
    assert macs[found.slower_to][0] > macs[found.slower_to][1]
    assert macs[found.lower_from][0] < macs[found.lower_from][1]
    assert found.lower_from == 1008, "1022 with the scan's multiply-adds (README)"


def test_crossovers_rise_with_depth_and_fall_with_rates_that_dim_needs_more_of():
    dim, dit = pair()
    h100 = card("H100")
    deeper = [
        crossover(dataclasses.replace(dim, spec=dataclasses.replace(dim.spec, depth=depth)), dit, h100, "bfloat16")
        for depth in (30, 36, 42)
    ]
    for name in ("lower_from", "faster_from"):
        found = [getattr(one, name) for one in deeper]
        assert found == sorted(found)
        assert len(set(found)) == 3
    quicker = [
        crossover(
            dim, dit, dataclasses.replace(h100, exponentials_per_s=n * h100.exponentials_per_s), "bfloat16"
        ).faster_from
        for n in (0.5, 1, 2)
    ]
    assert quicker == sorted(quicker, reverse=True)


@pytest.mark.parametrize("name", ["H100", "L4"])
def test_between_what_is_slower_and_what_is_faster_floors_do_not_decide(name):
    found = crossover(*pair(), card(name), "bfloat16")
    assert found.slower_to < found.lower_from <= found.faster_from

    def says(px: int) -> str:
        dim, dit = (floor(w, card(name), "bfloat16") for w in pair(px))
        return "faster" if dim.apart < dit.value else "slower" if dim.value > dit.apart else "undecided"

    expected = {found.slower_to: "slower", found.slower_to + 16: "undecided", found.lower_from: "undecided",
                found.faster_from - 16: "undecided", found.faster_from: "faster", 4096: "faster"}  # fmt: skip
    assert {px: says(px) for px in expected} == expected
    one, other = (floor(w, card(name), "bfloat16").value for w in pair(found.lower_from))
    assert one < other


def test_a_model_that_never_gets_lower_has_no_crossover():
    dim, dit = pair()
    deep = dataclasses.replace(dim, spec=dataclasses.replace(dim.spec, depth=1000))
    assert crossover(deep, dit, card("H100"), "bfloat16").lower_from is None


def test_exponentials_bind_small_models_in_large_batches_and_nothing_in_the_published_table():
    assert floor(workload("DiM-S/2", 512, batch=64), card("H100"), "bfloat16").binds == "exponentials"
    data = floors_table([]).data
    assert set(data["binds"]) == {"matrix", "bytes"}, "or the caveat of exponentials (floors.py) must stand under it"


# ------------------------------------------------------------------------------------------------------ measured, a CPU


def rate(of, value, device=HERE) -> RateRecord:
    return RateRecord(
        quantity="peak_rate", value=value, unit="FLOP/s", method="by hand", workload={"device": device, "of": of},
        provenance=Provenance.here("cpu"),
    )  # fmt: skip


RATES = [rate("float32", 1e11), rate("bfloat16", 4e11), rate("exponentials", 1e10), rate("memory", 2e10),
         rate("on-chip memory", 1e6)]  # fmt: skip


def latency(seconds, model="DiT-S/4", device=HERE, **fields) -> LatencyRecord:
    settings = workload(model, 256, **{"dtype": "float32", **fields}).settings()
    return LatencyRecord(
        quantity="latency", value=seconds, unit="s", method="by hand", samples=[seconds, 1.5 * seconds, 2 * seconds],
        workload={**settings, "device": device, "rounds": 3, "warmup": 1}, provenance=Provenance.here("cpu"),
    )  # fmt: skip


def test_the_best_of_all_measured_rates_is_the_ceiling(tmp_path):
    store.append(tmp_path / "peaks.jsonl", [*RATES, rate("float32", 0.5e11), rate("float32", 9e11, "cpu: another")])
    known = store.load(tmp_path / "peaks.jsonl")
    cpu = measured_card(known, HERE)
    assert cpu == Card(
        name="cpu", flop_per_s={"float32": 1e11, "bfloat16": 4e11}, fp32_macs_per_s=5e10, exponentials_per_s=1e10,
        bytes_per_s=2e10, on_chip_bytes=10**6,
    )  # fmt: skip
    assert measured_card(known, "cpu: another") is None, "of which one rate alone is known"
    slow = [*RATES[:1], rate("bfloat16", 1e10), *RATES[2:]]
    assert measured_card(slow, HERE).flop_per_s["bfloat16"] == 1e11, "bfloat16 can be computed in float32"


def test_a_measured_step_stands_beside_its_floor():
    macs = analytic(spec("DiT-S/4"), 256).macs
    least = 2 * macs / 1e11
    table = floors_table([*RATES, latency(4 * least)])
    (row,) = measured_fields([*RATES, latency(4 * least)])
    assert (row["floor_ms"], row["binds"]) == (pytest.approx(1e3 * least), "matrix")
    assert row["measured_over_floor"] == pytest.approx(6), "the median"
    assert "| DiT-S/4 | 256 | 1 | forward, float32, sdpa attention |" in table.markdown()
    assert table.blocks[-1].rows[0][6:] == ["6", "matrix"]
    assert not below(table.data[table.data["device"] == HERE].to_dict("records"))


def test_a_step_below_its_floor_is_named():
    least = 2 * analytic(spec("DiT-S/4"), 256).macs / 1e11
    records = [*RATES, latency(0.9 * least)]
    (line,) = below(measured_fields(records))
    assert line.startswith(f"DiT-S/4 at 256 px on {HERE} (forward, float32) took ")
    assert line in floors_table(records).notes


def test_no_step_that_the_project_has_measured_lies_below_its_floor():
    assert below(measured_fields(store.load())) == []


def test_a_cpu_without_rates_is_named_with_the_command_that_measures_them():
    table = floors_table([latency(1.0)])
    assert f"peak rates are unknown: {HERE}. `python -m harness.bench --floor --card cpu`" in table.notes[-1]
    assert (
        floors_table([latency(1.0, device="NVIDIA L4")]).blocks[-1].caption == "Measured on NVIDIA L4, and the floor"
    )


def test_the_workload_of_a_record_is_read_back_whole():
    deeper = dataclasses.replace(spec("DiM-N/4", merge="sum"), depth=3)
    clips = spec("DiM-B/4-video", frames=8)
    for one in (deeper, clips, spec("DiT-T/2", channels=1, downsample=1, num_classes=10)):
        w = Workload(spec=one, resolution=64, batch=2, action="train", dtype="bfloat16")
        record = dataclasses.replace(latency(1.0), workload={**w.settings(), "device": HERE})
        assert workload_of(record) == w
    for change in ({"model": "DiX-N/4"}, {"joint_images": 8}):
        record = dataclasses.replace(latency(1.0), workload={**latency(1.0).workload, **change})
        assert workload_of(record) is None


# ------------------------------------------------------------------------------------------------------------- ceilings


@pytest.mark.slow
def test_rates_are_measured_with_every_round_kept():
    effort = ceilings.Effort(rounds=3, sides=(64, 128), values=(4096,), tokens=16, nbytes=1 << 20)
    found = {record.workload["of"]: record for record in ceilings.measure_rates(effort)}
    assert list(found) == ["float32", "bfloat16", "exponentials", "memory", "on-chip memory"]
    assert {of: len(record.samples) for of, record in found.items()} == {
        "float32": 6, "bfloat16": 6, "exponentials": 9, "memory": 9, "on-chip memory": 0,
    }  # fmt: skip
    for record in list(found.values())[:-1]:
        assert record.value == max(record.samples) > 0
    assert measured_card(found.values(), Provenance.here("cpu").device)


def test_caches_are_counted_once_and_a_clock_is_quoted(tmp_path):
    for cpu in (0, 1):
        for index, (level, kind, size, shared) in enumerate(
            [("1", "Data", "32K", cpu), ("1", "Instruction", "32K", cpu), ("2", "Unified", "1024K", cpu),
             ("3", "Unified", "32768K", "0-1")]
        ):  # fmt: skip
            folder = tmp_path / f"cpu{cpu}" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            for name, text in zip(
                ("level", "type", "size", "shared_cpu_list"), (level, kind, size, shared), strict=True
            ):
                (folder / name).write_text(f"{text}\n")
    assert ceilings.cache_bytes(tmp_path) == (2 * 32 + 2 * 1024 + 32768) * 1024
    assert ceilings.cache_bytes(tmp_path / "nowhere") == 0
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\ncpu MHz\t\t: 2600.000\nflags\t\t: fpu avx512f\n")
    assert "x 16 lanes x 2 FLOP x 2600 MHz = " in ceilings.theory(info)
    assert ceilings.theory(tmp_path / "nowhere") == ""


# --------------------------------------------------------------------------------------------------- command and figure


def printed(capsys, *arguments: str) -> str:
    assert bench.main(["--floor", *arguments]) == 0
    return capsys.readouterr().out


def test_the_command_prints_rows_and_where_floors_cross(capsys):
    given = ["--card", "H100", "--model", "DiT-XL/2", "DiM-XL/2", "--res", "256", "--dtype"]
    out = printed(capsys, *given, "bfloat16")
    words = " ".join(out.split())
    assert "H100 DiT-XL/2 256 1 forward, bfloat16 0.240 0 0.015" in words
    assert "H100 DiT-XL/2 256 1 forward, bfloat16 0.366 0.366 bytes" in words
    assert out.splitlines()[-1] == (
        "H100, forward, bfloat16: DiM-XL/2 beside DiT-XL/2 can be faster from 1008 px; at peak rates is "
        "faster from 1824 px, whatever overlaps; at peak rates is slower up to 208 px, whatever overlaps; elsewhere it "
        "cannot be decided by floors"
    )
    rows = list(csv.DictReader(io.StringIO(printed(capsys, *given, "float32", "--format", "csv"))))
    assert [(row["model"], row["arithmetic"], row["binds"]) for row in rows] == [
        ("DiT-XL/2", "float32", "matrix"), ("DiT-XL/2", "tf32", "bytes"),
        ("DiM-XL/2", "float32", "matrix"), ("DiM-XL/2", "tf32", "bytes"),
    ]  # fmt: skip


def test_rates_of_this_cpu_are_measured_once(capsys, tmp_path, monkeypatch):
    device = Provenance.here("cpu").device
    calls = []

    def measure():
        calls.append(1)
        return [rate(record.workload["of"], record.value, device) for record in RATES]

    monkeypatch.setattr(ceilings, "measure_rates", measure)
    monkeypatch.setattr("harness.report.floors.store.load", lambda *places: store_load(*places) if places else [])
    path = tmp_path / "peaks.jsonl"
    for _ in range(2):
        out = printed(capsys, "--card", "cpu", "--model", "DiT-S/4", "--res", "256", "--records", str(path))
        assert "forward, float32" in out
        assert "tf32" not in out
    assert (len(calls), len(store_load(path))) == (1, len(RATES))


store_load = store.load


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--card", "L4"], "--card changes nothing without --floor"),
        (["--floor", "--rounds", "3"], "--rounds changes nothing with --floor"),
        (["--floor", "--predict"], "--predict changes nothing with --floor"),
        (["--floor", "--device-memory", "80GiB"], "--device-memory changes nothing with --floor"),
        (["--floor", "--attention", "naive"], "--attention changes nothing with --floor"),
        (["--floor", "--checkpointing", "--action", "train"], "--checkpointing changes nothing with --floor"),
        (["--floor", "--preset", "gpu-sweep"], "--preset changes nothing with --floor"),
        (["--floor", "--records", "x.jsonl"], "--records changes nothing without --card cpu"),
        (["--floor", "--card", "V100"], "invalid choice: 'V100' (choose from"),
        (["--compare", "a", "b", "--floor"], "--floor changes nothing with --compare"),
    ],
)
def test_flags_that_change_nothing_are_refused_by_name(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        bench.main(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message in error
    assert error.count("\n") == 1


def test_the_figure_has_a_panel_a_card_and_dashes_by_what_binds():
    measured = [latency(0.001, "DiT-XL/2", "NVIDIA L4", dtype="bfloat16")]
    drawing = report.figure("floors", measured)
    panels = {axes.get_title(): axes for axes in drawing.axes if axes.get_title()}
    assert list(panels) == ["H100", "H200", "A100", "L4", "RTX4090"]
    texts = [text.get_text() for text in panels["H100"].texts]
    assert texts == ["lower from 1008 px on", "lower everywhere"]
    legend = [text.get_text() for text in drawing.axes[-1].get_legend().get_texts()]
    assert legend == ["DiT-XL/2", "DiM-XL/2", "DiM-XL/2-matched", "bound by bytes", "bound by matrix products"]
    (ring,) = [line for line in panels["L4"].lines if line.get_marker() == "o"]
    assert np.allclose((ring.get_xdata()[0], ring.get_ydata()[0]), (256, 1.5))


def test_the_committed_table_is_that_which_the_committed_records_make():
    table, folder = floors_table(store.load()), PROJECT / "tables"
    for suffix, text in ((".csv", table.csv()), (".md", table.markdown()), (".tex", table.latex())):
        assert (folder / f"floors{suffix}").read_text() == text


def test_the_table_has_every_card_model_resolution_action_and_arithmetic():
    table = floors_table([])
    assert len(table.data) == 5 * 3 * 4 * 3 * 3  # cards, models, resolutions, actions, arithmetics
    assert {"can_be_faster_from_px", "faster_at_peak_from_px"} <= set(table.data)
