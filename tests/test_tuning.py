"""Choosing and scoring apart: settings come from tuning seeds and a part of the data that no score sees."""

import dataclasses
import math
import random

import pytest

from harness.core import store
from harness.core.provenance import Provenance
from harness.core.records import ScoreRecord
from harness.report.tuning import tuning_table
from harness.suites import SCALES, Assumptions, Plan, Run, Score, Suite, execution, script, suite
from harness.suites.launch import Launch
from harness.suites.rows import Row
from harness.suites.tuning import FIRST_SEED, Choice
from models import spec

QUANTITIES = {
    "fd2k@efficientnet-lite0": ("fd",), "sfd2k@efficientnet-lite0": ("sfd",), "accuracy2k@fashion-mnist": ("accuracy",),
    "pr2k@efficientnet-lite0": ("precision", "recall"), "is2k@fashion-mnist": ("inception_score",),
}  # fmt: skip
HERE = Provenance.here()
TUNING = SCALES["fashion"][1].tuning


def answers(score, value, quantities=QUANTITIES):
    """Records that answer a score, its Fréchet distance of this value."""
    workload = {"step": score.step, "training": score.training, "sampling": score.sampling, "reference": score.ref}
    workload |= {"model": score.run.model, "n_samples": 2000, "training_cpu_seconds": score.step / 10}
    return [
        ScoreRecord(
            quantity=quantity, value=value if quantity == "fd" else 0.5, unit="1", method="",
            workload={**workload, "metric": metric}, provenance=HERE,
        )
        for metric in score.metrics
        for quantity in quantities[metric]
    ]  # fmt: skip


def value_of(score):
    """Made up: DiM is best at rate 0.002, all others at 0.004, every family at an average of 0.998 and guidance 2."""
    config, decay = score.run.config, score.training["ema_decay"]
    best = {"DiM": 2e-3}.get(score.run.model.partition("-")[0], 4e-3)
    return 10 + 1e3 * abs(config.learning_rate - best) + 1e3 * abs(decay - 0.998) + abs(score.cfg_scale - 2)


def carried_out(until=None):
    """The records of a suite that is carried out to the end, or until so many scores, and the scores in order."""
    records, done = [], []
    while left := [score for score in suite("fashion", records).scores() if score not in set(done)]:
        for score in left if until is None else left[: until - len(done)]:
            done.append(score)
            records += answers(score, value_of(score))
        if len(done) == until:
            break
    return records, done


@pytest.fixture(scope="module")
def whole():
    return carried_out()


def test_every_family_takes_its_own_best_settings(whole):
    records, _ = whole
    choices = suite("fashion", records).choices
    made = {(choice.setting, choice.family, choice.model): choice.made(records) for choice in choices}
    for family, rate in (("DiT", 4e-3), ("DiM", 2e-3)):
        for model in set(TUNING.models.values()):
            assert (made["learning_rate", family, model], made["ema_decay", family, model]) == (rate, 0.998)
        assert made["cfg_scale", family, "N/4"] == 2.0
        rows = [row for row in suite("fashion", records).rows if row.family == family]
        configs = [score.run.config for row in rows for score in row.scores]
        settings = {(config.learning_rate, config.ema_decay) for config in configs}
        assert settings == {(rate, 0.998)}


def test_four_rates_or_more_are_tried_of_each_family_and_size(whole):
    found = suite("fashion", whole[0]).choices
    choices = [choice for choice in found if choice.setting == "learning_rate"]
    tried = {(choice.family, choice.model) for choice in choices}
    both = {(family, model) for family in ("DiT", "DiM") for model in ("P/4", "N/4", "U/4")}
    assert tried == both | {("DiG", "N/4"), ("DiffuSSM", "N/2")}
    assert all(len(choice.candidates) >= 4 for choice in choices)
    sizes = {name: spec(f"DiT-{name}") for name in TUNING.models}
    for name, tuned in TUNING.models.items():
        assert sizes[name].width <= 1.25 * sizes[tuned].width, "of one class"


def test_no_score_sees_a_tuning_seed_or_the_part_that_settings_are_chosen_on(whole):
    found = suite("fashion", whole[0])
    tuned = {score for choice in found.choices for score in choice.scores}
    scored = {score for row in found.rows for score in row.scores}
    assert {score.ref for score in tuned} == {"fashion-mnist:validation"}
    assert {score.ref for score in scored} == {"fashion-mnist:test"}
    assert min(score.run.seed for score in tuned) == FIRST_SEED
    assert max(score.run.seed for score in scored) < FIRST_SEED
    assert not {score.sample_seed for score in tuned} & {score.sample_seed for score in scored}


