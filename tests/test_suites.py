"""Suites: every cell of the paper has its runs, a changed setting is another run, a record answers one score alone."""

import dataclasses
import os

import pytest

from harness import report
from harness.core import store
from harness.core.files import sha256
from harness.core.options import from_arguments
from harness.core.provenance import Provenance
from harness.core.records import ScoreRecord, of_earlier_weights
from harness.cost import equal_macs_depth
from harness.diffusion.config import PRESETS, Execution, TrainConfig
from harness.report.cells import cell_of_row, evaluations
from harness.suites import SCALES, SUITES, Plan, Row, Run, Score, suite
from models import spec

RUN = Run(preset="digits", model="DiT-P/4", milestones=(4, 8), seed=1, changes=(("batch", 16),))
SCORE = Score(run=RUN, step=4, metrics=("fd1k@digits", "is500@digits"), cfg_scale=1.0, sampling_steps=25)


def record(**changes):
    """What harness.eval writes of SCORE."""
    training = {name: getattr(RUN.config, name) for name in ("model", "resolution", "batch", "learning_rate", "seed")}
    training |= {name: getattr(RUN.config, name) for name in ("num_classes", "flip", "ema_decay")}
    sampling = {"cfg_scale": 1.0, "steps": 25, "seed": 1, "sampler": "ddpm", "classes": "uniform"}
    sampling |= {"precision": "fp32", "weights": "ema"}
    fields = {"metric": "fd1k@digits", "step": 4, "verdict": "ok", "training": training, "sampling": sampling}
    for name, value in changes.items():
        for place in (training, sampling, fields):
            if name in place:
                place[name] = value
                break
        else:
            training[name] = value
    verdict = fields.pop("verdict")
    return ScoreRecord(
        quantity="fd", value=None if verdict == "oom" else 1.0, unit="1", method="", verdict=verdict, workload=fields,
        provenance=Provenance.here(),
    )  # fmt: skip


def test_the_paper_suite_has_each_published_cell_of_the_image_tables_once():
    rows = suite("paper").rows
    for table in (2, 5, 6, 7):
        keys = ("model", "steps", "cfg") if table in (2, 7) else ("model",)
        printed = [tuple(row[key] for key in keys) for row in report.published(table).to_dict("records")]
        part = f"table{table}"
        ours = [tuple(row.published[key] for key in keys) for row in rows if row.part == part and row.published]
        assert sorted(ours) == sorted(printed)


def test_the_paper_suite_is_section_4_of_the_paper():
    for run, scores in suite("paper").runs(["table2", "table5", "table6", "table7"]).items():
        config = run.config
        assert (config.batch, config.learning_rate, config.ema_decay, config.steps) == (256, 1e-4, 0.9999, 400_000)
        assert {score.sampling_steps for score in scores} == {250}
        assert {score.samples for score in scores} == {50_000}
        assert run.milestones == (100_000, 200_000, 300_000, 400_000)


@pytest.mark.parametrize("name", [name for name in SCALES if SCALES[name][1].equal_macs])
def test_depths_of_equal_cost_are_those_of_the_closed_form(name):
    scale = SCALES[name][1]
    resolution = dict(scale.changes).get("resolution", PRESETS[scale.preset].resolution)
    task = {"channels": 1, "downsample": 1, "num_classes": 10}
    for model, depth in scale.equal_macs.items():
        dim, dit = (spec(f"{family}-{model}", **task) for family in ("DiM", "DiT"))
        assert equal_macs_depth(dim, dit, resolution) == depth, model


def test_the_embedded_ladder_has_the_papers_depth_ratios():
    for ours, papers in SCALES["digits"][1].sizes.items():
        ratios = [spec(f"DiM-{size}/4").depth / spec(f"DiT-{size}/4").depth for size in (ours, papers)]
        assert ratios[0] == pytest.approx(ratios[1])


def test_compared_cells_have_three_seeds_or_more_and_rivals():
    for name in ("digits", "digits-gpu"):
        for row in suite(name).rows:
            assert len({score.run.seed for score in row.scores}) >= 3
            rivals = [other for other in suite(name).rows if (other.part, other.contest) == (row.part, row.contest)]
            assert {rival.family for rival in rivals} == {"DiT", "DiM"}


