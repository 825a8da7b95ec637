"""Published costs: honest verdicts, data with sources, the command; multiples and utilisation by hand arithmetic."""

import dataclasses
import json

import pytest

from harness import flops, report
from harness.core import paths
from harness.core.workload import Workload
from harness.cost.multiples import Multiple
from harness.cost.observatory import observe, printed_figures, readings, verdicts
from harness.cost.observatory.checks import check
from harness.cost.observatory.outlines import FORMS
from harness.cost.observatory.printed import FORWARD, SAVING, TRAINING, chosen_figures
from harness.cost.observatory.readings import value_of
from harness.cost.utilisation import MeasuredStep, mfu
from harness.report.observatory import largest, rows
from models import spec


def test_tools_and_traces_give_what_the_verdicts_rest_on():
    lines = check(observe(["DiM-S/4", "DiT-S/8", "DiG-S/2"]))
    assert any(line.startswith("thop 0.") and "DiM-S/4 at 256" in line for line in lines)
    assert any(line.startswith("fvcore 0.") and "DiG-S/2 at 256" in line for line in lines)
    assert any(line == "traced on the meta device: DiT-S/8 at 256" for line in lines)


# ------------------------------------------------------------------------------------------------------------- verdicts


def key(printed):
    return printed.paper, printed.model, printed.resolution


def verdict_of(paper, model, resolution):
    (one,) = [o for o in observe([paper]) if key(o.printed) == (paper, model, resolution)]
    return one


def digs_figures():
    """Two that its own paper prints, and three that DiCo does."""
    return [one for one in observe(["DiG", "DiCo"]) if one.printed.model.startswith("DiG-")]


def test_digs_figures_are_decoded_to_two_parts_in_a_thousand_and_no_further():
    found = digs_figures()
    assert [one.verdict.split()[0] for one in found] == ["within"] * 5
    assert max(abs(one.best.deviation(one.printed)) for one in found) < 0.002
    assert all(set(one.missing) == {"linear in blocks.*.mlp", "recurrence in blocks.*.attn"} for one in found)


def test_a_supposition_that_gives_every_digit_decides_no_verdict():
    for one in digs_figures():
        suppositions = [tried for tried in one.tried if tried.reading.basis == "supposed"]
        assert sum(one.printed.agrees(tried.value) for tried in suppositions) >= 2
        assert one.best.reading.basis == "counted"


def test_diffussms_per_image_figures_are_quotients_of_two_rounded_ones_and_its_totals_are_unsolved():
    assert round(1.85e11 / 660e6, 1) == 280.3
    assert round(3.22e11 / 302e6, 1) == 1066.2
    for pixels in (256, 512):
        assert verdict_of("DiCo", "DiffuSSM-XL", pixels).verdict == "decoded"
        total = verdict_of("DiffuSSM", "DiffuSSM-XL", pixels)
        assert total.verdict == "unsolved"
        assert len(total.tried) >= 8
        assert total.best.reading.basis == "stated"


def test_no_reading_gives_both_totals_of_diffussm_and_only_a_supposition_with_a_part_of_fixed_length_is_near():
    totals = [verdict_of("DiffuSSM", "DiffuSSM-XL", pixels) for pixels in (256, 512)]
    near = [{t.reading for t in one.tried if abs(t.deviation(one.printed)) < 0.01} for one in totals]
    (both,) = near[0] & near[1]
    assert both.basis == "supposed"
    assert "524288 ND" in both.terms
    assert not all(one.printed.agrees(t.value) for one in totals for t in one.tried if t.reading == both)


def test_every_figure_of_dim_is_decoded_and_what_is_left_out_is_named():
    found = observe(["DiM"])
    assert len(found) == 13
    assert {one.verdict for one in found} == {"decoded"}
    mixer = {f"{kind} in blocks.*.mixer" for kind in ("linear", "conv", "scan")}
    assert all(set(one.missing) == mixer for one in found if one.printed.model.startswith("DiM"))


@pytest.mark.parametrize(("model", "gmacs"), [("DRWKV-H/2", 139.137), ("DiT-XL/2", 118.62)])
def test_a_training_of_unknown_length_has_an_exact_cost_an_image_and_no_reading(model, gmacs):
    one = verdict_of("Diffusion-RWKV", model, 256)
    assert (one.verdict, one.tried) == ("unsolved", ())
    assert one.exact_gmacs == pytest.approx(gmacs, rel=1e-4)


def test_a_saving_is_of_what_dits_paper_prints():
    found = {(one.printed.resolution, one.printed.printed): one for one in observe(["LaMamba-Diff"])}
    assert found[512, "61.6"].verdict == "decoded"
    assert found[256, "57.6"].verdict == "within 0.24 %"
    assert found[512, "61.6"].tried[1].value == pytest.approx(100 * (1 - 191.91003136 / 524.6))


