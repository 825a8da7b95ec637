"""The quality tables: cells from records, bold by a rule, claims by a test, one protocol, marks for what is absent."""

import dataclasses
import re
import shutil
import subprocess

import numpy as np
import pytest
from scipy import stats

from harness import report
from harness.core import paths, store
from harness.core.grid import Bold
from harness.core.paper import TABLES
from harness.core.provenance import Provenance
from harness.core.records import ScoreRecord
from harness.report.cells import Cell, two_digits, with_error
from harness.report.claims import Claim, Tally, holm, tally, welch
from harness.report.layout import Block, Table, escape
from harness.report.own_scores import included_lines
from harness.suites import Row, Run, Score, Suite
from harness.suites.budget import exact_cost

SEEDS = (0, 1, 2)
METRICS = ("fd1k@digits", "is1k@digits", "pr1k@digits")


def row(part, model, published, contest, variant="", step=500, cfg=1.5) -> Row:
    runs = [Run(preset="digits", model=model, milestones=(step,), seed=seed) for seed in SEEDS]
    scores = tuple(Score(run=run, step=step, metrics=METRICS, cfg_scale=cfg, sampling_steps=50) for run in runs)
    label = f"{model} at {step} steps"
    part = part if isinstance(part, str) else f"table{part}"
    return Row(part=part, label=label, family=model[:3], contest=contest, scores=scores, published=published,
               variant=variant)  # fmt: skip


def guidance(family, cfg) -> dict[str, str]:
    return {"model": f"{family}-B/4", "steps": "400000", "cfg": cfg}


SUITE = Suite("digits", "embedded digits", (
    row(7, "DiT-N/2", guidance("DiT", "1.0"), "1.0", cfg=1.0),
    row(7, "DiM-N/2", guidance("DiM", "1.0"), "1.0", cfg=1.0),
    row(7, "DiT-N/2", guidance("DiT", "1.5"), "1.5"), row(7, "DiM-N/2", guidance("DiM", "1.5"), "1.5"),
    row(7, "DiM-N/2-matched", None, "1.5", "matched"),
    *(row(5, f"DiM-N/{patch}", {"model": f"DiM-B/{patch}"}, str(patch)) for patch in (8, 4, 2)),
    *(row(5, f"DiT-N/{patch}", None, str(patch)) for patch in (8, 4, 2)),
), seeds=3)  # fmt: skip


def record(model, seed, value, quantity="fd", cfg=1.5, step=500, **changes) -> ScoreRecord:
    metric = {"fd": "fd1k@digits", "inception_score": "is1k@digits"}.get(quantity, "pr1k@digits")
    workload = {
        "metric": metric, "model": model, "step": step, "source": f"runs/{model}-{seed}",
        "n_samples": 1000, "n_reference": 1797, "reference": "digits", "reference_sha256": "ab" * 32, "resolution": 8,
        "arithmetic": "fp64",
        "extractor": {"network": "digits network", "weights_sha256": "cd" * 32, "published_weights": False},
        "training": dataclasses.asdict(Run(preset="digits", model=model, milestones=(step,), seed=seed).config),
        "sampling": {"steps": 50, "sampler": "ddpm", "cfg_scale": cfg, "cfg_channels": 3, "seed": seed,
                     "precision": "fp32", "weights": "ema", "classes": "uniform"},
    }  # fmt: skip
    for name, change in changes.items():
        workload[name] = {**workload[name], **change} if isinstance(change, dict) else change
    return ScoreRecord(
        quantity=quantity, value=value, unit="1", method=metric, workload=workload, parts={"standard_error": 0.25},
        provenance=Provenance.here("cpu"),
    )  # fmt: skip


def seeds(model, values, **how) -> list[ScoreRecord]:
    return [record(model, seed, value, **how) for seed, value in zip(SEEDS, values, strict=False)]


def cells(table: report.Table) -> dict[str, list[str]]:
    """Measured cells by the label of their row; rows of one label share theirs."""
    (block,) = table.blocks
    middle = block.header.index("model", 1)
    first = middle + 3  # behind parameters and multiply-adds
    return {line[middle] + (f" [{line[0]}]" if line[0] else ""): line[first:] for line in block.rows}


# ---------------------------------------------------------------------------------------------------------- statistics


