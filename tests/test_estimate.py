"""How long a plan takes on a cluster: against hand arithmetic, from the papers' own figures."""

import json

import pytest

from harness import reproduce
from harness.suites import Assumptions, Launch, Run, suite
from harness.suites.estimate import Cluster, Estimate, duration, estimate, measured_mfu, reduced_bytes
from harness.suites.fitting import Fitting

AS_IT_IS = Fitting(checkpointing=False, parts=1, shared=False, nbytes=0)
RUN = next(run for run in suite("paper").runs() if run.model == "DiT-XL/4")
"""400,000 steps of 256 images; 29.05 GMACs an image and 675 M parameters (DiT's Table 4)."""


def test_a_run_is_its_operations_its_gradients_and_its_checkpoints():
    assumed = Assumptions(device_flops=2e14, network_gb_per_s=25, storage_gb_per_s=2)
    scores = suite("paper").runs()[RUN]
    taken = estimate(RUN, True, scores, Launch(nodes=2, processes=8), AS_IT_IS, 2e14, assumed)
    assert taken.compute == pytest.approx(2 * 3 * 29.05e9 * 256 * 400_000 / (16 * 2e14), rel=2e-3)
    assert taken.reduce == pytest.approx(400_000 * 2 * 15 / 16 * 4 * 675e6 / 25e9, rel=5e-3)
    assert taken.checkpoint == pytest.approx(400 * 16 * 675e6 / 2e9, rel=5e-3)
    passes = sum(250 * 50_000 * (1 if score.cfg_scale == 1 else 2) for score in scores)
    assert taken.score == pytest.approx(2 * 29.05e9 * passes / (16 * 2e14), rel=2e-3)
    assert taken.total == taken.compute + taken.reduce + taken.checkpoint + taken.score


def test_a_run_that_is_trained_is_only_scored_and_recomputing_costs_a_forward_pass_more():
    launch, assumed = Launch(), Assumptions()
    scored = estimate(RUN, False, suite("paper").runs()[RUN], launch, AS_IT_IS, 1e14, assumed)
    assert (scored.compute, scored.reduce, scored.checkpoint) == (0, 0, 0)
    whole = estimate(RUN, True, [], launch, AS_IT_IS, 1e14, assumed)
    recomputed = estimate(RUN, True, [], launch, Fitting(True, 1, False, 0), 1e14, assumed)
    assert recomputed.compute == pytest.approx(4 / 3 * whole.compute)
    assert whole.reduce == 0, "one process has nobody to tell"


def test_a_ring_passes_gradients_twice_and_a_shared_model_three_times_in_each_part():
    assert reduced_bytes(1000, 2, AS_IT_IS) == 4000
    assert reduced_bytes(1000, 4, AS_IT_IS) == 6000
    assert reduced_bytes(1000, 4, Fitting(True, 2, True, 0)) == 2 * 3 * 3000


def test_what_a_card_achieves_is_stated_or_a_share_of_its_peak_assumed_or_measured(tmp_path):
    assert Assumptions().flop_per_s(RUN, None) == 1e14
    assert Assumptions(device_flops=3e14).flop_per_s(RUN, 0.5) == 3e14
    h100 = Assumptions(card="H100")
    assert h100.flop_per_s(RUN, None) == pytest.approx(0.4 * 494.7e12, rel=1e-3), "this preset's arithmetic is tf32"
    assert h100.flop_per_s(RUN, 0.5) == pytest.approx(0.5 * 494.7e12, rel=1e-3)
    assert Assumptions(card="H100", mfu=0.3).flop_per_s(RUN, 0.5) == pytest.approx(0.3 * 494.7e12, rel=1e-3)
    for name, model, laps in (("a", RUN.model, [0.31, 0.35, 0.33]), ("b", "DiT-S/4", [0.9]), ("c", RUN.model, [None])):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model": model, "precision": RUN.config.precision}))
        (folder / "throughput.jsonl").write_text("".join(json.dumps({"mfu": mfu}) + "\n" for mfu in laps))
    assert measured_mfu(RUN, tmp_path) == 0.33
    assert measured_mfu(Run(preset="digits", model="DiT-B/4", milestones=(1,)), tmp_path) is None


def test_a_cluster_takes_runs_in_turn_wherever_there_is_room():
    one, two = Cluster(1), Cluster(2)
    for seconds in (4, 1, 2, 3):
        one.add(seconds)
        two.add(seconds)
    assert max(one.ends) == 10
    assert max(two.ends) == 6, "4 beside 1, 2 and 3"
    assert Cluster(3).text == "0 s"


@pytest.mark.parametrize(("seconds", "text"), [(4, "4 s"), (90, "1.5 min"), (7200, "2 h"), (259_200, "3 days")])
def test_a_duration_is_in_the_unit_that_fits(seconds, text):
    assert duration(seconds) == text


def test_what_takes_no_time_is_not_named():
    assert Estimate(compute=7200, checkpoint=60).text == "2.02 h (2 h computing, 1 min checkpoints)"


def test_the_plan_states_its_assumptions_and_the_wall_time_of_the_cluster(tmp_path, capsys):
    where = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    cluster = ["--nodes", "2", "--gpus-per-node", "8", "--card", "H100", "--mfu", "0.5", "--max-jobs", "2"]
    assert reproduce.main(["--suite", "smoke", "--only", "table7", "--plan", *cluster, *where]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("# assumed: 50 GB/s around a ring, 1 GB/s to storage; nothing overlaps")
    assert last.startswith("# 6 runs, 12 scores, ")
    assert last.endswith("(nodes: 4, processes on each: 8, runs at a time: 2)")


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--plan", "--mfu", "0.4"], "--mfu is a share of the peak of a --card"),
        (["--plan", "--card", "H100", "--device-flops", "1e14"], "leave out --card"),
        (["--plan", "--card", "abacus"], "'abacus'; choose from"),
        (["--plan", "--card", "H100", "--mfu", "1.2"], "must be at most 1"),
        (["--card", "H100"], "--card changes nothing without --plan"),
    ],
)
def test_assumptions_that_do_not_fit_together_are_refused(flags, complaint, capsys):
    with pytest.raises(SystemExit, match="2"):
        reproduce.main(["--suite", "smoke", *flags])
    assert complaint in capsys.readouterr().err
