"""How long a plan takes on a cluster: against hand arithmetic, from the papers' own figures."""

import json

import pytest

from harness import reproduce
from harness.suites import Assumptions, Launch, suite
from harness.suites.estimate import ALIKE, Cluster, Estimate, Speed, duration, estimate, reduced_bytes
from harness.suites.fitting import Fitting

AS_IT_IS = Fitting(checkpointing=False, parts=1, shared=False, nbytes=0)
RUN = next(run for run in suite("paper").runs() if run.model == "DiT-XL/4")
"""400,000 steps of 256 images; 29.05 GMACs an image and 675 M parameters (DiT's Table 4)."""


def test_a_run_is_its_operations_its_gradients_and_its_checkpoints():
    assumed = Assumptions(device_flops=2e14, network_gb_per_s=25, storage_gb_per_s=2)
    scores = suite("paper").runs()[RUN]
    speed = Speed(training=2e14, scoring=5e13)
    taken = estimate(RUN, True, scores, Launch(nodes=2, processes=8), AS_IT_IS, speed, assumed)
    assert taken.compute == pytest.approx(2 * 3 * 29.05e9 * 256 * 400_000 / (16 * 2e14), rel=2e-3)
    assert taken.reduce == pytest.approx(400_000 * 2 * 15 / 16 * 4 * 675e6 / 25e9, rel=5e-3)
    assert taken.checkpoint == pytest.approx(400 * 16 * 675e6 / 2e9, rel=5e-3)
    passes = sum(250 * 50_000 * (1 if score.cfg_scale == 1 else 2) for score in scores)
    assert taken.score == pytest.approx(2 * 29.05e9 * passes / (16 * 5e13), rel=2e-3)
    assert taken.total == taken.compute + taken.reduce + taken.checkpoint + taken.score


def test_a_run_that_is_trained_is_only_scored_and_recomputing_costs_a_forward_pass_more():
    launch, assumed, speed = Launch(), Assumptions(), Speed(training=1e14, scoring=1e14)
    scored = estimate(RUN, False, suite("paper").runs()[RUN], launch, AS_IT_IS, speed, assumed)
    assert (scored.compute, scored.reduce, scored.checkpoint) == (0, 0, 0)
    whole = estimate(RUN, True, [], launch, AS_IT_IS, speed, assumed)
    recomputed = estimate(RUN, True, [], launch, Fitting(True, 1, False, 0), speed, assumed)
    assert recomputed.compute == pytest.approx(4 / 3 * whole.compute)
    assert whole.reduce == 0, "one process has nobody to tell"
    steps = Speed(training=1e14, scoring=1e14, share=0.2, origin="measured")
    again = estimate(RUN, True, [], Launch(processes=8), Fitting(True, 1, False, 0), steps, assumed)
    assert again.compute == pytest.approx(whole.compute / 8), "a measured step has recomputed already"
    assert again.reduce == 0, "and has waited for its gradients"


def test_a_ring_passes_gradients_twice_and_a_shared_model_three_times_in_each_part():
    assert reduced_bytes(1000, 2, AS_IT_IS) == 4000
    assert reduced_bytes(1000, 4, AS_IT_IS) == 6000
    assert reduced_bytes(1000, 4, Fitting(True, 2, True, 0)) == 2 * 3 * 3000


def test_what_a_card_achieves_is_stated_or_a_share_of_its_peak_assumed_or_measured(tmp_path):
    """H100, dense: 494.7 TFLOP/s in tf32, which is this preset's arithmetic, and 66.9 in float32, that of scores."""
    assert Assumptions().speed(RUN, tmp_path) == Speed(training=1e14, scoring=1e14)
    assert Assumptions(device_flops=3e14).speed(RUN, tmp_path) == Speed(training=3e14, scoring=3e14)
    h100 = Assumptions(card="H100")

    def tflops(assumed):
        speed = assumed.speed(RUN, tmp_path)
        return speed.training / 1e12, speed.scoring / 1e12, speed.origin

    assert tflops(h100) == (pytest.approx(0.4 * 494.7, rel=1e-3), pytest.approx(0.4 * 66.9, rel=2e-3), "assumed")
    alike = {name: getattr(RUN.config, name) for name in ALIKE}
    here, elsewhere = ({"device": f"cuda:0: {name}"} for name in ("NVIDIA H100 80GB HBM3", "NVIDIA L4"))
    for name, config, laps in (
        ("a", alike | {"provenance": here}, [0.31, 0.35, 0.33]),
        ("b", alike | {"provenance": here, "model": "DiT-S/4"}, [0.9]),
        ("c", alike | {"provenance": here}, [None]),
        ("d", alike | {"provenance": elsewhere}, [0.6]),
        ("e", alike | {"provenance": here, "resolution": 512}, [0.7]),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "throughput.jsonl").write_text("".join(json.dumps({"mfu": mfu}) + "\n" for mfu in laps))
    assert tflops(h100) == (pytest.approx(0.33 * 494.7, rel=1e-3), pytest.approx(0.4 * 66.9, rel=2e-3), "measured")
    assert tflops(Assumptions(card="L4"))[2] == "measured"
    assert tflops(Assumptions(card="A100"))[2] == "assumed"
    assert tflops(Assumptions(card="H100", mfu=0.3)) == (
        pytest.approx(0.3 * 494.7, rel=1e-3), pytest.approx(0.3 * 66.9, rel=2e-3), "assumed"
    )  # fmt: skip


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