def test_what_has_not_been_read_is_no_figure():
    found = observe(["DiS"])
    assert {one.verdict for one in found} == {"not read"}
    assert not any(one.printed.printed or one.solved for one in found)
    assert [round(one.best.value, 2) for one in found] == [0.43, 1.86, 3.70, 6.58, 14.79]


@pytest.mark.parametrize(
    ("printed", "images", "value", "verdict"),
    [
        ("118.64", "", 118.638, "decoded"), ("118.64", "", 118.6, "within 0.034 %"),
        ("4.30", "", 4.2925, "within 0.18 %"), ("2.13e11", "1792e6", 2.1257e11, "decoded"),
        ("2.13e11", "18e8", 2.10e11, "consistent"),
        ("100", "", 101.6, "unsolved"), ("", "", 1.0, "not read"),
    ],
)  # fmt: skip
def test_verdicts_follow_from_the_printed_digits(printed, images, value, verdict):
    figure = dataclasses.replace(printed_figures()[0], printed=printed, images=images)
    tried = verdicts.Tried(readings()[0], value)
    assert verdicts._verdict(figure, tried) == verdict


def test_terms_are_products_of_letters():
    letters = {"N": 2, "L": 16, "D": 3, "S": 5}
    assert value_of("4 NLD", letters) == 4 * 2 * 16 * 3
    assert value_of("0.5 NDDS", letters) == 0.5 * 2 * 9 * 5
    assert value_of("2 NLDlogL", letters) == 2 * 2 * 16 * 3 * 4
    with pytest.raises(ValueError, match="'4 XYZ' is no term"):
        value_of("4 XYZ", letters)


# ----------------------------------------------------------------------------------------------------------------- data


def test_every_reading_is_of_a_figure_and_every_figure_has_a_source():
    figures = printed_figures()
    assert all(any(reading.is_of(figure) for figure in figures) for reading in readings())
    assert {reading.basis for reading in readings()} == {"stated", "code", "counted", "supposed"}
    for figure in figures:
        assert figure.url.startswith("https://")
        assert figure.read_in
        assert figure.quantity in (FORWARD, TRAINING, SAVING)
        assert not figure.printed or float(figure.printed) > 0


def test_every_outline_is_of_a_printed_model_or_its_family():
    families = {figure.model.partition("-")[0] for figure in printed_figures()}
    assert {name.partition("-")[0] for name in FORMS} <= families


def test_figures_are_found_by_paper_number_family_and_model():
    assert {f.paper for f in chosen_figures(["2405.18428"])} == {"DiG"}
    assert {f.model for f in chosen_figures(["DiG-XL/2"])} == {"DiG-XL/2"}
    assert {f.paper for f in chosen_figures(["U"])} == {"DiCo"}
    with pytest.raises(ValueError, match="no published cost of 'PixArt'; choose from DiT, "):
        chosen_figures(["PixArt"])


# ---------------------------------------------------------------------------------------------------------- the command


def run(capsys, *arguments):
    flops.main(list(arguments))
    return capsys.readouterr().out


def test_a_section_names_rule_omissions_suppositions_and_sources(capsys):
    out = run(capsys, "--published", "DiG")
    assert "DiG-XL/2 256 89.40 89.366 within 0.038 % 115.46" in " ".join(out.split())
    assert "leaves out linear in blocks.*.mlp (21.9% to 22.2% of the exact cost)" in out
    assert "tried [supposed]: the same, were there one more normalisation a block: 4.287, 4.297" in out
    assert "https://arxiv.org/abs/2405.18428" in out
    assert "Of 5 figures: 5 within." in out


def test_rows_for_other_programs_keep_every_digit(capsys):
    rows = json.loads(run(capsys, "--published", "DiM-XL/2", "--format", "json"))
    assert [row["printed"] for row in rows][:1] == ["294.58"]
    assert rows[0]["counted"] == pytest.approx(294.578601984)
    assert rows[0]["printed_an_image_over_exact"] == pytest.approx(294.58 / 3 / 181.895380992)
    assert r"\begin{tabular}" in run(capsys, "--published", "DiM", "--format", "latex")


def test_the_committed_table_is_the_one_that_the_code_makes():
    (made,) = report.tables(["published"], [])
    for suffix, text in ((".csv", made.csv()), (".md", made.markdown()), (".tex", made.latex())):
        assert (paths.PROJECT / "tables" / f"published{suffix}").read_text() == text


def test_the_largest_of_a_family_is_as_the_first_paper_prints_it_and_no_variant():
    chosen = {one.printed.model: one.printed.paper for one in largest(observe(), 256)}
    assert chosen["DiT-XL/2"] == "DiT"  # not its cross-attention, nor what others print of it
    assert chosen["DiCo-H"] == "DiCo"
    assert chosen["DiG-XL/2"] == "DiCo"  # DiG's paper was read of the smallest alone
    assert chosen["Teng's DiM-H"] == "DiCo"
    assert len({name.rpartition("-")[0] for name in chosen}) == len(chosen) == 10


