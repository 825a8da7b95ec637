"""The protocol of a measurement, with injected clocks: what counts as a sample, when there are enough, whose turn."""

from typing import ClassVar

import numpy as np
import pytest
import torch

from harness.core.workload import PRESETS, Workload, preset
from harness.cost import clock
from harness.cost.conditions import CpuConditions, CpuTimes, GpuConditions
from harness.cost.memory import Allocation, Peak
from harness.cost.sweep import comparable, held_at_once
from harness.cost.timing import Series, Timing, median_interval, relative_spread
from harness.cost.worker import Station, refused_bytes
from models import spec


def series(samples=(), rejected=0, **timing) -> Series:
    return Series(Timing(**timing), [], list(samples), ["throttled"] * rejected)


# ------------------------------------------------------------------------------------------------- enough samples


@pytest.mark.parametrize(("n", "k"), [(6, 1), (8, 1), (9, 2), (12, 3), (15, 4), (20, 6), (25, 8), (50, 18)])
def test_the_interval_of_a_median_is_that_of_the_tables_of_order_statistics(n, k):
    """Ranks at 95 % as printed, for instance, in Conover, Practical Nonparametric Statistics, from the binomial."""
    assert median_interval(range(n)) == (k - 1, n - k)


def test_five_samples_bound_no_median():
    assert median_interval([1, 2, 3, 4, 5]) is None
    assert relative_spread([1, 2, 3, 4, 5]) is None


def test_the_interval_covers_the_median_as_often_as_it_says():
    generator = np.random.default_rng(0)
    drawn = (median_interval(generator.lognormal(0, 1, 12)) for _ in range(2000))
    covered = sum(low <= 1 <= high for low, high in drawn)
    assert covered / 2000 >= 0.94


def test_rounds_end_when_the_median_is_known_or_the_time_is_spent_or_there_are_enough():
    assert series([1.0] * 5, seconds=60).ended == "", "five equal samples bound nothing"
    assert series([1.0] * 6, seconds=60).ended == "spread"
    assert series([1.0, 1.1, 0.9, 1.2, 0.8, 1.3], spread=0.02, seconds=60).ended == ""
    assert series([1.0, 1.1, 0.9, 1.2, 0.8, 1.3], spread=0.3, seconds=60).ended == "spread"
    assert series([400.0], seconds=60).ended == "", "one sample has no spread to show"
    assert series([400.0, 410.0], seconds=60).ended == "seconds"
    assert series([1.0, 2.0, 3.0], rounds=3).ended == "rounds"


def test_a_rejected_sample_is_counted_and_taken_again_but_not_for_ever():
    one = series(rounds=3)
    one.add(1.0)
    one.add(5.0, "the clock was below 75 %")
    assert (one.samples, one.rejected, one.ended) == ([1.0], ["the clock was below 75 %"], "")
    assert series([1.0], rejected=2, rounds=3).ended == ""
    assert series([1.0], rejected=3, rounds=3).ended == "rejections"


def test_on_a_shared_machine_every_sample_can_be_kept_by_flag():
    one = series(keep_all=True)
    one.add(5.0, "other processes used the cores")
    assert (one.samples, one.rejected) == ([5.0], [])
    assert one.timing.settings()["keep_all"], "which the record states"


def test_a_step_of_minutes_is_warmed_up_once():
    slow, fast = (Series(Timing(warmup=3, seconds=60), [seconds]) for seconds in (400.0, 0.1))
    assert slow.warm
    assert not fast.warm


# ------------------------------------------------------------------------------------------------------ conditions


def cpu(*readings: CpuTimes) -> CpuConditions:
    left = iter(readings)
    return CpuConditions(read=lambda: next(left), cores=2)


@pytest.mark.parametrize(
    ("busy", "own", "fault"),
    [
        (20.0, 20.0, ""),  # both cores ours
        (10.9, 10.0, ""),  # half a machine idle, others took less than a twentieth of it
        (11.1, 10.0, "other processes used the cores"),
    ],
)
def test_a_sample_on_shared_cores_is_rejected(busy, own, fault):
    conditions = cpu(CpuTimes(100, 1000, 500), CpuTimes(110, 1000 + busy, 500 + own))
    conditions.begin()
    assert conditions.fault() == fault
    assert conditions.elsewhere == [pytest.approx((busy - own) / 20)]