def test_models_of_equal_size_or_cost_have_five_training_seeds_and_two_draws(whole):
    found, last = suite("fashion", whole[0]), max(SCALES["fashion"][1].milestones.values())
    for row in found.rows:
        model = row.scores[0].run.model.partition("-")[2].removesuffix("-matched")
        equal = row.family == "DiT" or "matched" in row.scores[0].run.model or row.scores[0].run.config.depth
        one = row.part == "figure1" and model in ("U/4", "M/4")
        several = equal or model == "N/4"
        assert len(row.seeds) == (1 if one else 5 if several else 3), row.label
        draws = {len(scores) for scores in row.seeds.values()}
        drawn_again = several and row.scores[0].step == last and row.scores[0].cfg_scale == 1.5
        assert draws == ({2} if drawn_again else {1}), row.label
        rivals = {other.family for other in found.rows if (other.part, other.contest) == (row.part, row.contest)}
        further = {"N/4": {"DiG"}, "N/2": {"DiffuSSM"}}[model] if row.part == "families" else set()
        assert rivals == {"DiT", "DiM"} | further
    parts = {"table2", "table5", "table6", "table7", "figure1", "sequence-length", "families"}
    assert {row.part for row in found.rows} == set(found.parts) == parts


def test_nothing_is_compared_before_its_settings_are_chosen_and_equal_parameters_at_patch_4_come_first(whole):
    records, _ = carried_out(until=1)
    assert suite("fashion", records).rows == ()
    tuned = [score for score in whole[1] if score.ref == TUNING.ref]
    assert whole[1].index(tuned[0]) == 0
    scored = [score for score in whole[1] if score.ref != TUNING.ref]
    first = list(dict.fromkeys(score.run.model for score in scored))
    assert first[:2] == ["DiT-N/4", "DiM-N/4-matched"]
    assert first.index("DiM-M/4-matched") < first.index("DiM-U/4")


def test_records_alone_continue_a_suite(whole, tmp_path):
    """No checkpoint is needed of what is answered; a run with a score left is trained and scored anew."""
    records, done = whole
    path = tmp_path / "measurements" / "fashion.jsonl"
    store.append(path, records)
    plan = Plan(suite=suite("fashion", []), runs=tmp_path / "runs", results=tmp_path).renewed()
    assert plan.work() == []
    assert plan.floor() is not None
    path.unlink()
    lost = next(score for score in done if score.ref != TUNING.ref)
    store.append(path, [record for record in records if not lost.matches(record)])
    (work,) = plan.renewed().work()
    assert (work.run, work.train, work.scores[0]) == (lost.run, True, lost)
    of_one_checkpoint = [score for score in done if (score.run, score.step) == (lost.run, lost.step)]
    assert sorted(map(repr, work.scores)) == sorted(map(repr, of_one_checkpoint))


def test_a_plan_trains_each_run_once_and_is_of_its_stages_alone(whole, tmp_path):
    tuned = [record for record in whole[0] if "training" not in record.workload
             or record.workload["training"]["seed"] >= FIRST_SEED]  # fmt: skip
    plan = Plan(suite=suite("fashion", tuned), runs=tmp_path / "runs", results=tmp_path)
    store.append(plan.records, tuned)
    runs = {work.run for work in plan.work()}
    assert len(runs) < len(plan.work()), "some runs have scores of more and of less need"
    assert sum(work.train for work in plan.work()) == len(runs)
    for stages in (("train",), ("score",), ("train", "score")):
        lines = list(script(dataclasses.replace(plan, stages=stages), Assumptions()))
        trained, scored = (sum(f"harness.{name} " in line for line in lines) for name in ("train", "eval"))
        assert trained == len(runs) * ("train" in stages)
        assert bool(scored) == ("score" in stages)
        assert lines[-1].startswith(f"# {len(runs)} runs, ")


def test_a_candidate_without_a_score_leaves_the_choice_open(whole):
    records, _ = whole
    choice = next(one for one in suite("fashion", records).choices if one.setting == "ema_decay")
    lost = choice.candidates[0][1][0]
    assert choice.made(records) is not None
    assert choice.made([record for record in records if not lost.matches(record)]) is None


@pytest.fixture(scope="module")
def diverging(tmp_path_factory):
    """A suite that chooses between a rate at which training diverges and one that has been scored; carried out."""
    place = tmp_path_factory.mktemp("diverging")

    def score(rate):
        changes = (("learning_rate", rate), ("batch", 4))
        run = Run(preset="digits", model="DiT-P/4", milestones=(40,), seed=FIRST_SEED, changes=changes)
        return Score(run=run, step=40, metrics=("fd8@digits",), cfg_scale=1.0, sampling_steps=2)

    diverges, learns = score(0.99), score(1e-3)
    candidates = tuple((each.run.config.learning_rate, (each,)) for each in (diverges, learns))
    choice = Choice(setting="learning_rate", family="DiT", model="P/4", candidates=candidates)
    row = Row(part="table2", label="one", family="DiT", contest="one", scores=(learns,))
    found = Suite("smoke", "one choice", (row,), 1, choices=(choice,))
    plan = Plan(suite=found, runs=place / "runs", results=place / "results")
    (scored,) = answers(learns, 7.0, {"fd8@digits": ("fd",)})
    store.append(plan.records, [scored])
    object.__setattr__(plan, "renewed", lambda: plan)  # its suite is none of the catalogue's
    return plan, choice, execution.carry_out(plan, execution.Workers(Launch(), 1), 1)


