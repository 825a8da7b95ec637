"""The bar of long work: a line a minute in a log, and what a suite reads of it while its children work."""

import io
import sys

import pytest
from tqdm import tqdm

from harness.core import progress
from harness.core.progress import counted, progress_bar
from harness.suites import Plan, Run, Score, Suite
from harness.suites.execution import Progress, log_of
from harness.suites.plan import Work
from harness.suites.rows import Row


class Log(io.StringIO):
    """A file that is no terminal, or one that is."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def log(monkeypatch):
    def error_stream(terminal):
        stream = Log(terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return error_stream


def test_what_takes_less_than_a_minute_leaves_nothing_in_a_log(log):
    stream = log(terminal=False)
    with progress_bar(3, "item", "short") as bar:
        bar.update(3)
    assert stream.getvalue() == ""


def test_a_terminal_and_long_work_have_a_bar_with_rate_and_time_left(log, monkeypatch):
    for terminal, every in ((True, progress.LOG_EVERY_S), (False, 0.0)):  # 0: all work is long
        monkeypatch.setattr(progress, "LOG_EVERY_S", every)
        stream = log(terminal)
        with progress_bar(3, "item", "some work") as bar:
            bar.update(2)
            bar.refresh()
        for part in ("some work:  67%", "2/3 [00:00<", "item/s"):
            assert part in stream.getvalue(), terminal


def test_only_the_first_process_has_a_bar(log):
    stream = log(terminal=True)
    with progress_bar(3, "item", "some work", shown=False) as bar:
        bar.update(3)
    assert stream.getvalue() == ""


def test_items_are_counted_over_the_bars_of_a_log():
    stream = io.StringIO()
    for total, updates in ((2000, (300, 1700)), (500, (100, 50))):
        bar = tqdm(total=total, unit="item", desc="DiT-N/4 1/2", file=stream, mininterval=0)
        for count in updates:
            bar.update(count)
            bar.refresh()
        if total == 2000:
            bar.close()
    assert counted(stream.getvalue()) == 2150
    assert counted("no bar, 3/4 of a line") == 0


def test_a_suite_counts_the_samples_that_are_drawn_while_it_scores(tmp_path):
    run = Run(preset="digits", model="DiT-P/4", milestones=(1,))
    score = Score(run=run, step=1, metrics=("fd8@digits",), cfg_scale=1.0, sampling_steps=2)
    row = Row(part="table3", label="one", family="DiT", contest="one", scores=(score,))
    plan = Plan(suite=Suite("smoke", "one row", (row,), 1), runs=tmp_path / "runs", results=tmp_path / "results")
    train, scoring = plan.tasks(Work(run, True, [score]))
    assert (train.samples, scoring.samples) == (0, 8)
    output = log_of(plan.directory(run))
    output.parent.mkdir(parents=True)
    output.write_text("step: 100%|##########| 5/5 [00:01<00:00, 5.00step/s]\n")  # of the training before

    done = Progress(plan, training={run})
    done.begin(run, train)
    done.end(run, train, failed=False)
    assert done.macs == train.macs
    done.begin(run, scoring)
    assert done.macs == train.macs
    with output.open("a") as file:
        file.write("samples:  25%|##5       | 2/8 [01:00<03:00, 0.03item/s]\r")
    assert done.macs == train.macs + scoring.macs / 4
    done.end(run, scoring, failed=True)
    assert done.macs == train.macs