def test_welch_is_the_hand_calculation():
    """a = 1, 2, 3 and b = 4, 6: variances 1 and 2, error^2 = 1/3 + 2/2, t = -3 / sqrt(4/3)."""
    found = welch([1.0, 2.0, 3.0], [4.0, 6.0])
    assert found.difference == pytest.approx(-3)
    assert found.standard_error == pytest.approx((4 / 3) ** 0.5)
    assert found.t == pytest.approx(-3 / (4 / 3) ** 0.5)
    assert found.df == pytest.approx((4 / 3) ** 2 / ((1 / 3) ** 2 / 2 + 1**2 / 1))
    assert found.p == pytest.approx(2 * stats.t.cdf(found.t, found.df))


def test_welch_needs_two_values_a_side_and_some_spread():
    assert welch([1.0], [2.0, 3.0]) is None
    assert welch([1.0, 1.0], [2.0, 2.0]) is None


def test_a_difference_exceeds_its_spread_where_the_test_says_so():
    generator = np.random.default_rng(0)
    exceeded = set()
    for shift in np.linspace(0, 3, 40):
        test = welch(list(generator.normal(0, 1, 3)), list(generator.normal(shift, 1, 4)))
        assert test.exceeds_spread == (test.p < 0.05)
        exceeded.add(test.exceeds_spread)
    assert exceeded == {True, False}


def test_holm_is_the_hand_calculation():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_claims_are_counted_by_sign_and_significance():
    near, far = [1.0, 1.1, 0.9], [5.0, 5.1, 4.9]
    claims = [
        Claim("fid", "", -1, near, far), Claim("fid", "", -1, far, near),
        Claim("fid", "", -1, near, [1.02, 1.12, 0.95]),
        Claim("fid", "", 0, near, far), Claim("fid", "", 1, near, []), Claim("fid", "", -1, [1.0], [2.0]),
    ]  # fmt: skip
    (count,) = tally(claims).values()
    assert count == Tally(holds=3, holds_significantly=1, reversed=1, reversed_significantly=1, untested=1, missing=1)
    assert count.words() == (
        "holds in 3 of 4 (significantly in 1); reversed in 1 (significantly in 1); "
        "too few seeds to test 1; 1 not measured yet"
    )


def test_seeds_that_all_agree_are_not_called_too_few():
    claims = [Claim("recall", "", 1, [0.0] * 3, [0.0] * 3), Claim("recall", "", 1, [1.0] * 3, [0.5] * 3)]
    (count,) = tally(claims).values()
    assert count.words() == (
        "holds in 1 of 2 (significantly in none); no difference in 1; no spread between seeds in 2"
    )


# --------------------------------------------------------------------------------------------------------------- cells


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [(12.3456, 0.234, "12.35 ± 0.23"), (1234.5, 67.8, "1234 ± 68"), (0.51234, 0.0123, "0.512 ± 0.012"),
     (12.3456, None, "12.35"), (3.0, 0.0, "3 ± 0")],
)  # fmt: skip
def test_a_value_ends_at_the_second_digit_of_its_error(value, error, text):
    assert with_error(value, error) == text


@pytest.mark.parametrize(
    ("value", "text"), [(777.3, "780"), (8.21, "8.2"), (0.0876, "0.088"), (0, "0"), (float("nan"), "nan")]
)
def test_a_deviation_has_two_digits_and_no_exponent(value, text):
    assert two_digits(value) == text


def test_a_cell_is_the_mean_over_seeds_with_its_deviation_or_one_seed_marked():
    assert Cell((1.0, 2.0, 3.0)).text() == "2.0 ± 1.0 (3)"
    assert Cell((2.0,), error=0.5).text() == "2.00 ± 0.50†"
    assert Cell((2.0, 4.0), mark="estimated").text() == "≈ 3.0 ± 1.4 (2)"


def test_without_records_every_table_is_there_with_its_marks():
    for number in report.QUALITY_TABLES:
        table = report.quality_table(number, SUITE, [])
        text = table.markdown()
        assert "python -m harness.reproduce --suite digits" in text
        for printed in report.published(number).iloc[:, 0]:
            assert printed in text
    shown = cells(report.quality_table(7, SUITE, []))
    # FD, IS, precision, recall; sFID, which these features do not have, is no column but a note
    assert shown["DiT-N/2 at 500 steps [DiT-B/4, guidance 1.0]"] == ["missing"] * 4
    table = report.quality_table(7, SUITE, [])
    assert any(note.startswith("sFID: these features do not define this metric") for note in table.notes)
    assert set(table.data["sfid_mark"]) == {"unsupported"}


