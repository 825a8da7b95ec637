"""The training loop: a learner, its step, and a run that continues where it was."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from harness.core import distributed
from harness.core.distributed import Ranks
from harness.core.files import write_atomically, write_json
from harness.data.autoencoder import Autoencoder
from harness.data.datasets import Dataset, VideoDataset
from harness.diffusion import checkpoint
from harness.diffusion.batches import BLOCK, Batch, draw_batch, prefetch
from harness.diffusion.config import TrainConfig
from harness.diffusion.process import linear_schedule, training_loss
from models import ModelSpec
from models.denoiser import Denoiser
from models.families import named

LOG_EVERY = 20
"""Steps between looks at the losses: only then is the accelerator waited for."""
MAY_CHANGE = ("steps", "data", "vae", "sampling_steps", "provenance")
"""What may differ when a run is continued: it may go further, its data may have moved."""
DEFAULTS = {setting.name: setting.default for setting in fields(TrainConfig)}
"""What a setting was in runs that are older than it."""


class DivergenceError(RuntimeError):
    """A loss that is not finite."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a run is carried out; none of it changes what is computed, beyond floating-point reordering."""

    checkpoint_every: int
    milestones: frozenset[int]
    accumulate: int = 1
    activation_checkpointing: bool = False
    compile: bool = False
    workers: int = 2