@pytest.mark.parametrize("name", SUITES)
def test_every_run_resolves_and_its_flags_are_those_of_the_trainer(name):
    from harness import train

    for run, scores in suite(name).runs().items():
        given = train.parser().parse_args(run.flags())
        assert from_arguments(TrainConfig, given, PRESETS[given.preset]) == run.config
        assert from_arguments(Execution, given).milestones == run.milestones
        assert {score.step for score in scores} <= set(run.milestones)


def test_a_changed_setting_is_another_run_and_an_equal_one_is_the_same():
    assert RUN.name == dataclasses.replace(RUN).name
    others = [
        dataclasses.replace(RUN, seed=2),
        dataclasses.replace(RUN, changes=(("batch", 32),)),
        dataclasses.replace(RUN, milestones=(4, 16)),
        dataclasses.replace(RUN, model="DiM-P/4"),
    ]
    assert len({RUN.name, *(other.name for other in others)}) == 5


def test_a_record_answers_the_score_of_its_own_settings_alone():
    assert SCORE.is_answered_by(record())
    changes = [
        {"batch": 32}, {"seed": 0}, {"learning_rate": 2e-3}, {"model": "DiM-P/4"}, {"depth": 2}, {"step": 8},
        {"cfg_scale": 1.5}, {"steps": 50}, {"sampler": "ddim"}, {"weights": "raw"}, {"metric": "fd2k@digits"},
        {"verdict": "error"}, {"training": {}}, {"sampling": None},
    ]  # fmt: skip
    for change in changes:
        assert not SCORE.is_answered_by(record(**change)), change


def test_what_no_record_answers_is_missing():
    assert SCORE.missing([record()]) == ["is500@digits"]
    assert SCORE.samples == 1000


def of_weights(sha256, day, sample_seed=1, **changes):
    """A record of SCORE's metric from weights of that digest."""
    one = record(**changes)
    sampling = {**one.workload["sampling"], "seed": sample_seed}
    workload = {**one.workload, "sampling": sampling, "source_identity": {"sha256": sha256}}
    origin = dataclasses.replace(one.provenance, time=f"2026-01-{day:02}T00:00:00+00:00")
    return dataclasses.replace(one, workload=workload, provenance=origin)


def test_draws_of_weights_that_were_trained_anew_since_are_missing_and_are_no_value_of_a_cell(tmp_path):
    score = dataclasses.replace(SCORE, metrics=("fd1k@digits",))
    scores = [score, dataclasses.replace(score, redraw=1)]
    plan = Plan(suite=suite("smoke"), runs=tmp_path, results=tmp_path)

    def missing(*known):
        plan.records.unlink(missing_ok=True)
        store.append(plan.records, known)
        left = plan.left(RUN, scores, plan.recorded())
        return left.scores if left else []

    first, same, other = of_weights("a", 1), of_weights("a", 2, 1001), of_weights("b", 2, 1001)
    assert missing(first, same) == []
    assert missing(first, other) == [score], "they would be two draws of two trainings"
    assert missing(other, first) == [score], "the order in time decides, not that of the lines"
    assert missing(first, other, of_weights("b", 3)) == []
    assert missing(first, same, of_weights("c", 3, batch=32)) == [], "another training says nothing of this one"

    missing(first, other)
    row = Row(part="table2", contest="", family="DiT", label="", scores=tuple(scores))
    assert cell_of_row(row, "fid", evaluations(plan.recorded()))[1] == [other]
    assert cell_of_row(row, "fid", evaluations([first, other]))[1] == [first, other], "as of two files of records"


def test_all_averages_of_a_checkpoint_are_of_earlier_weights_if_one_of_them_is():
    kept, scored_again = of_weights("a", 1, ema_decay=0.99), of_weights("b", 2, ema_decay=0.9)
    records = [of_weights("a", 1, ema_decay=0.9), kept, scored_again, of_weights("c", 3, seed=5)]
    assert of_earlier_weights(records) == {"a"}