def test_cells_take_the_latest_answer_of_each_seed_and_bold_only_what_exceeds_the_spread():
    records = [
        *seeds("DiT-N/2", [90.0, 90.0, 90.0]), *seeds("DiT-N/2", [10.0, 11.0, 12.0]),
        *seeds("DiM-N/2", [4.0, 5.0, 6.0]), *seeds("DiT-N/2", [0.5, 0.6, 0.4], quantity="precision"),
        *seeds("DiM-N/2", [0.52, 0.6, 0.4], quantity="precision"),
        *seeds("DiM-N/2-matched", [4.0], quantity="fd"), record("DiM-N/2", 0, None, cfg=1.0),
    ]  # fmt: skip
    (block,) = report.quality_table(7, SUITE, records).blocks
    dit, dim, matched = block.rows[2:5]
    assert (dit[9], dim[9], matched[9]) == ("11.0 ± 1.0", "5.0 ± 1.0", "4.00 ± 0.25†")
    assert isinstance(dim[9], Bold)
    assert not any(isinstance(cell, Bold) for cell in (*dit, *matched, dit[11], dim[11]))


def test_marks_are_words_where_there_is_no_number():
    oom, unsupported = (dataclasses.replace(record("DiT-N/2", 0, None), verdict=v) for v in ("oom", "unsupported"))
    for one, mark in ((oom, "OOM"), (unsupported, "unsupported"), (record("DiT-N/2", 0, 1.0, cfg=3.0), "missing")):
        shown = cells(report.quality_table(7, SUITE, [one]))
        assert shown["DiT-N/2 at 500 steps [DiT-B/4, guidance 1.5]"][0] == mark


# ------------------------------------------------------------------------------------------------------------ protocol


@pytest.mark.parametrize(
    ("change", "named"),
    [({"n_samples": 500}, "n_samples of fd: 1000 and 500"), ({"reference_sha256": "ef"}, "reference_sha256"),
     ({"sampling": {"cfg_channels": 1}}, "sampling.cfg_channels: 3 and 1"),
     ({"extractor": {"weights_sha256": "0"}}, "extractor.weights_sha256")],
)  # fmt: skip
def test_cells_of_different_protocols_are_refused_by_name(change, named):
    records = [record("DiT-N/2", 0, 1.0), record("DiM-N/2", 1, 2.0, **change)]
    with pytest.raises(ValueError, match=named) as refused:
        report.quality_table(7, SUITE, records)
    assert "DiT-N/2 at 500 steps and DiM-N/2 at 500 steps" in str(refused.value)


def test_the_protocol_is_told_from_the_records():
    records = [*seeds("DiT-N/2", [1.0, 2.0]), record("DiT-N/2", 0, 3.0, cfg=1.0)]
    stated = report.quality_table(7, SUITE, records).protocol
    for part in ("digits network (weights cdcdcdcd, not published)", "fd1k@digits: 1,000 samples", "50 ddpm steps",
                 "guidance as in the rows", "trained for 500 steps at batch 64", "training seeds 0, 1"):  # fmt: skip
        assert part in stated


# --------------------------------------------------------------------------------------------------------------- video


def test_table_3_has_every_printed_method_and_compares_latte_with_dim_each_way_of_training():
    def scores(family, joint):
        runs = [Run(preset="moving-digits", model=f"{family}-N/4-video", milestones=(500,), seed=seed,
                    changes=(("joint_images", 4),) if joint else ()) for seed in SEEDS]  # fmt: skip
        return tuple(
            Score(run=run, step=500, metrics=("fvd1k@moving-digits",), cfg_scale=1.5, sampling_steps=50) for run in runs
        )

    rows, records = [], []
    values = {("DiT", ""): 50.0, ("DiM", ""): 40.0, ("DiT", "+IMG"): 30.0, ("DiM", "+IMG"): 35.0}
    for (family, variant), value in values.items():
        named = {"DiT": "Latte", "DiM": "DiM"}[family] + variant
        several = scores(family, variant)
        rows.append(Row(part="table3", label=f"{family}-video{variant}", family=family, variant=variant, scores=several,
                        contest=variant or "clips alone", published={"method": named}))  # fmt: skip
        for score in several:
            training = dataclasses.asdict(score.run.config)
            one = record(score.run.model, score.run.seed, value + 0.1 * score.run.seed, "fvd", training=training)
            records.append(dataclasses.replace(one, workload={**one.workload, "metric": "fvd1k@moving-digits"}))
    suite = Suite("moving-digits", "moving digits", tuple(rows), seeds=3)
    table = report.quality_table(3, suite, records)
    (block,) = table.blocks
    assert sorted(line[0] for line in block.rows) == sorted(report.published(3)["method"])
    shown = {line[0]: line[-1] for line in block.rows}
    assert (shown["MoCoGAN"], shown["Latte"], shown["DiM+IMG"]) == ("–", "50.10 ± 0.10", "35.10 ± 0.10")
    assert isinstance(shown["DiM"], Bold)
    assert isinstance(shown["Latte+IMG"], Bold)
    assert block.groups[1][0] == "@moving-digits"
    claim = " ".join(table.claim)
    assert "DiM ahead of DiT in FVD in 2 of 2" in claim
    assert "holds in 1 of 2 (significantly in 1); reversed in 1 (significantly in 1)." in claim
    assert "joint training ahead of clips alone in 2 of 2" in claim
    assert "Joint training and clips alone: holds in 2 of 2 (significantly in 2)." in claim