def set_precision(precision: str) -> None:
    """TF32 in matrix products and convolutions exactly when asked for by name."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def scan_backend(spec: ModelSpec, device: torch.device) -> str | None:
    """What runs the selective scans of a model on this device, for the record; None where it has none."""
    ways = named(spec.family).implementations
    return ways.resolve(ways.default, str(device)) if ways and ways.resolve and ways.field == "scan" else None


def autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


@dataclass(frozen=True)
class Learner:
    """What a checkpoint saves, and the two lists of the moving average: its entries and the parameters they follow."""

    model: Denoiser
    ema: dict[str, Tensor]
    averages: list[Tensor]
    parameters: list[Tensor]
    optimizer: torch.optim.Optimizer


def new_learner(model: Denoiser, config: TrainConfig) -> Learner:
    ema = {name: value.detach().clone() for name, value in model.state_dict().items()}
    names, parameters = zip(*model.named_parameters(), strict=True)
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0, fused=True)
    return Learner(model, ema, [ema[name] for name in names], list(parameters), optimizer)


def restore(learner: Learner, directory: Path, record: dict[str, Any]) -> int:
    """Load the newest readable checkpoint, if any; returns the steps it has done.

    Raises ValueError when it is of another run.
    """
    found = checkpoint.latest(directory)
    if not found:
        return 0
    path, state = found
    saved = DEFAULTS | state["config"]
    saved["spec"] = asdict(ModelSpec(**saved["spec"]))
    changed = [key for key in record if key not in MAY_CHANGE and saved.get(key) != record[key]]
    if changed:
        what = "; ".join(f"{key} was {saved.get(key)!r}, now {record[key]!r}" for key in changed)
        raise ValueError(f"{path} is of another run: {what}; choose another --out")
    learner.model.load_state_dict(state["model"])
    learner.optimizer.load_state_dict(state["optimizer"])
    for name, value in learner.ema.items():
        value.copy_(state["ema"][name])
    return state["step"]


def save(learner: Learner, directory: Path, record: dict[str, Any], step: int, milestone: bool) -> None:
    state = {"config": record, "step": step, "model": learner.model.state_dict(), "ema": learner.ema}
    checkpoint.save(directory, {**state, "optimizer": learner.optimizer.state_dict()}, milestone)


def make_step(
    learner: Learner, autoencoder: Autoencoder, config: TrainConfig, execution: Execution, ranks: Ranks
) -> Callable[[Iterator[Batch], int], Tensor]:
    """The optimizer step: of the next `accumulate` batches, after so many steps; returns loss and norm (2,)."""
    model = learner.model.train()
    model.activation_checkpointing = execution.activation_checkpointing
    if execution.compile:
        model.compile()
    ddp = (
        DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
        if ranks.world > 1
        else None
    )
    denoiser = ddp or model
    schedule = linear_schedule().to(ranks.device)

    def loss_of(batch: Batch) -> Tensor:
        latents = autoencoder.sample(autoencoder.moments(batch.items), batch.posterior)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            with autocast(ranks.device, config.precision):
                return denoiser(x, t, batch.labels, batch.drop_labels)

        return training_loss(schedule, denoise, latents, batch.t, batch.noise).mean()

    def train_step(batches: Iterator[Batch], step: int) -> Tensor:
        total = torch.zeros((), device=ranks.device)
        for part in range(execution.accumulate):
            last = part + 1 == execution.accumulate
            with ddp.no_sync() if ddp and not last else nullcontext():
                loss = loss_of(next(batches).to(ranks.device)) / execution.accumulate
                loss.backward()
            total += loss.detach()
        norm = torch.nn.utils.get_total_norm([p.grad for p in learner.parameters if p.grad is not None])
        if config.clip_norm and step >= config.clip_after:
            torch.nn.utils.clip_grads_with_norm_(learner.parameters, config.clip_norm, norm)
        learner.optimizer.step()
        learner.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(learner.averages, learner.parameters, 1 - config.ema_decay)
        return torch.stack([total, norm])

    return train_step


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
) -> int:
    """Train to `config.steps`, continuing from the newest checkpoint under `run`; returns the steps done.

    `record`, the configuration as plain containers, goes to `config.json` and into every checkpoint. When `stop()`
    turns true, a checkpoint is written and fewer steps are returned. Raises ValueError for a run directory of another
    configuration or a batch that does not divide, DivergenceError for a loss that is not finite, OSError when a
    checkpoint cannot be written.
    """
    share = ranks.rows(config.batch)
    if len(share) % execution.accumulate:
        raise ValueError(f"{len(share)} items a process do not divide into {execution.accumulate} accumulation steps")
    width = len(share) // execution.accumulate
    parts = [range(first, first + width) for first in range(share.start, share.stop, width)]
    set_precision(config.precision)
    directory, losses = run / "checkpoints", run / "losses.jsonl"
    learner = new_learner(model, config)
    step = restore(learner, directory, record)
    if ranks.first:
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / "config.json", record)
        keep_losses(losses, step)
    train_step = make_step(learner, autoencoder, config, execution, ranks)
    side = config.resolution // model.spec.downsample
    pictures = (config.frames + config.joint_images,) if config.frames else ()
    shape = (*pictures, model.spec.channels, side, side)

    def make(step: int, rows: range) -> Batch:
        batch = draw_batch(dataset, config, shape, autoencoder.downsample > 1, step, rows)
        return batch.pin() if ranks.device.type == "cuda" else batch

    agreement = distributed.Agreement()
    unseen: list[Tensor] = []
    stopped = False
    batches = prefetch(make, ((s, rows) for s in range(step, config.steps) for rows in parts), execution.workers)
    bar = tqdm(total=config.steps, initial=step, unit="step", disable=not ranks.first, desc=config.model)
    with bar, closing(batches):
        while step < config.steps and not stopped:
            unseen.append(train_step(batches, step))
            step += 1
            stopped = agreement.ask(stop())
            milestone = step in execution.milestones
            due = milestone or stopped or step == config.steps or step % execution.checkpoint_every == 0
            if due or step % LOG_EVERY == 0:
                seen = distributed.mean(torch.stack(unseen)).tolist()
                unseen.clear()
                check_finite(seen, step - len(seen) + 1, config, directory)
                if ranks.first:
                    log_losses(losses, seen, step - len(seen) + 1)
                bar.set_postfix(loss=f"{seen[-1][0]:.4f}", gradient_norm=f"{seen[-1][1]:.3f}", refresh=False)
                bar.update(len(seen))
            if due and ranks.first:
                save(learner, directory, record, step, milestone)
    distributed.barrier()
    return step


def check_finite(losses: list[list[float]], first: int, config: TrainConfig, directory: Path) -> None:
    """Raise DivergenceError at the first loss that is not finite, before anything of it can reach a checkpoint."""
    for number, (loss, norm) in enumerate(losses, start=first):
        if not (math.isfinite(loss) and math.isfinite(norm)):
            left = checkpoint.find(directory)
            raise DivergenceError(
                f"loss {loss}, gradient norm {norm} at step {number}; its batch is the streams "
                f"(seed {config.seed}, 'train', {number - 1}, 0..{(config.batch - 1) // BLOCK}); "
                f"last good checkpoint: {left[-1] if left else 'none'}"
            )


def log_losses(path: Path, losses: list[list[float]], first: int) -> None:
    with open(path, "a") as file:
        for number, (loss, norm) in enumerate(losses, start=first):
            file.write(json.dumps({"step": number, "loss": loss, "gradient_norm": norm}) + "\n")


def keep_losses(path: Path, step: int) -> None:
    """Drop what a killed run logged beyond the checkpoint, a torn last line included."""
    if path.is_file():
        kept = []
        for line in path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (json.JSONDecodeError, KeyError):
                continue
        write_atomically(path, lambda file: file.write("".join(kept).encode()))
