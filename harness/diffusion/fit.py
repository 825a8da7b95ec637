"""The training loop: a run that continues where it was, logs as it goes, and keeps checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.core import distributed
from harness.core.distributed import Ranks
from harness.core.files import write_json
from harness.core.progress import progress_bar
from harness.data.autoencoder import Autoencoder
from harness.data.datasets import Dataset, VideoDataset
from harness.diffusion import checkpoint, throughput
from harness.diffusion.batches import BLOCK, Batch, draw_batch, prefetch
from harness.diffusion.config import DIVERGED, Execution, TrainConfig
from harness.diffusion.learner import Learner, make_step, new_learner, require_same_run
from harness.diffusion.losses import DivergenceError, LossLog
from harness.diffusion.numerics import set_precision
from harness.diffusion.sharding import shard
from harness.diffusion.throughput import Throughput
from models.denoiser import Denoiser

LOG_EVERY = 20
"""Steps between looks at the losses: only then is the accelerator waited for."""


def parts_of(config: TrainConfig, execution: Execution, ranks: Ranks) -> list[range]:
    """The rows of each part of this process's share of a batch. Raises ValueError when they do not divide evenly."""
    share = ranks.rows(config.batch)
    if len(share) % execution.accumulate:
        raise ValueError(f"{len(share)} items a process do not divide into {execution.accumulate} accumulation steps")
    width = len(share) // execution.accumulate
    return [range(first, first + width) for first in range(share.start, share.stop, width)]


def shape_of(config: TrainConfig, channels: int, downsample: int) -> tuple[int, ...]:
    """Of an item's latent: ([T+J,] C, h, w)."""
    side = config.resolution // downsample
    return (*((config.frames + config.joint_images,) if config.frames else ()), channels, side, side)


def fit(
    model: Denoiser,
    dataset: Dataset | VideoDataset,
    autoencoder: Autoencoder,
    config: TrainConfig,
    record: dict[str, Any],
    execution: Execution,
    run: Path,
    ranks: Ranks,
    stop: Callable[[], bool] = lambda: False,
    flops_per_item: float | None = None,
) -> int:
    """Train to `config.steps`, continuing from the newest sound checkpoint under `run`; returns the steps done.

    `record`, the configuration as plain containers, goes to `config.json` and into every checkpoint. When `stop()`
    turns true, a checkpoint is written and fewer steps are returned. `flops_per_item` is what MFU is of. Raises
    ValueError for a run directory of another configuration or a batch that does not divide, DivergenceError for a loss
    that is not finite, OSError when a checkpoint cannot be written.
    """
    parts = parts_of(config, execution, ranks)
    set_precision(config.precision)
    directory, log = run / "checkpoints", LossLog(run / "losses.jsonl")
    if execution.fsdp:
        shard(model, ranks, torch.bfloat16 if execution.reduce_dtype == "bf16" else None)
    learner = new_learner(model, config, execution.further_ema_decays)
    step, spent = restore(learner, directory, record, log, ranks)
    passed = distributed.from_first([one for one in sorted(execution.milestones) if _is_passed(directory, one, step)])
    if [one for one in passed if one < step]:
        raise ValueError(
            f"{run} is at step {step} and has no checkpoint of its step {passed[0]}: leave {passed[0]} out of "
            f"--checkpoint-at, or remove {run} to train it anew"
        )
    if ranks.first:
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / "config.json", record)
        (run / DIVERGED).unlink(missing_ok=True)
    train_step = make_step(learner, autoencoder, config, execution, ranks)
    shape = shape_of(config, model.spec.channels, model.spec.downsample)

    def make(step: int, rows: range) -> Batch:
        batch = draw_batch(dataset, config, shape, autoencoder.downsample > 1, step, rows)
        return batch.pin() if ranks.device.type == "cuda" else batch

    agreement = distributed.Agreement()
    unseen: list[Tensor] = []
    stopped = False
    batches = prefetch(make, ((s, rows) for s in range(step, config.steps) for rows in parts), execution.workers)
    bar = progress_bar(config.steps, "step", config.model, shown=ranks.first, initial=step)
    speed = Throughput(ranks, config.batch, config.precision, flops_per_item, before=spent)
    speed.start(step)

    def save(milestone: bool) -> None:
        learnt = learner.state(keep=ranks.first)
        if ranks.first:
            state = {"config": record, "step": step, **learnt, **log.saved(), "spent": speed.spent}
            checkpoint.save(directory, state, milestone)

    if passed:
        save(milestone=True)
    with bar, closing(batches):
        while step < config.steps and not stopped:
            unseen.append(train_step(batches, step))
            step += 1
            stopped = agreement.reached(stop())
            milestone = step in execution.milestones
            due = milestone or stopped or step == config.steps or step % execution.checkpoint_every == 0
            if due or step % LOG_EVERY == 0:
                seen = distributed.mean(torch.stack(unseen)).tolist()
                unseen.clear()
                try:
                    check_finite(seen, step - len(seen) + 1, config, directory)
                except DivergenceError as error:
                    if ranks.first:
                        (run / DIVERGED).write_text(str(error))
                    raise
                lap = speed.lap(step)
                if ranks.first:
                    log.add(seen, step - len(seen) + 1)
                    throughput.log(run / "throughput.jsonl", lap)
                shown = {"loss": f"{seen[-1][0]:.4f}", "gradient_norm": f"{seen[-1][1]:.3f}", **lap.postfix()}
                bar.set_postfix(shown, refresh=False)
                bar.update(len(seen))
            if due:
                save(milestone)
                speed.start(step)
    distributed.barrier()
    return step


def _is_passed(directory: Path, milestone: int, step: int) -> bool:
    """Whether a run of so many steps should have written a milestone, and it is not there."""
    return milestone <= step and not checkpoint.milestone_of(directory, milestone).exists()


def restore(
    learner: Learner, directory: Path, record: dict[str, Any], log: LossLog, ranks: Ranks
) -> tuple[int, dict[str, float]]:
    """Continue from the newest sound checkpoint, which the first process finds for all.

    Returns the steps it has done, and the seconds that they took, where it states them.

    Raises ValueError when it is of another run, and when there are checkpoints of which none is sound.
    """
    found = checkpoint.latest(directory, checkpoint.FOR_TRAINING) if ranks.first else None
    path = distributed.from_first(found[0] if found else None)
    state = found[1] if found else checkpoint.open_verified(path, checkpoint.FOR_TRAINING) if path else None
    step = 0
    if path and state:
        require_same_run(path, state["config"], record)
        learner.restore(state, path)
        step = state["step"]
    if ranks.first:
        log.restore(step, state.get("losses") if state else None)
    return step, dict(state.get("spent") or {}) if state else {}


def check_finite(losses: Sequence[Sequence[float]], first: int, config: TrainConfig, directory: Path) -> None:
    """Raise DivergenceError at the first loss that is not finite, before anything of it can reach a checkpoint."""
    for number, (loss, norm) in enumerate(losses, start=first):
        if not (math.isfinite(loss) and math.isfinite(norm)):
            left = checkpoint.find(directory)
            raise DivergenceError(
                f"loss {loss}, gradient norm {norm} at step {number}; its batch is the streams "
                f"(seed {config.seed}, 'train', {number - 1}, 0..{(config.batch - 1) // BLOCK}); "
                f"last good checkpoint: {left[-1] if left else 'none'}"
            )