def test_what_a_suite_measures_beside_the_printed_columns_is_shown_beside_them_and_claims_nothing():
    run = Run(preset="moving-digits", model="DiM-N/4-video", milestones=(500,))
    metrics = ("fvd1k@moving-digits", "accuracy1k@moving-digits", "motion1k@moving-digits")
    score = Score(run=run, step=500, metrics=metrics, cfg_scale=1.5, sampling_steps=50)
    row = Row(
        part="table3", label="DiM-N/4-video", family="DiM", contest="clips", scores=(score,),
        published={"method": "DiM"},
    )  # fmt: skip
    found = {"fvd": 40.0, "accuracy": 0.91, "moving": 0.75}
    records = []
    for metric, (quantity, value) in zip(metrics, found.items(), strict=True):
        one = record(run.model, 0, value, quantity, training=dataclasses.asdict(run.config))
        records.append(dataclasses.replace(one, workload={**one.workload, "metric": metric}))
    table = report.quality_table(3, Suite("moving-digits", "moving digits", (row,), seeds=1), records)
    (block,) = table.blocks
    assert block.header == ["model", "FVD ↓", "model", "params, K", "MMAC", "FVD ↓", "accuracy ↑", "moving ↑"]
    (shown,) = [line for line in block.rows if line[0] == "DiM"]
    assert [cell.split(" ")[0].rstrip("†") for cell in shown[5:]] == ["40.00", "0.91", "0.75"]
    assert {"accuracy", "accuracy_spread", "moving"} <= set(table.data)
    assert "accuracy" not in " ".join(table.claim)


# -------------------------------------------------------------------------------------------------------------- claims


def test_one_run_that_serves_two_kinds_is_one_test():
    """Holm multiplies the smallest p by the number of tests: this one is significant alone, and beside another not.

    Tests of another metric or question are no others.
    """
    sides = ([10.0, 11.0, 12.0], [13.0, 14.0, 15.5])
    p = welch(*sides).p
    assert 0.025 < p < 0.05
    twice = [Claim("fid", kind, -1, *sides) for kind in ("matched", "equal-macs")]
    assert all(count.holds_significantly == 1 for count in tally(twice).values())
    unprinted = Claim("fid", "", None, [9.0, 11.5, 12.5], [13.0, 14.0, 15.5])
    assert not any(count.holds_significantly for count in tally([*twice, unprinted]).values())
    elsewhere = [dataclasses.replace(unprinted, question="trend"), dataclasses.replace(unprinted, metric="is")]
    assert all(count.holds_significantly == 1 for count in tally([*twice, *elsewhere]).values())


def test_the_claim_of_a_contest_is_told_with_its_significance_and_at_equal_parameters():
    records = [
        *seeds("DiT-N/2", [10.0, 10.1, 10.2]), *seeds("DiM-N/2", [5.0, 5.1, 5.2]),  # as printed
        *seeds("DiT-N/2", [20.0, 20.1, 20.2], cfg=1.0), *seeds("DiM-N/2", [30.0, 30.1, 30.2], cfg=1.0),  # reversed
        *seeds("DiM-N/2-matched", [10.0, 10.3, 9.7]),
    ]  # fmt: skip
    claim = " ".join(report.quality_table(7, SUITE, records).claim)
    assert (
        "DiM ahead of DiT in FID in 2 of 2, sFID in 0 of 2, IS in 2 of 2, precision in 2 of 2, recall in 1 of 2."
        in claim
    )
    assert " FD: holds in 1 of 2 (significantly in 1); reversed in 1 (significantly in 1)." in claim, "no one's FID"
    assert "at equal parameters: holds in 1 of 1 (significantly in none); 2 not measured yet." in claim
    assert "a DiM has 1.7 times the parameters" in claim
    assert "neither confirm nor refute" in claim


