"""The suite of clips that are matched and tuned: what is chosen, in which order, and by which commands it is filled."""

import dataclasses
import shlex
from pathlib import Path

import pytest

from harness import report
from harness.core import store
from harness.core.provenance import Provenance
from harness.core.records import ScoreRecord
from harness.diffusion.config import PRESETS
from harness.suites import Assumptions, Plan, script, suite
from harness.suites.catalogue import CLIP_SCALES
from harness.suites.tuning import FIRST_SEED

DATA = {"bouncing-digits": "bouncing-digits", "clips": "moving-digits"}
"""Of each suite."""
QUANTITIES = {"fvd": ("fvd",), "trajectory": ("continuing", "speed_distance"), "accuracy": ("accuracy",)}
PAPERS, MATCHED = "DiM-U/4-video", "DiM-U/4-matched-video"


def answers(score, value):
    """Records that answer a score, its Fréchet distance of this value."""
    workload = {"step": score.step, "training": score.training, "sampling": score.sampling, "reference": score.ref}
    workload |= {"model": score.run.model, "n_samples": 500}
    return [
        ScoreRecord(
            quantity=quantity, value=value if quantity == "fvd" else 0.5, unit="1", method="",
            workload={**workload, "metric": metric}, provenance=Provenance.here(),
        )
        for metric in score.metrics
        for quantity in QUANTITIES[metric.partition("500")[0]]
    ]  # fmt: skip


def value_of(score):
    """Made up: DiT is best at rate 0.008 and guidance 1, DiM at 0.002 and guidance 4; seeds and draws scatter.

    Where decays are chosen, DiT is best at 0.996, and DiM at 0.984. Joint images help the DiM of equal parameters, and
    nobody else.
    """
    family = score.run.model.partition("-")[0]
    rate, guidance = {"DiT": (8e-3, 1.0), "DiM": (2e-3, 4.0)}[family]
    decay = {"DiT": 0.996, "DiM": 0.984}[family] if score.run.preset == "bouncing-digits" else 0.998
    away = 1e3 * abs(score.run.config.learning_rate - rate) + abs(score.cfg_scale - guidance)
    away += abs(score.training["ema_decay"] - decay)
    ahead = {MATCHED: 20, PAPERS: 30}.get(score.run.model, 0)
    ahead += 25 * (score.run.model == MATCHED) if score.run.config.joint_images else 0
    return 100 - ahead + away + score.run.seed % 5 + 0.1 * score.redraw


@pytest.fixture(scope="module", params=DATA)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def data(name):
    return DATA[name]


@pytest.fixture(scope="module")
def whole(name):
    """The records of the suite when it is carried out to the end, and its scores in order."""
    records, done = [], []
    while left := [score for score in suite(name, records).scores() if score not in set(done)]:
        done.append(left[0])
        records += answers(left[0], value_of(left[0]))
    return records, done


def test_each_family_takes_its_own_rate_and_guidance_and_what_is_best_at_the_end_is_gone_beyond(name, whole):
    found = suite(name, whole[0])
    made = {(choice.setting, choice.family): choice.made(whole[0]) for choice in found.choices}
    assert made == {
        ("learning_rate", "DiT"): 8e-3, ("learning_rate", "DiM"): 2e-3,
        ("cfg_scale", "DiT"): 1, ("cfg_scale", "DiM"): 4,
        **({("ema_decay", "DiT"): 0.996, ("ema_decay", "DiM"): 0.984} if name == "bouncing-digits" else {}),
    }  # fmt: skip
    tried = {(choice.setting, choice.family): [value for value, _ in choice.candidates] for choice in found.choices}
    assert tried["learning_rate", "DiT"] == [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2]
    assert tried["learning_rate", "DiM"] == [1e-3, 2e-3, 4e-3, 8e-3]
    assert (tried["cfg_scale", "DiT"], tried["cfg_scale", "DiM"]) == ([1, 2, 4], [1, 2, 4, 8])
    if name == "bouncing-digits":
        decays = (tried["ema_decay", "DiT"], tried["ema_decay", "DiM"])
        assert decays == ([0.992, 0.996, 0.998], [0.992, 0.996, 0.998, 0.984])
    for row in found.rows:
        rate, guidance = {"DiT": (8e-3, 1.0), "DiM": (2e-3, 4.0)}[row.family]
        assert {(one.run.config.learning_rate, one.cfg_scale) for one in row.scores} == {(rate, guidance)}


def test_rows_are_of_one_size_and_of_the_papers_depth_with_three_seeds_and_two_draws(name, whole):
    rows = suite(name, whole[0]).rows
    models = [("DiT-U/4-video", 1), (PAPERS, 4), (MATCHED, 4)]
    assert [row.label for row in rows] == [
        f"{model}{images}, guidance {scale}" for images in ("", "+IMG") for model, scale in models
    ]
    methods = [row.published and row.published["method"] for row in rows]
    assert methods == ["Latte", "DiM", None, "Latte+IMG", "DiM+IMG", None]
    sizes = [row.scores[0].run.spec for row in rows]
    assert [size.depth for size in sizes] == [6, 8, 5] * 2
    for row in rows:
        assert {seed: len(scores) for seed, scores in row.seeds.items()} == {0: 2, 1: 2, 2: 2}
        images = {score.run.config.joint_images for score in row.scores}
        assert images == ({4} if row.contest.endswith("+IMG") else {0})


