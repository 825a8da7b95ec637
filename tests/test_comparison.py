"""What is compared how: variance by hand, one rule, equal training time, the frontier, and what tables say of them."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats
from test_tuning import answers, carried_out

from harness import report
from harness.core.paper import TABLES
from harness.core.provenance import Provenance
from harness.core.records import ScoreRecord
from harness.report.cells import Cell
from harness.report.claims import decide, tally, welch
from harness.report.comparison import at_time, curves, decided
from harness.report.document_quality import (
    chosen_settings,
    family_scores,
    family_verdicts,
    photograph_scores,
    photograph_verdicts,
    sequence_ratios,
)
from harness.report.figures import style
from harness.report.figures.frontier import power_law, trained
from harness.report.figures.sequence import ratio, ratios
from harness.report.lines import Line, lines_of
from harness.report.variance import components
from harness.report.verdict import contests
from harness.suites import suite
from harness.suites.budget import training_macs


def test_the_components_of_variance_are_those_of_the_table_by_hand():
    """Trainings (1, 3), (4, 6), (7, 9): means 2, 5, 8; B = 2 * 18 / 2 = 18; W = 6 / 3 = 2; T = (18 - 2) / 2 = 8."""
    found = components([(1, 3), (4, 6), (7, 9)])
    assert (found.mean, found.training_sd**2, found.sampling_sd**2) == pytest.approx((5, 8, 2))
    reach = 4.302652729911275 * math.sqrt(18 / 6)  # Student's 97.5 % quantile at 2 degrees of freedom
    assert found.mean_interval == pytest.approx((5 - reach, 5 + reach))
    low, high = (3 * 2 / quantile for quantile in (9.348403604496149, 0.2157952826238981))  # chi-square, 3 degrees
    assert [end**2 for end in found.sampling_interval] == pytest.approx([low, high])


def test_trainings_that_differ_less_than_their_draws_have_no_variance_of_their_own():
    assert components([(0, 4), (1, 3), (2, 2)]).training_sd == 0


@pytest.mark.parametrize("draws", [[], [(1, 2)], [(1,), (2,)], [(1, 2), (3,)]])
def test_without_two_trainings_of_as_many_draws_there_are_no_components(draws):
    assert components(draws) is None


def test_intervals_cover_what_they_are_of():
    """Of 2,000 simulated tables of five trainings and two draws, T = 4 and S = 1, some 95 % each."""
    generator, covered = np.random.default_rng(0), np.zeros(3)
    for _ in range(2000):
        table = 10 + generator.normal(0, 2, (5, 1)) + generator.normal(0, 1, (5, 2))
        found = components(table.tolist())
        for place, (interval, truth) in enumerate(
            [(found.mean_interval, 10), (found.training_interval, 2), (found.sampling_interval, 1)]
        ):
            covered[place] += interval[0] <= truth <= interval[1]
    assert np.all(np.abs(covered / 2000 - 0.95) < 0.015)


@pytest.mark.parametrize(
    ("difference", "p", "direction", "verdict"),
    [
        (-20, 0.01, -1, "better"), (20, 0.01, -1, "worse"), (20, 0.01, 1, "better"), (-20, 0.2, -1, "inconclusive"),
        (-1.2, 1e-9, -1, "inconclusive"),  # 1.2 % of 100
    ],
)  # fmt: skip
def test_one_rule_decides(difference, p, direction, verdict):
    assert decide(difference, 100, p, direction) == verdict


def test_equal_time_is_read_off_between_milestones_on_logarithmic_axes():
    curve = [(100.0, 80.0), (400.0, 20.0)]
    assert at_time(curve, 200) == pytest.approx(40)
    assert (at_time(curve, 400), at_time(curve, 500), at_time(curve, 50)) == (20, 20, None)
    assert at_time([(100.0, 0.0), (400.0, 20.0)], 200) == pytest.approx(10), "0 has no logarithm"
    assert at_time([(100.0, 20.0), (400.0, 0.0)], 400) == 0


def test_the_power_law_and_its_band_are_those_of_linear_regression():
    x, y = np.array([1.0, 2, 4, 8, 16]), np.array([100.0, 60, 45, 20, 15])
    at = np.array([1.0, 4, 30])
    middle, low, high = power_law(x, y, at)
    theirs = stats.linregress(np.log(x), np.log(y))
    assert np.log(middle) == pytest.approx(theirs.intercept + theirs.slope * np.log(at))
    at_one = theirs.intercept_stderr * stats.t.ppf(0.975, 3)  # where log x is 0, the band is of the intercept
    assert (math.log(low[0]), math.log(high[0])) == pytest.approx(
        (theirs.intercept - at_one, theirs.intercept + at_one)
    )


# Tables of a suite with made-up scores


def value_of(score):
    """DiT is at 50, the DiM of its parameters at 40, both 10 higher with half the steps; seeds and draws scatter.

    DiG is at 41, DiffuSSM at 60. With patches of 2 all are a little higher, since rows of equal values are taken for
    one run.
    """
    base = 50 if score.run.model.startswith("DiT") else 40 if "matched" in score.run.model else 49.8
    base += {"DiG": 1, "DiffuSSM": 20}.get(score.run.model.partition("-")[0], 0)
    base += 1e-6 * ("/2" in score.run.model)
    scatter = (-1.0, -0.5, 0.0, 0.5, 1.0)[score.run.seed % 5] + (-0.1, 0.1)[score.redraw]
    return base + 20 * (1 - score.step / score.run.config.steps) + scatter


@pytest.fixture(scope="module")
def records():
    chosen, _ = carried_out()
    tuned = {score for choice in suite("fashion", chosen).choices for score in choice.scores}
    found = [record for record in chosen if record.get("training")["seed"] >= 100]
    for score in suite("fashion", chosen).scores():
        if score not in tuned:
            found += answers(score, value_of(score))
    floor = {
        "metric": "fd2k@efficientnet-lite0",
        "source": "fashion-mnist:validation",
        "reference": "fashion-mnist:test",
        "resolution": 32,
    }
    real = ScoreRecord(
        quantity="fd",
        value=2.5,
        unit="1",
        method="",
        workload={**floor, "n_samples": 2000},
        provenance=Provenance.here(),
    )
    return [*found, real]


def test_tables_say_what_is_better_at_equal_steps_and_at_equal_time_and_what_is_chance(records):
    table = report.quality_table(2, suite("fashion", records), records)
    said = "\n".join(table.claim)
    assert "DiM-N/4-matched at 3,000 steps against DiT-N/4 at 3,000 steps: -20.0%" in said
    assert "**better**" in said
    assert "DiM-N/4 at 3,000 steps against DiT-N/4 at 3,000 steps: -0.4%" in said
    assert "**inconclusive**" in said
    assert "FD at equal training time: DiM-N/4 against DiT-N/4 after 300 CPU seconds each" in said
    assert said.count("Rule: a model is better or worse than its baseline if") == 1
    assert not any("**worse**" in line for line in table.claim)


def test_tables_print_the_floor_the_settings_and_the_share_of_training_in_the_spread(records):
    notes = "\n".join(report.quality_table(6, suite("fashion", records), records).notes)
    assert "Floor, real images (fashion-mnist:validation) in the place of samples: FD 2.5." in notes
    assert "learning rate DiT-P/4 0.004, DiM-P/4-matched 0.002" in notes
    assert "training 0.78 (" in notes  # sqrt of (B - W) / 2: B = 2 * 0.625, W = 0.02
    assert "sampling 0.14 (" in notes


def test_all_families_stand_in_one_table_each_compared_with_the_dit_of_its_size_and_patch(records):
    (table,) = report.tables(["families"], records, suite("fashion", records))
    (block,) = table.blocks
    models = ["DiT-N/4", "DiM-N/4-matched", "DiG-N/4-matched"]
    assert [row[0] for row in block.rows] == [*models, "DiT-N/2", "DiM-N/2-matched", "DiffuSSM-N/2-matched"]
    assert block.header[0] == "model"
    assert not block.groups, "nothing is printed of it"
    distances = next(line for line in table.claim if line.startswith("FD, each family and DiT at equal parameters: "))
    assert distances.count(" against DiT-N/4: ") == 2
    assert distances.count(" against DiT-N/2: ") == 2
    assert "DiffuSSM-N/2-matched against DiT-N/2: +20" in distances
    assert "**Comparisons.**" in table.markdown()
    assert "The paper" not in table.markdown()
    assert [line.count("against") for line in family_verdicts(records).splitlines()] == [0] * 6
    assert family_scores(records).count("\n") == 7


def test_a_document_shows_the_chosen_settings_of_each_family(records):
    rows = chosen_settings(records, "fashion").splitlines()
    assert rows[0] == "| chosen at | learning rate | EMA decay | guidance scale |"
    assert "| DiT-N/4 | 0.004 | 0.998 | 2 |" in rows
    assert "| DiM-U/4-matched | 0.002 | 0.998 |  |" in rows, "guidance is chosen at one size"
    assert "| DiT-N/4 |  |" in chosen_settings([], "fashion").splitlines(), "nothing is chosen yet"


def test_a_suite_without_all_families_has_no_table_of_them():
    with pytest.raises(ValueError, match="suite digits has no rows of table families"):
        report.tables(["families"], [], suite("digits"))


def test_the_sweep_is_shown_with_its_choice_in_bold(records):
    table = report.tables(["tuning"], records, suite("fashion", records))[0]
    rates = {row[0]: row[1:] for row in table.blocks[0].rows}
    assert len(rates) == 8
    assert [isinstance(cell, report.Bold) for cell in rates["DiT-N/4"]] == [False, False, True, False]
    assert [isinstance(cell, report.Bold) for cell in rates["DiM-N/4-matched"]] == [False, True, False, False]
    assert table.data.chosen.sum() == len(suite("fashion", records).choices)


def test_every_table_and_the_frontier_can_be_made_while_records_come_in(records):
    for known in ([], records[:40], records):
        found = suite("fashion", known)
        for number in (2, 5, 6, 7):
            assert report.quality_table(number, found, known).markdown()
        assert report.tables(["families"], known, found)[0].markdown()
    assert report.figure("frontier", records, suite("fashion", records)).axes
    assert isinstance(report.drawn("frontier", [], suite("fashion", [])), str)


def test_a_training_that_is_scored_in_part_is_not_taken_for_one_that_has_ended(records):
    def unfinished(record):
        return (record.get("model"), record.get("training")["seed"], record.get("step")) == ("DiT-N/4", 4, 3000)

    known = [record for record in records if "training" not in record.workload or not unfinished(record)]
    assert len(known) < len(records)
    for some, seeds in ((records, {0, 1, 2, 3, 4}), (known, {0, 1, 2, 3})):
        found = curves(lines_of(TABLES[2], suite("fashion", some), some), "fid")
        assert set(found["DiT", ""]) == seeds
        assert {len(curve) for curve in found["DiT", ""].values()} == {4}


def test_a_score_of_zero_is_a_point_of_a_training(records):
    early = [(r, r.quantity == "recall" and r.get("step") == 750) for r in records]
    zero = [dataclasses.replace(record, value=0.0) if changed else record for record, changed in early]
    for some in (records, zero):
        found = curves(lines_of(TABLES[2], suite("fashion", some), some), "recall")
        assert {len(curve) for curve in found["DiT", ""].values()} == {4}


def test_the_frontier_is_fitted_through_models_at_the_end_of_training_alone(records):
    found = [one for one in trained(suite("fashion", records), records) if one.family == "DiT"]
    ends = [one for one in found if one.ended]
    assert len(found) > len(ends) >= 4
    left = report.figure("frontier", records, suite("fashion", records)).axes[0]
    own = [line for line in left.lines if line.get_color() == style.look("DiT")["color"]]
    (fit,) = [line for line in own if line.get_linestyle() == "-"]
    unit = max(one.flops for one in ends) / max(fit.get_xdata())
    assert left.get_xlabel() == f"training, $10^{{{math.log10(unit):.0f}}}$ FLOP"
    middle, *_ = power_law([one.flops / unit for one in ends], [one.distance for one in ends], fit.get_xdata())
    np.testing.assert_allclose(fit.get_ydata(), middle)


def test_your_scores_stand_in_the_frontier_over_the_flops_of_their_training_and_over_no_time(records):
    found = suite("fashion", records)
    score = next(one for row in found.rows if row.part == "table6" for one in row.scores if one.run.model == "DiT-U/4")
    known = next(record for record in records if record.quantity == "fd" and score.matches(record))
    task = {"dataset": "fashion-mnist", "autoencoder": "identity", "num_classes": 10}
    other = {**known.workload, "source": "mine", "step": 5000, "training": {**known.workload["training"], **task}}
    mine = dataclasses.replace(known, value=123.0, workload=other)
    yours, left_out = report.own_rows(records, [mine], found)
    assert not left_out
    panels = report.figure("frontier", records, found, yours=yours).axes
    marks = [[line for line in axes.lines if line.get_label() == "mine (DiT-U/4), yours"] for axes in panels]
    assert [len(several) for several in marks] == [1, 0]
    power = int(panels[0].get_xlabel().partition("{")[2].partition("}")[0])
    trained_flops = 2 * training_macs(score.run) / score.run.config.steps * 5000
    assert marks[0][0].get_xydata().tolist() == [[pytest.approx(trained_flops / 10**power), 123]]


def test_welchs_test_is_of_trainings_not_of_draws(records):
    """Ten draws of five trainings are five values a side."""
    table = report.quality_table(7, suite("fashion", records), records)
    row = table.data[table.data.measured_row == "DiT-N/4, guidance 1.5"].iloc[0]
    assert row.fid_seeds == 5
    assert welch([1, 2, 3, 4, 5], [1, 2, 3, 4, 6]).df < 9


def test_a_ratio_of_distances_has_the_interval_of_its_logarithm():
    middle, low, high = ratio([10.0, 40.0], [10.0, 10.0, 10.0])
    assert middle == pytest.approx(2.0)  # of the geometric means, 20 and 10
    log_error = math.log(4) / 2  # logarithms one log 4 apart: their standard deviation over sqrt 2
    assert math.log(high / low) == pytest.approx(2 * 12.706 * log_error, rel=1e-4)  # Student's t, one degree
    assert ratio([10.0], [20.0, 21.0])[1:] == (None, None)


def test_quality_against_sequence_length_is_the_ratio_at_each_length_and_kind(records):
    found = ratios(suite("fashion", records), records)
    assert {one.tokens for one in found} == {4, 16, 64, 256}  # 8, 16 and 32 pixels at patch 4, 32 at patch 2
    assert {one.variant for one in found} == {"matched", "equal-macs"}
    for one in found:
        if one.variant == "matched":
            assert one.value == pytest.approx(40 / 50, rel=5e-3)  # seeds scatter, geometric means follow
            assert one.low < one.value < one.high
    drawing = report.figure("sequence-length", records, suite("fashion", records))
    assert [text.get_text() for text in drawing.axes[0].get_xticklabels()] == ["4", "16", "64", "256"]
    with pytest.raises(ValueError, match="no records"):
        report.figure("sequence-length", [], suite("fashion", []))


def test_a_document_shows_the_scores_on_photographs_and_each_comparison_once(records):
    scores = photograph_scores(records)
    assert [line for line in scores.splitlines() if line.startswith("By ")] == [
        "By guidance:", "By training steps:", "By size, at patch 4:", "By patch, at size N:",
    ]  # fmt: skip
    assert "| DiM-N/4-matched, guidance 1.5 | 230 | 11.2 | 40.00 ± 0.79 |" in scores
    verdicts = photograph_verdicts(records).splitlines()
    row = "| training steps | DiM-N/4-matched after 300 CPU seconds each | DiT-N/4 |"
    assert verdicts.count(f"{row} -10.00 (-11.15 to -8.85) | -20.0% | **better** |") == 1
    assert len(set(verdicts)) == len([line for line in verdicts if line]) + 1, "no comparison stands there twice"
    lengths = sequence_ratios(records).splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lengths[2:]] == ["4", "16", "64", "256", "256"]
    assert lengths[2].endswith("| equal parameters and equal multiply-adds |")
    assert photograph_scores([]) == photograph_verdicts([]) == sequence_ratios([]) == ""


@pytest.mark.parametrize("column", ["fid", "sfid", "is", "precision"])
def test_what_the_claims_call_significant_is_what_the_verdicts_decide(column):
    """In the project's own Table 2 on photographs, all of whose comparisons the paper prints."""
    known = report.load()
    lines = lines_of(TABLES[2], suite("fashion", known), known)
    verdicts = [(pair.kind, pair.verdict(p)) for pair, p in decided(lines, column, over_steps=True) if not pair.at]
    counts = tally(contests(lines, [column]))
    for kind in ("", "matched"):
        count = counts[kind, column]
        significant = count.holds_significantly + count.reversed_significantly
        assert significant == sum(kind == one and verdict != "inconclusive" for one, verdict in verdicts)


def test_runs_that_two_contests_compare_are_one_test_and_a_rival_of_mean_zero_is_compared_too():
    def lines(contest):
        values = {"DiT": (0.0, 0.0, 0.0), "DiM": (1.0, 1.1, 0.9)}
        return [Line(f"{f}, {contest}", family=f, contest=contest, cells={"recall": Cell(values[f])}) for f in values]

    both = [*lines("guidance 1.5"), *lines("chosen guidance 1.5")]
    ((pair, p),) = decided(both, "recall", over_steps=False)
    assert p == pair.test.p, "Holm's correction for one test"
    assert pair.words(p) == "DiM, guidance 1.5 against DiT, guidance 1.5: +1.000 (+0.752 to +1.248), **better**"