def test_samples_that_repeat_themselves_are_counted_and_told():
    copies = dict(zip(SEEDS, (0, 100, 101), strict=True))  # of a thousand
    records = [record("DiM-N/8", seed, 500.0 + seed, duplicates=copies[seed]) for seed in SEEDS]
    table = report.quality_table(5, SUITE, records)
    assert any("± 1.0" in cell for label, line in cells(table).items() if "DiM-N/8" in label for cell in line)
    assert any("over 3 training seeds" in note for note in table.notes)
    (note,) = (note for note in table.notes if "copies" in note)
    assert note == f"DiM-N/8 at 500 steps, seed {SEEDS[2]}: 10% of the samples are copies of an earlier one."


def test_copies_are_a_share_of_all_sets_of_samples_and_of_the_worst_draw():
    sets = ["ab" * 32, "cd" * 32]
    records = [record("DiM-N/8", seed, 500.0 + seed, duplicates=150, samples_sha256=sets) for seed in SEEDS]
    assert not any("copies" in note for note in report.quality_table(5, SUITE, records).notes)  # 7.5 % of 2 x 1000


def test_the_later_score_counts_whatever_file_it_is_in():
    early, late = record("DiM-N/8", SEEDS[0], 5.0), record("DiM-N/8", SEEDS[0], 7.0)
    before = dataclasses.replace(early.provenance, time="2026-01-01T00:00:00+00:00")
    early = dataclasses.replace(early, provenance=before)
    both = [cells(report.quality_table(5, SUITE, order)) for order in ([early, late], [late, early])]
    assert both[0] == both[1]
    assert any("7" in cell for line in both[0].values() for cell in line)


def test_the_claim_of_a_sweep_is_its_trend():
    values = {8: [30.0, 31.0, 32.0], 4: [20.0, 21.0, 22.0], 2: [25.0, 26.0, 27.0]}
    records = [one for patch, several in values.items() for one in seeds(f"DiM-N/{patch}", several)]
    claim = " ".join(report.quality_table(5, SUITE, records).claim)
    assert "FID in 2 of 2" in claim
    assert "DiM, step by step: holds in 1 of 2 (significantly in 1); reversed in 1 (significantly in 1)" in claim


def test_single_seeds_give_signs_and_no_significance():
    records = [record("DiT-N/2", 0, 10.0), record("DiM-N/2", 0, 5.0)]
    claim = " ".join(report.quality_table(7, SUITE, records).claim)
    assert "holds in 1 of 1 (significantly in none); too few seeds to test 1" in claim
    assert "may be chance" in claim


def test_a_users_own_records_are_rows_scored_alike_however_trained():
    mine = record("DiM-S/2", 7, 3.0, step=9, training={"batch": 1}, source="mine")
    table = report.quality_table(7, SUITE, seeds("DiT-N/2", [1.0, 2.0]), [mine])
    assert cells(table)["mine (DiM-S/2), guidance 1.5, yours"][:2] == ["3.00 ± 0.25†", "missing"]
    assert table.left_out == []


def test_of_a_users_records_those_that_fit_are_rows_and_the_others_are_named_with_the_field_that_differs():
    """One evaluation at other settings does not take the table away, nor stand in it."""
    fits, unlike = (record("DiM-S/2", 7, value, source=source, sampling={"steps": steps})
                    for value, source, steps in ((3.0, "mine", 50), (9.0, "quick", 10)))  # fmt: skip
    both = [unlike, fits, record("DiM-S/2", 7, 8.0, source="mine", sampling={"steps": 10})]
    for records in (seeds("DiT-N/2", [1.0, 2.0]), []):  # the suite fixes the protocol before anything is measured, too
        table = report.quality_table(7, SUITE, records, both)
        shown = {label: line[0] for label, line in cells(table).items() if label.endswith("yours")}
        assert shown == {"mine (DiM-S/2), guidance 1.5, yours": "3.00 ± 0.25†"}
        assert table.left_out == [
            "left out: quick (DiM-S/2): sampling.steps is 10, here 50.",
            "left out: mine (DiM-S/2): sampling.steps is 10, here 50.",
        ]
        assert "- left out: quick (DiM-S/2)" in table.markdown()
        assert "left out: quick (DiM-S/2)" in table.latex()
    two = [record("DiM-S/2", 7, 1.0, source="mine", metric="fd500@digits", n_samples=500)]
    assert report.quality_table(7, SUITE, [], two).left_out == [
        "left out: mine (DiM-S/2): metric of fd is 'fd500@digits', here 'fd1k@digits'."
    ]