def test_scores_of_one_run_from_two_files_of_weights_are_missing_whichever_average_they_are_of(tmp_path):
    run = dataclasses.replace(RUN, further_decays=(0.9,))
    score = dataclasses.replace(SCORE, metrics=("fd1k@digits",), run=run)
    scores = [score, dataclasses.replace(score, ema_decay=0.9)]
    plan = Plan(suite=suite("smoke"), runs=tmp_path, results=tmp_path)

    def missing(*known):
        left = plan.left(run, scores, [_from(name, one) for name, one in known])
        return left.scores if left else []

    def _from(name, one):
        source = f"somewhere/{name}/checkpoints/milestone-0000500.pt"
        return dataclasses.replace(one, workload={**one.workload, "source": source})

    own, average = of_weights("a", 1), of_weights("a", 1, ema_decay=0.9)
    later = of_weights("b", 2, ema_decay=0.9)
    assert missing((run.name, own), (run.name, average)) == []
    assert missing((run.name, own), (run.name, later)) == [score], "a comparison of two averages is of one training"
    assert missing((run.name, own), (run.name, average), (run.name, later)) == [score]
    assert missing((run.name, own), ("another run", later)) == [], "whose folder is another's was trained by itself"


def test_a_run_that_is_trained_anew_is_scored_anew_at_its_checkpoint(tmp_path):
    plan = Plan(suite=suite("smoke"), runs=tmp_path, results=tmp_path)
    run, scores = next(iter(plan.suite.runs().items()))
    known = [score for score in scores if score.step == scores[-1].step]
    wanted, rest = known[-1], known[:-1]
    assert rest
    stands_in = {score: [] if score in rest else list(score.metrics) for score in scores}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Score, "missing", lambda score, records: stands_in[score])
        left = plan.left(run, [wanted], [])
        assert (left.train, set(left.scores)) == (True, set(known))
        checkpoint = plan.checkpoint(run, wanted.step)
        checkpoint.parent.mkdir(parents=True)
        checkpoint.touch()
        assert plan.left(run, [wanted], []).scores == [wanted]


def test_what_the_paper_compares_comes_before_its_variants_and_one_seed_before_the_next():
    scores = list(suite("digits").scores())
    assert len(set(scores)) == len(scores)
    models = [score.run.model for score in scores]
    printed = scores[: models.index("DiM-N/2-matched")]
    assert {"DiT-N/2", "DiM-N/2", "DiT-M/2", "DiM-M/2", "DiT-N/4", "DiM-N/8"} <= {s.run.model for s in printed}
    assert not any("matched" in score.run.model or score.run.config.depth for score in printed)
    seeds = [score.run.seed for score in printed]
    assert seeds == sorted(seeds)
    assert set(seeds) == {0, 1, 2}


def test_an_unknown_suite_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"unknown suite 'tiny'; choose from smoke, digits, .*paper"):
        suite("tiny")


def test_a_contact_sheet_has_a_place_of_its_own_for_each_guidance_and_training(tmp_path):
    plan = Plan(suite=suite("smoke"), runs=tmp_path, results=tmp_path)
    score = next(iter(plan.suite.scores()))
    places = {plan.sheet(score), plan.sheet(dataclasses.replace(score, cfg_scale=8.0))}
    checkpoint = plan.checkpoint(score.run, score.step)
    checkpoint.parent.mkdir(parents=True)
    for since in (1, 2):
        checkpoint.touch()
        os.utime(checkpoint, ns=(since, since))
        places.add(plan.sheet(score))
    assert len(places) == 4


def test_scores_of_another_reference_file_do_not_stand_for_those_that_are_wanted(tmp_path):
    file = tmp_path / "reference.npz"
    file.write_bytes(b"one")
    plan = Plan(suite=suite("smoke"), runs=tmp_path, results=tmp_path, references={"digits": str(file)})
    score = dataclasses.replace(SCORE, metrics=("fd1k@digits",))
    one = record()
    known = [dataclasses.replace(one, workload={**one.workload, "reference_sha256": sha256(file)})]
    assert plan.left(RUN, [score], known) is None
    file.write_bytes(b"another")
    os.utime(file, ns=(1, 1))
    assert plan.left(RUN, [score], known).scores == [score]
    moved = dataclasses.replace(plan, references={})
    assert moved.left(RUN, [score], known) is None, "where nothing is given, what is recorded counts"