def test_the_kernels_ticks_do_not_reject_a_step_of_a_millisecond():
    conditions = cpu(CpuTimes(1, 5.00, 2), CpuTimes(1.001, 5.02, 2.001))
    conditions.begin()
    assert conditions.fault() == ""


@pytest.mark.parametrize(("mhz", "fault"), [(1980, ""), (1485, ""), (1484, "the clock was below 75% of 1980 MHz"),
                                            (None, "")])  # fmt: skip
def test_a_sample_under_a_throttled_clock_is_rejected(mhz, fault):
    """nvbench's rule: below three quarters of the maximum clock, 1980 MHz of an H100."""
    conditions = GpuConditions(read=lambda: mhz, maximum_mhz=1980)
    conditions.begin()
    assert conditions.fault() == fault


# ------------------------------------------------------------------------------------------------------------ rounds


class Scripted:
    """A worker that answers from a script, and notes in `order` who was called when."""

    order: ClassVar[list[tuple[str, str]]] = []
    fails: ClassVar[bool] = False
    seconds: ClassVar = {"DiT-N/4": [1.0, 1.0, 1.0, 9.0, 1.0], "DiM-N/4": [2.0, 2.0, 2.0, 2.0, 2.0]}
    faults: ClassVar = {"DiT-N/4": ["", "", "", "throttled", ""]}

    def __init__(self, workload, timing) -> None:
        self.name, self.i = workload.spec.name, 0

    def start(self):
        return {"resolved": ""}

    def close(self) -> None: ...

    def answer(self, command):
        Scripted.order.append((self.name, command))
        if command == "watched":
            return {"seconds": 3.0, "peak_bytes": 7}
        if command == "joules":
            return {"joules": None}
        if self.name == "DiM-N/4" and self.fails and self.i == 1:
            raise clock.FailureError("oom", "bmm in blocks.*.attn: 1.00 GiB")
        fault = self.faults.get(self.name, [""] * 5)[self.i]
        self.i += 1
        return {"seconds": self.seconds[self.name][self.i - 1], "fault": fault, "elsewhere": 0.01}


@pytest.fixture
def scripted(monkeypatch):
    Scripted.order, Scripted.fails = [], False
    monkeypatch.setattr(clock, "Worker", Scripted)
    return Scripted


def workload(name: str, resolution: int = 64, **fields) -> Workload:
    return Workload(spec=spec(name), resolution=resolution, **fields)


PAIR = [workload("DiT-N/4"), workload("DiM-N/4")]


def test_what_is_compared_takes_turns_and_the_order_is_reversed(scripted):
    dit, dim = clock.time_together(PAIR, Timing(rounds=4, warmup=1, spread=0, seconds=1000))
    sampled = [name for name, command in scripted.order if command == "sample"]
    assert sampled == ["DiT-N/4", "DiM-N/4", "DiM-N/4", "DiT-N/4"] * 2 + ["DiT-N/4"]
    assert dit.samples == [1.0] * 4
    assert dit.rejected == ["throttled"], "the throttled sample is left out and taken again"
    assert dim.samples == [2.0] * 4
    assert (dit.beside, dit.ended, dit.peak_bytes) == (["DiM-N/4"], "rounds", 7)


def test_one_that_runs_out_of_memory_does_not_stop_the_others(scripted):
    scripted.fails = True
    dit, dim = clock.time_together(PAIR, Timing(rounds=3, warmup=1, spread=0, seconds=1000))
    assert (dit.verdict, len(dit.samples)) == ("ok", 3)
    assert (dim.verdict, dim.note) == ("oom", "bmm in blocks.*.attn: 1.00 GiB")


def peak(weights: int, activations: int) -> Peak:
    parts = {"weights": weights, "activations": activations}
    alive = [Allocation(nbytes, "", "", (), "", 0, category) for category, nbytes in parts.items()]
    return Peak(weights + activations, alive, [], [], [])