def test_another_distance_does_not_stand_in_the_column_of_the_suites_own():
    mine = record("DiM-S/2", 7, 3.0, quantity="fid", source="mine")
    table = report.quality_table(7, SUITE, [], [mine])
    assert not any(label.endswith("yours") for label in cells(table))
    assert table.left_out[0].startswith("left out: mine (DiM-S/2): fid is not measured here, but fd, ")


def test_newer_distances_of_a_users_own_records_are_columns_beside_the_papers():
    newer = {
        "fd_dinov2": ("fd50k@timm:vit_large_patch14_dinov2.lvd142m", "FD-DINOv2 ↓", 120.0),
        "cmmd": ("cmmd30k", "CMMD ↓", 0.5), "mind": ("mind5k", "MIND ↓", 9.0), "fdr6": ("panel50k", "FDr6 ↓", 3.0),
    }  # fmt: skip
    mine = [record("DiM-S/2", 7, 4.0, source="mine")]
    mine += [
        record("DiM-S/2", 7, value, quantity, source="mine", metric=metric, n_samples=50_000, n_reference=50_000,
               extractor={"network": quantity, "weights_sha256": "ef" * 32})
        for quantity, (metric, _, value) in newer.items()
    ]  # fmt: skip
    measured = seeds("DiT-N/2", [1.0, 2.0])
    for some in (mine, mine[:3]):
        table = report.quality_table(7, SUITE, measured, some)
        (block,) = table.blocks
        assert block.header[-len(some) + 1 :] == [name for _, name, _ in newer.values()][: len(some) - 1]
        own = cells(table)["mine (DiM-S/2), guidance 1.5, yours"]
        assert [own[0], *own[-len(some) + 1 :]] == [f"{one.value:.2f} ± 0.25†" for one in some]
        assert cells(table)["DiT-N/2 at 500 steps [DiT-B/4, guidance 1.5]"][-1] == "–"
        assert table.left_out == []
    assert report.quality_table(7, SUITE, measured).blocks[0].header[-1] == "recall ↑"


@pytest.mark.parametrize("first", ["fvd", "cdfvd"])
def test_cd_fvd_stands_beside_fvd_whose_network_is_another(first):
    networks = {"fvd": ("fvd2048_16f", "I3D"), "cdfvd": ("cdfvd2048_16f", "VideoMAE")}
    score = Score(
        run=Run(preset="moving-digits", model="DiM-N/4-video", milestones=(500,)), step=500, cfg_scale=1.5,
        metrics=tuple(metric for metric, _ in networks.values()), sampling_steps=50,
    )  # fmt: skip
    row = Row(part="table3", label="DiM-N/4-video", family="DiM", contest="clips", scores=(score,))
    records = [
        record(score.run.model, 0, value, quantity, metric=metric, training=dataclasses.asdict(score.run.config),
               extractor={"network": network, "weights_sha256": network})
        for value, (quantity, (metric, network)) in enumerate(networks.items(), 1)
    ]  # fmt: skip
    records = records if first == "fvd" else records[::-1]
    measured = report.quality_table(3, Suite("clips", "clips", (row,), seeds=1), records)
    assert "CD-FVD ↓" in measured.blocks[0].header
    (shown,) = (row for label, row in cells(measured).items() if label.startswith("DiM-N/4-video"))
    assert [shown[0], shown[-1]] == ["1.00 ± 0.25†", "2.00 ± 0.25†"]


