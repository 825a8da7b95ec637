"""Equal training time is that of steps that were timed side by side, not what was measured in different hours."""

import dataclasses
import json

import pytest
from test_tuning import HERE, answers, carried_out

from harness import bench, report
from harness.core.records import LatencyRecord
from harness.report.figures.frontier import trained
from harness.report.hardware import measured
from harness.suites import suite
from harness.suites.steps import step_seconds, training_step, training_steps


def timed(workload, seconds, device="cpu: one"):
    return LatencyRecord(
        quantity="latency", value=seconds, unit="s", method="wall clock",
        workload={**workload.settings(), "device": device, "cache": "warm", "cuda_graph": False}, provenance=HERE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def scored():
    """DiT ends at 50 and DiM at 40, and both are at twice that after half of it; records state step / 10 seconds."""
    chosen, _ = carried_out()
    tuned = {score for choice in suite("fashion", chosen).choices for score in choice.scores}
    found = [record for record in chosen if record.get("training")["seed"] >= 100]
    for score in suite("fashion", chosen).scores():
        if score not in tuned:
            base = 50 if score.run.model.startswith("DiT") else 40
            value = base * score.run.config.steps / score.step + 0.1 * score.run.seed + 0.01 * score.redraw
            found += answers(score, value)
    return found


def seconds_of(workload):
    """A step of a DiM takes three times as long as one of a DiT."""
    return 0.3 if workload.spec.family == "DiM" else 0.1


def test_every_model_of_the_suite_is_timed_as_it_is_trained(scored):
    steps = training_steps("fashion", scored)
    trained_runs = suite("fashion", scored).runs()
    assert {training_step(run) for run in trained_runs} == set(steps)
    for step in steps:
        assert (step.action, step.batch, step.spec.channels, step.spec.num_classes) == ("train", 32, 1, 10)
        assert step.operands == ("kept" if step.spec.family == "DiM" else "recomputed")
    with pytest.raises(ValueError, match="suite paper is not of small data"):
        training_steps("paper")


def test_equal_time_is_of_steps_timed_side_by_side_whatever_the_records_of_training_state(scored):
    times = [timed(step, seconds_of(step)) for step in training_steps("fashion", scored)]
    claims = report.quality_table(2, suite("fashion", scored), [*scored, *times]).claim
    said = next(line for line in claims if line.startswith("FD at equal training time: "))
    # The DiT ends after 3,000 steps of 0.1 s, when the DiM has done 1,000: between 750 and 1,500, at 40 * 3000 / 1000.
    assert "DiM-N/4-matched against DiT-N/4 after 300 seconds each: +139" in said
    before = report.quality_table(2, suite("fashion", scored), scored).claim
    assert any("DiM-N/4-matched against DiT-N/4 after 300 CPU seconds each: -19" in line for line in before)


def test_the_frontier_takes_the_same_times_and_none_where_a_model_lacks_one(scored):
    steps = training_steps("fashion", scored)
    found = suite("fashion", scored)
    times = [timed(step, seconds_of(step)) for step in steps]
    ends = {one.model: one.seconds for one in trained(found, [*scored, *times]) if one.ended}
    assert ends["DiT-N/4"] == pytest.approx(300)
    assert ends["DiM-N/4"] == pytest.approx(900)
    lacking = {one.model: one.seconds for one in trained(found, [*scored, *times[1:]]) if one.ended}
    assert lacking["DiM-N/4"] == pytest.approx(300), "of the records of training, all of them"


def test_times_of_two_devices_are_not_mixed_and_the_device_timed_last_counts(scored):
    run, other = (next(run for run in suite("fashion", scored).runs() if run.model == name) for name in
                  ("DiT-N/4", "DiM-N/4-matched"))  # fmt: skip
    one, two = training_step(run), training_step(other)
    assert step_seconds([run, other], [timed(one, 0.1), timed(two, 0.3, "cpu: two")]) == {}
    both = [timed(one, 0.1), timed(two, 0.3), timed(one, 0.01, "cpu: two"), timed(two, 0.02, "cpu: two")]
    assert step_seconds([run, other], both) == {run: 0.01, other: 0.02}
    assert step_seconds([run, other], [*both, timed(one, 0.2)]) == {run: 0.2, other: 0.3}
    large = next(iter(suite("paper").runs()))
    assert step_seconds([run, large], both) == {}, "no suite is compared by the times of some of its models"
    failed = dataclasses.replace(timed(one, 0.1), value=None, verdict="oom")
    assert step_seconds([run], [failed]) == {}


def test_steps_of_a_suite_are_no_rows_of_the_tables_of_hardware(scored):
    assert measured([timed(step, 0.1) for step in training_steps("fashion", scored)]) == {}


def test_the_command_times_a_suite_and_refuses_what_would_choose_other_work(capsys, tmp_path, monkeypatch):
    requested = []
    monkeypatch.setattr(bench, "measure_latency", lambda workloads, *_: requested.extend(workloads) or [])
    bench.main(["--suite", "digits", "--records", str(tmp_path / "bench.jsonl")])
    assert requested == training_steps("digits")
    for flags in (["--model", "DiT-S/2"], ["--action", "train"], ["--floor"], ["--preset", "cpu-sweep"]):
        with pytest.raises(SystemExit, match="2"):
            bench.main(["--suite", "digits", *flags])
        assert f"{flags[0]} changes nothing with --suite" in capsys.readouterr().err


def test_the_command_prints_the_steps_that_it_has_timed(capsys, tmp_path):
    """Two of the smallest models of the smoke suite, which learn pixels: a size that latents cannot have."""
    where, few = ["--records", str(tmp_path / "bench.jsonl")], ["--rounds", "1", "--warmup", "1", "--keep-all"]
    smallest = [step for step in training_steps("smoke") if step.spec.size == "P"][:2]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bench, "training_steps", lambda name: smallest)
        assert bench.main(["--suite", "smoke", *where, *few, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out.partition("\n\n")[2])
    assert [row["model"] for row in rows] == [step.spec.name for step in smallest]
    assert [row["verdict"] for row in rows] == ["ok", "ok"]