def test_rounds_are_shared_as_far_as_the_memory_holds_all_at_once():
    a, b, c = (workload("DiT-N/4", r) for r in (64, 128, 256))
    predicted = {a: peak(10, 60), b: peak(10, 50), c: peak(10, 90)}
    assert list(held_at_once(predicted, None, "cpu")) == [[a, b, c]]
    assert list(held_at_once(predicted, 120, "cpu")) == [[a, b, c]], "10 + 10 + 10 are kept, 90 come and go"
    assert list(held_at_once(predicted, 119, "cpu")) == [[a, b], [c]]
    assert list(held_at_once(predicted, 130, "cuda")) == [[a, b], [c]], "a GPU's processes keep their peaks"
    assert list(held_at_once(predicted, 1, "cpu")) == [[a], [b], [c]], "what cannot fit is tried alone"


def test_only_what_differs_in_the_network_alone_shares_rounds_and_the_cheapest_come_first():
    groups = comparable(preset("cpu-sweep"))
    for group in groups:
        assert len({(w.spec.size, w.resolution, w.action, w.dtype) for w in group}) == 1
    assert {w.spec.name for w in groups[0]} == {"DiT-S/2", "DiM-S/2", "DiM-S/2-matched"}
    assert groups[0][0].resolution == 256
    assert (groups[-1][0].spec.size, groups[-1][0].resolution) == ("XL", 2048)


def test_the_cpu_preset_has_every_size_at_every_resolution_of_the_paper():
    forward = {(w.spec.name, w.resolution, w.implementation) for w in preset("cpu-sweep") if w.action == "forward"}
    for size in ("S", "B", "XL"):
        for resolution in (256, 512, 1024, 2048):
            assert {(f"DiT-{size}/2", resolution, way) for way in ("sdpa", "naive")} <= forward
            assert {(f"DiM-{size}/2{v}", resolution, "auto") for v in ("", "-matched")} <= forward
    assert {w.action for w in preset("cpu-sweep")} == {"forward", "sample", "train"}
    assert all(part["device"] == "cpu" for part in PRESETS["cpu-sweep"])


@pytest.mark.parametrize(
    ("message", "gib"),
    [
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 38654705664 bytes. Error code 12", "36.00"),
        ("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 GiB", "0.02"),
        ("CUDA out of memory. Tried to allocate 16.00 GiB (GPU 0; 79.10 GiB total capacity)", "16.00"),
    ],
)
def test_what_could_not_be_had_is_read_from_what_torch_says(message, gib):
    assert refused_bytes(message) == f"{gib} GiB"


def test_a_cold_sample_comes_after_the_last_level_cache_was_written_over():
    station = Station(workload("DiT-N/4"), "cpu", cache="cold")
    order = []
    flush, station.timed = station.flush, lambda step: order.append("step") or 0.5
    station.flush = lambda: order.append("flush") or flush()
    assert station.sample()["seconds"] == 0.5
    assert order == ["flush", "step"]


@pytest.mark.parametrize(("last_seconds", "steps"), [(0.09, 2), (0.11, 1)])
def test_a_short_step_runs_once_untimed_before_a_warm_sample(last_seconds, steps):
    station = Station(workload("DiT-N/4"), "cpu")
    calls = []
    station.last_seconds, station.step = last_seconds, lambda: calls.append(1)
    station.sample()
    assert len(calls) == steps


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("how", [{"cuda_graph": True}, {"cache": "cold"}, {}], ids=str)
def test_a_gpu_answers_in_every_state_of_its_cache_and_as_a_graph(how):
    station = Station(workload("DiT-S/2", 256, batch=8, dtype="bfloat16"), "cuda", **how)
    watched = station.watched()
    station.warm()
    samples = [station.sample() for _ in range(5)]
    assert all(0 < one["seconds"] < 10 for one in samples)
    assert watched["peak_bytes"] > 4 * 32e6, "more than the weights of DiT-S/2 in float32"
    assert (station.joules()["joules"] or 1) > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_that_runs_out_of_memory_names_the_operator_and_the_bytes():
    """Naive attention over 65536 tokens: 6 heads x 65536 x 65536 scores in float32 are 96 GiB."""
    found = clock.time_apart(workload("DiT-S/2", 4096, implementation="naive"), Timing(device="cuda", rounds=2))
    assert found.verdict == "oom"
    assert found.note == "bmm in blocks.*.attn: 96.00 GiB"
