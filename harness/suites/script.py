"""A plan as a shell script: the commands, and in comments what each run costs and how long it takes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from tqdm import tqdm

from harness.core.capacity import GIB
from harness.suites.budget import fitted, macs_per_item, scoring_macs, training_macs
from harness.suites.estimate import Assumptions, Cluster, estimate
from harness.suites.plan import SCORE, TRAIN, Plan, Work, grouped


def script(plan: Plan, assumed: Assumptions, at_a_time: int = 1) -> Iterator[str]:
    """Line by line, of the plan's stages. Times are of so many runs at a time, each on the plan's nodes."""
    launch, cluster, hours = plan.launch, Cluster(at_a_time), 0.0
    todo = [Work(work.run, work.train and TRAIN in plan.stages, work.scores if SCORE in plan.stages else [])
            for work in plan.work() if plan.tasks(work)]  # fmt: skip
    if todo:
        yield f"# assumed: {assumed.text}"
    for work in tqdm(todo, desc="planning", unit="run", disable=None, leave=False):
        run, speed = work.run, assumed.speed(work.run, plan.runs)
        fitting = fitted(run, launch.world, plan.card_gib)
        recomputed = fitting.checkpointing and not speed.measured
        training, scoring = training_macs(run, recomputed=recomputed) * work.train, sum(map(scoring_macs, work.scores))
        macs = training + scoring
        gpu_hours = 2 * (training / speed.training + scoring / speed.scoring) / 3600
        hours += gpu_hours
        taken = estimate(run, work.train, work.scores, launch, fitting, speed, assumed)
        cluster.add(taken.total)
        of_peak = f" ({speed.share:.2g} of {assumed.card}'s peak, {speed.origin})" if speed.share else ""
        in_scores = f", of scores {speed.scoring:.2g}" if speed.scoring != speed.training else ""
        yield (
            f"# {run.name}: {macs_per_item(run) / 1e9:.4g} GMACs an item, {macs:.3g} MACs in all "
            f"({100 * training / macs:.0f} % training), {fitting.nbytes / GIB:.3g} GiB a card, "
            f"{gpu_hours:.3g} GPU-hours at {speed.training:.2g} FLOP/s{of_peak}{in_scores}; "
            f"wall time {taken.text}"
        )
        if work.train:
            yield f"{launch.words} {shlex.join(plan.train(run))}"
        for alike in grouped(work.scores):
            yield f"{launch.words} {shlex.join(plan.score(alike))}"
    count = sum(len(work.scores) for work in todo)
    layout = f"nodes: {at_a_time * launch.nodes}, processes on each: {launch.processes}, runs at a time: {at_a_time}"
    runs = len({work.run for work in todo})
    yield f"# {runs} runs, {count} scores, {hours:.4g} GPU-hours; wall time {cluster.text} ({layout})"