def test_the_figure_shows_every_figure_of_a_forward_pass():
    drawing = report.figure("published", [])
    points = sum(
        len(line.get_xdata()) for axes in drawing.axes for line in axes.lines if line.get_linestyle() == "None"
    )
    wanted = [row for row in rows(observe()) if row["printed_an_image_over_exact"]
              and row["resolution"] in (256, 512)]  # fmt: skip
    assert points == len(wanted) > 40


# -------------------------------------------------------------------------------------------- multiples and utilisation


@pytest.mark.parametrize(
    ("multiple", "passes"),
    [
        (Multiple(), 1), (Multiple(per="step"), 2), (Multiple(per="step", guidance=False), 1),
        (Multiple(per="sample"), 500), (Multiple(per="sample", sampling_steps=50, guidance=False), 50),
        (Multiple(per="training-run"), 3 * 256 * 400_000),
        (Multiple(per="training-run", recompute=True), 4 * 256 * 400_000),
    ],
)  # fmt: skip
def test_multiples_of_a_forward_pass(multiple, passes):
    assert multiple.passes == passes
    assert str(passes) in str(multiple)


def test_dits_sampling_cost_is_the_one_that_its_paper_prints(capsys):
    """Section 5.2: 80.7 Tflops an image of DiT-L/2 in 1000 steps, 15.2 of DiT-XL/2 in 128, without guidance."""
    for model, steps, tflops in (("DiT-L/2", 1000, 80.7), ("DiT-XL/2", 128, 15.2)):
        out = run(capsys, "--model", model, "--res", "256", "--per", "sample", "--sampling-steps", str(steps),
                  "--no-guidance", "--format", "json")  # fmt: skip
        assert round(1e3 * json.loads(out)[0]["pmacs_per_sample"], 1) == tflops


def test_utilisation_is_hand_arithmetic(capsys):
    step = MeasuredStep(step_seconds=0.9, peak_tflops=989.4)
    found = mfu(Workload(spec=spec("DiT-XL/2"), resolution=256, batch=256), step)
    assert found.flops == 2 * 3 * 256 * 118_621_421_568
    assert found.mfu == found.flops / 0.9 / 989.4e12
    forward = MeasuredStep(step_seconds=0.9, peak_tflops=989.4, action="forward")
    assert mfu(Workload(spec=spec("DiT-XL/2"), resolution=256, batch=256), forward).mfu == found.mfu / 3
    assert MeasuredStep(step_seconds=0.9, card="H100").peak_tflops == 989.4
    arguments = "--res 256 --batch 256 --step-seconds 0.9 --peak-tflops 989.4 --format json".split()
    assert json.loads(run(capsys, "--mfu", "DiT-XL/2", *arguments))[0]["mfu"] == found.mfu


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--mfu", "DiT-XL/2", "--step-seconds", "1", "--peak-tflops", "9"], "give one model and one --res"),
        (
            ["--mfu", "DiT-XL/2", "--res", "256", "--step-seconds", "1"],
            "needs --step-seconds, and --peak-tflops or --card",
        ),
        (["--mfu", "DiT-XL/2", "--res", "256", "--step-seconds", "1e-6", "--peak-tflops", "9"], "at least"),
        (["--mfu", "DiT-XL/3", "--res", "256", "--step-seconds", "1", "--peak-tflops", "9"], "nearest: DiT-XL"),
        (["--mfu", "DiT-XL/2", "--res", "256", "--step-seconds", "1", "--card", "H900"], "unknown card 'H900'; choose"),
        (["--step-seconds", "1"], "--step-seconds changes nothing without --mfu"),
        (["--sampling-steps", "10"], "--sampling-steps changes nothing without --per"),
        (["--per", "epoch"], "epoch"),
        (["--mfu", "DiT-XL/2", "--model", "DiM-XL/2"], "--model changes nothing with --mfu"),
        (["--mfu", "DiT-XL/2", "--per", "sample"], "--per changes nothing with --mfu"),
        (["--mfu", "DiT-XL/2", "--peak-tflops", "9", "--arithmetic", "float32"], "nothing without --card"),
        (["--per", "sample", "--batch", "7"], "--batch changes nothing with --per"),
        (["--per", "sample", "--full"], "--full changes nothing with --per"),
        (["--per", "sample", "--sampling-steps", "0"], "at least 1"),
        (["--published", "PixArt"], "no published cost of 'PixArt'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, arguments, complaint):
    with pytest.raises(SystemExit) as stopped:
        flops.main(arguments)
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert captured.out == ""
    assert complaint in captured.err
    assert len(captured.err.splitlines()) == 1