def test_what_is_chosen_comes_first_and_the_papers_depth_last_and_nothing_sees_both_parts(name, data, whole):
    records, done = whole
    tuned = [score for score in done if score.run.seed >= FIRST_SEED]
    assert {score.ref for score in tuned} == {f"{data}:tuning"}
    assert PAPERS not in {score.run.model for score in tuned}
    scored = [score for score in done if score.run.seed < FIRST_SEED]
    assert {score.ref for score in scored} == {data}
    assert done.index(tuned[0]) == 0
    alone = [score for score in scored if not score.run.config.joint_images]
    assert scored[: len(alone)] == alone
    for of_a_way in (alone, scored[len(alone) :]):
        assert [score.run.model == PAPERS for score in of_a_way] == [False] * 12 + [True] * 6
    assert suite(name, []).rows == ()
    assert suite(name, []).parts == suite(name, records).parts == ("table3",)


def test_the_plan_is_of_commands_that_the_trainer_and_the_scorer_take(name, data, whole, tmp_path):
    plan = Plan(suite=suite(name, []), runs=tmp_path / "runs", results=tmp_path)
    lines = [shlex.split(line) for line in script(plan, Assumptions()) if not line.startswith("#")]
    trained = [line for line in lines if "harness.train" in line]
    assert len(trained) == 8  # four rates of two families
    assert {line[line.index("--model") + 1] for line in trained} == {"DiT-U/4-video", MATCHED}
    assert {line[line.index("--steps") + 1] for line in trained} == {str(CLIP_SCALES[name][1].steps)}
    scored = [line for line in lines if "harness.eval" in line]
    assert len(scored) == 8
    for line in scored:
        assert line[line.index("--ref") + 1] == f"{data}:tuning"
        assert line[line.index("--steps") + 1] == "50"
        assert "--sampler" not in line
        assert "--ref-resolution" not in line
    floor = plan.floor()
    assert floor[:6] == ["-m", "harness.eval", "--samples", f"{data}:tuning", "--ref", data]
    assert floor[floor.index("--ref-resolution") + 1] == str(PRESETS[data].resolution)
    store.append(plan.records, whole[0])
    assert plan.renewed().work() == []
    tables, candidates, _ = (Path(command[-1]).parts[-2:] for command in plan.report())
    assert tables == ((tmp_path.name, "tables") if name == "clips" else ("tables", name))
    assert candidates == ("tables", name)


def test_table_3_prints_rows_settings_floor_and_a_verdict(name, data, whole):
    floor = {"source": f"{data}:tuning", "reference": data, "n_samples": 500, "resolution": PRESETS[data].resolution}
    real = [
        ScoreRecord(
            quantity=quantity, value=value, unit="1", method="", workload={**floor, "metric": metric},
            provenance=Provenance.here(),
        )
        for quantity, value, metric in (
            ("fvd", 1.5, f"fvd500@{data}"), ("continuing", 0.99, f"trajectory500@{data}")
        )
    ]  # fmt: skip
    of_another_size = [
        dataclasses.replace(one, value=777.0, workload={**one.workload, "resolution": 20}) for one in real
    ]
    records = [*whole[0], *real, *of_another_size]
    table = report.quality_table(3, suite(name, records), records)
    shown = {row[2]: row[5:] for row in table.blocks[0].rows}
    assert "79 ± 1" in shown[f"{MATCHED}, guidance 4"][0] or "81" in shown[f"{MATCHED}, guidance 4"][0]
    notes = "\n".join(table.notes)
    assert f"Floor, real clips ({data}:tuning) in the place of samples: FVD 1.5, continuing 0.99." in notes
    assert f"learning rate DiT-U/4-video 0.008, {MATCHED} 0.002" in notes
    assert f"guidance scale DiT-U/4-video 1, {MATCHED} 4" in notes
    average = "as chosen for each family" if name == "bouncing-digits" else "0.998"
    assert f"rate as chosen for each family; EMA {average}" in table.protocol
    assert f"{MATCHED}, guidance 4 against DiT-U/4-video, guidance 1: -19" in "\n".join(table.claim)
    claim = "\n".join(table.claim)
    assert "DiM and DiT at the paper's depths: holds in 2 of 2 (significantly in 2)." in claim
    assert "DiM and DiT at equal parameters: holds in 2 of 2 (significantly in 2)." in claim
    assert "It prints joint training ahead of clips alone in 2 of 2." in claim
    assert "Joint training and clips alone: holds in 0 of 2; no difference in 2" in claim
    assert "Joint training and clips alone, DiM of equal parameters: holds in 1 of 1 (significantly in 1)." in claim
    headed = table.blocks[0].header
    assert [name for name in headed if name.startswith(("accuracy", "continuing", "speed"))] == [
        "accuracy ↑", "continuing ↑", "speed distance ↓",
    ]  # fmt: skip
    tuning = report.tables(["tuning"], records, suite(name, records))[0]
    decays = ["EMA decay"] if name == "bouncing-digits" else []
    assert [block.header[0] for block in tuning.blocks] == ["learning rate", *decays, "guidance scale"]


def test_without_records_the_table_says_what_is_to_be_done(name):
    table = report.quality_table(3, suite(name, []), [])
    assert f"Nothing is measured yet; `python -m harness.reproduce --suite {name}` does it." in table.protocol