def test_scores_of_two_versions_of_torch_stand_in_one_table_where_the_extractor_has_the_same_weights():
    old, new = record("DiT-N/2", 0, 1.0), record("DiT-N/2", 1, 2.0)
    versions = {**new.provenance.versions, "torch": "9.0.0"}
    assert versions != old.provenance.versions
    new = dataclasses.replace(new, provenance=dataclasses.replace(new.provenance, versions=versions))
    shown = cells(report.quality_table(7, SUITE, [old, new]))
    assert shown["DiT-N/2 at 500 steps [DiT-B/4, guidance 1.5]"][0] == "1.50 ± 0.71"
    mine = dataclasses.replace(record("DiM-S/2", 7, 3.0, source="mine"), provenance=new.provenance)
    assert report.quality_table(7, SUITE, [old, new], [mine]).left_out == []


def test_own_records_are_named_by_file_model_or_source(tmp_path):
    records = [record("DiM-S/2", 7, 3.0, source="mine"), record("DiT-N/2", 0, 1.0)]
    store.append(tmp_path / "mine.jsonl", [record("DiM-L/2", 7, 3.0)])
    assert [one.get("model") for one in report.included(["mine"], records)] == ["DiM-S/2"]
    several = report.included(["DiM-S/2", str(tmp_path / "mine.jsonl")], records)
    assert [one.get("model") for one in several] == ["DiM-S/2", "DiM-L/2"]
    mine = [record("DiT-N/2", 3, 1.0, source="at home")]
    assert [one.get("source") for one in report.included(["DiT-N/2"], records, mine)] == ["at home"]
    assert [one.get("source") for one in report.included(["mine"], records, mine)] == ["mine"]
    (tmp_path / "empty.jsonl").touch()
    for name in ("DiM-XL/2", str(tmp_path / "none.jsonl"), str(tmp_path / "empty.jsonl")):
        with pytest.raises(ValueError, match=r"no (evaluation|records|valid score)"):
            report.included([name], records)


def test_a_users_row_has_the_exact_cost_of_the_model_that_was_scored():
    known = {"dataset": "digits", "autoencoder": "identity", "num_classes": 10, "depth": 0, "frames": 0}
    mine = [record("DiT-S/2", 7, 3.0, training=known), record("DiT-S/2", 8, 3.0, training=known | {"depth": 3})]
    unknown = record("gMLP-S/2", 7, 3.0, training=known, source="elsewhere")
    bare = record("DiT-S/2", 7, 3.0, training=None, source="weights.pt")
    lines = included_lines(TABLES[7], [*mine, unknown, bare], ["fid"], [])
    suites_own = exact_cost(Run(preset="digits", model="DiT-S/2", milestones=(1,)))
    shallow = pytest.approx(suites_own.gmacs / 4, rel=0.1)
    assert [line.gmacs for line in lines] == [suites_own.gmacs, shallow, None, None]
    assert lines[0].params_m == suites_own.params / 1e6


def test_averages_of_one_checkpoint_are_rows_that_name_their_decays():
    mine = [record("DiT-S/2", 0, value, training={"ema_decay": decay}) for value, decay in ((3.0, 0.99), (2.0, 0.9))]
    lines = {line.label: line.cells["fid"].mean for line in included_lines(TABLES[7], mine, ["fid"], [])}
    assert {label.partition(", EMA decay ")[2]: mean for label, mean in lines.items()} == {
        "0.99, yours": 3.0, "0.9, yours": 2.0,
    }  # fmt: skip
    (alone,) = included_lines(TABLES[7], mine[:1], ["fid"], [])
    assert "EMA" not in alone.label


def test_a_name_with_a_bar_or_a_line_end_keeps_its_markdown_row_whole():
    table = report.quality_table(7, SUITE, [], [record("DiM-S/2", 7, 3.0, source="a|b\nß")])
    (line,) = (line for line in table.markdown().splitlines() if "yours" in line)
    assert r"a\|b ß (DiM-S/2)" in line
    (header, *_) = (line for line in table.markdown().splitlines() if line.startswith("|"))
    assert line.replace(r"\|", "").count("|") == header.count("|")
    assert table.latex().isascii()


# -------------------------------------------------------------------------------------------------------------- layout