def test_a_candidate_that_diverges_is_the_worst_and_is_not_trained_again(diverging):
    plan, choice, failures = diverging
    assert failures == []
    records = plan.recorded()
    assert choice.values(records) == {0.99: [math.inf], 1e-3: [7.0]}
    assert choice.made(records) == 1e-3
    assert plan.work() == []
    (record,) = [record for record in records if record.verdict == "error"]
    assert record.note.startswith("loss ")


def test_the_table_of_candidates_says_which_diverged(diverging):
    plan, _, _ = diverging
    table = tuning_table(plan.suite, plan.recorded())
    ((name, learned, diverged),) = table.blocks[0].rows
    assert (name, str(diverged), str(learned)) == ("DiT-P/4", "diverged", "7")
    assert list(table.data["mean"]) == ["diverged", 7.0]


def test_a_row_that_diverges_is_a_failure(diverging, tmp_path):
    _, choice, _ = diverging
    score = choice.candidates[0][1][0]
    row = Row(part="table2", label="one", family="DiT", contest="one", scores=(score,))
    rows = Plan(suite=Suite("smoke", "no choice", (row,), 1), runs=tmp_path / "runs", results=tmp_path / "results")
    (failure,) = execution.carry_out(rows, execution.Workers(Launch(), 1), 1)
    assert "ended with 1" in failure
    assert rows.recorded() == []


def test_a_decay_is_tried_on_averages_that_the_training_of_its_rate_keeps(whole):
    """Averages do not act on training, so a decay costs samples alone; what was trained with one answers it, too."""
    records, _ = whole
    choices = suite("fashion", records).choices
    trained = {score.run for one in choices if one.setting == "learning_rate" for score in one.scores}
    for choice in (one for one in choices if one.setting == "ema_decay"):
        for decay, (score,) in choice.candidates:
            kept = {score.run.config.ema_decay, *score.run.further_decays}
            assert score.run in trained
            assert decay in kept
            assert score.training["ema_decay"] == decay
            flags = score.flags()
            own = decay == score.run.config.ema_decay
            assert own or flags[flags.index("--ema-decay") + 1] == str(decay)
            (record,) = answers(score, 1.0)
            others = [other for _, (other,) in choice.candidates if other != score]
            assert score.is_answered_by(record)
            assert not any(other.is_answered_by(record) for other in others)


def test_where_the_best_rate_is_the_largest_twice_that_is_tried_until_it_is_not():
    records = []
    while True:
        choice = next(c for c in suite("fashion", records).choices if (c.family, c.model) == ("DiT", "P/4"))
        left = [score for score in choice.scores if not any(score.is_answered_by(record) for record in records)]
        if not left:
            break
        records += [r for score in left for r in answers(score, abs(score.run.config.learning_rate - 0.014))]
    assert [value for value, _ in choice.candidates] == [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2]
    assert choice.made(records) == 1.6e-2


@pytest.mark.parametrize(
    ("best", "tried", "made"),
    [(0.97, [0.99, 0.995, 0.998, 0.98, 0.96], 0.98), (0.9, [0.99, 0.995, 0.998, 0.98, 0.96], 0.96),
     (0.9999, [0.99, 0.995, 0.998], 0.998), (0.995, [0.99, 0.995, 0.998], 0.995)],
)  # fmt: skip
def test_where_the_best_decay_is_an_end_the_next_is_tried_within_limits(best, tried, made):
    records = []

    def choice():
        several = suite("fashion", records).choices
        return next((c for c in several if (c.setting, c.tuned) == ("ema_decay", "DiT-P/4")), None)

    while left := [
        score
        for one in suite("fashion", records).choices
        if one.tuned == "DiT-P/4"
        for score in one.scores
        if not any(score.is_answered_by(record) for record in records)
    ]:
        records += [r for score in left for r in answers(score, abs(score.training["ema_decay"] - best))]
    assert [value for value, _ in choice().candidates] == tried
    assert choice().made(records) == made


def test_a_score_against_another_part_is_another_score(whole):
    _, done = whole
    score = done[0]
    (record,) = answers(score, 1.0)
    assert score.is_answered_by(record)
    assert not dataclasses.replace(score, ref="fashion-mnist:test").is_answered_by(record)
    assert not dataclasses.replace(score, redraw=1).is_answered_by(record)


def test_the_order_of_records_does_not_matter(whole):
    records = list(whole[0])
    random.Random(0).shuffle(records)
    assert suite("fashion", records) == suite("fashion", whole[0])