def test_latex_is_booktabs_and_escaped():
    import pandas as pd

    block = Block(["a_b", "x ↓"], [["50 %", Bold("1 ± 2")], ["`f_g`", "3"]], groups=[("", 1), ("measured", 1)])
    table = Table("t", "R & D", pd.DataFrame({"a": [1.5]}), [block], notes=["100 #1"], protocol="p", claim=["c ~ d."])
    assert table.latex() == (
        "% needs \\usepackage{booktabs,graphicx}\n\\begin{table}\n\\centering\\footnotesize\n"
        "\\setlength{\\tabcolsep}{3pt}\n"
        "\\caption{R \\& D}\n\\label{tab:t}\n\\begin{tabular}{lr}\n\\toprule\n"
        "\\multicolumn{1}{c}{} & \\multicolumn{1}{c}{measured} \\\\\n\\cmidrule(lr){2-2}\n"
        "a\\_b & x $\\downarrow$ \\\\\n\\midrule\n50 \\% & \\textbf{1 $\\pm$ 2} \\\\\n\\texttt{f\\_g} & 3 \\\\\n"
        "\\bottomrule\n\\end{tabular}\n\\end{table}\n\n"
        "{\\footnotesize\\noindent\\textbf{On Table~\\ref{tab:t}.} 100 \\#1\n\\emph{Protocol.} p\n"
        "\\emph{The paper's claim.} c \\textasciitilde{} d.\\par}\n"
    )
    assert "**1 ± 2**" in table.markdown()
    assert table.csv() == "a\n1.5\n"
    with pytest.raises(ValueError, match="no LaTeX for ☃"):
        escape("☃")


def test_latex_sets_the_groups_of_a_wide_grid_below_each_other_without_their_empty_rows():
    block = Block(
        header=["model", *"abcd", "of the same task, by yet another name, another model", *"efgh"],
        rows=[["as it is named by those who made it", *"1234", "y", *"5678"], ["", "", "", "", "", "z", *"5678"]],
        groups=[("printed", 5), ("measured", 5)],
    )
    text = Table("t", "Wide", store.frame([]), [block]).latex()
    printed, measured = text.split(r"\textbf{measured}")
    assert (printed.count(r"\begin{tabular}{lrrrr}"), measured.count(r"\begin{tabular}{lrrrr}")) == (1, 1)
    assert r"made it & 1 & 2 & 3 & 4 \\" in printed
    assert "& 5" not in printed
    assert "y & 5" in measured
    assert "z & 5" in measured
    assert "resizebox" not in text


def test_latex_sets_columns_that_are_too_many_below_each_other_with_what_their_rows_are_of():
    names = ["model", "how", *(f"{pixels} pixels a side" for pixels in range(6))]
    block = Block(names, [["DiT", "as it is", *"123456"], ["DiM", "as it is", *"12", "", "", "", ""]])
    text = Table("t", "Wide", store.frame([]), [block]).latex()
    assert text.count(r"\begin{tabular}") == 2
    assert text.count("DiT & as it is") == 2
    assert text.count("DiM & as it is") == 1, "a row that has nothing in a part is not in it"


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex: Debian's texlive-latex-recommended")
def test_latex_of_the_committed_tables_compiles_and_no_line_is_wider_than_the_page(tmp_path):
    """In LaTeX's own article, with the two packages that the files name."""
    files = sorted((paths.PROJECT / "tables").glob("*.tex"))
    assert len(files) >= 10
    inputs = "\n".join(rf"\input{{{file}}}\clearpage" for file in files)
    text = rf"\documentclass{{article}}\usepackage{{booktabs,graphicx}}\begin{{document}}{inputs}\end{{document}}"
    (tmp_path / "all.tex").write_text(text)
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"], cwd=tmp_path,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", done.stdout)]
    assert max(wide, default=0) < 5, "points"


def test_a_table_in_a_terminal_begins_with_the_claim_and_fits_80_columns():
    text = report.quality_table(7, SUITE, seeds("DiT-N/2", [1.0, 2.0])).terminal()
    assert max(map(len, text.splitlines())) <= 80
    assert text.index("the paper prints DiM ahead") < text.index("FID ↓")
    assert "1.50 ± 0.71" in text
    assert "\x1b" not in text


def test_latex_of_every_table_balances_its_braces_and_fills_every_row():
    for number in report.QUALITY_TABLES:
        text = report.quality_table(number, SUITE, seeds("DiT-N/2", [1.0, 2.0])).latex()
        plain = text.replace(r"\{", "").replace(r"\}", "")
        assert plain.count("{") == plain.count("}")
        body = text[text.index(r"\begin{tabular}") : text.index(r"\end{tabular}")]
        columns = body.split("{", 2)[2].partition("}")[0]
        rows = [line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
        assert {len(row.replace(r"\&", "").split("&")) for row in rows} == {len(columns)}
        assert text.isascii()
