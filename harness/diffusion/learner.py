"""What learns: a model with its moving average and its optimizer, its step, and what a checkpoint keeps of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from harness.core.distributed import Ranks
from harness.data import NAMED
from harness.data.autoencoder import Autoencoder, digest_in
from harness.diffusion import checkpoint
from harness.diffusion.batches import Batch
from harness.diffusion.config import Execution, TrainConfig
from harness.diffusion.gradients import gradients_of
from harness.diffusion.numerics import autocast
from harness.diffusion.process import linear_schedule, training_loss
from harness.diffusion.sharding import all_whole, mine, spread, whole
from models.denoiser import Denoiser

MAY_CHANGE = ("steps", "data", "vae", "sampling_steps", "provenance")
"""What may differ when a run is continued: it may go further, its data may have moved."""
DEFAULTS = {setting.name: setting.default for setting in fields(TrainConfig)}
"""What a setting was in runs that are older than it."""


@dataclass(frozen=True)
class Learner:
    """What a checkpoint saves, and the two lists of the moving average: its entries and the parameters they follow.

    Of a model that is shared among processes all of these are slices, but for what `state` gives.
    """

    model: Denoiser
    ema: dict[str, Tensor]
    averages: list[Tensor]
    parameters: list[Tensor]
    optimizer: torch.optim.Optimizer

    def state(self, keep: bool = True) -> dict[str, Any]:
        """For a checkpoint, in those processes that `keep` it; all take part."""
        state = {"model": self.model.state_dict(), "ema": self.ema, "optimizer": self.optimizer.state_dict()}
        return cast(dict[str, Any], all_whole(state, keep))

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Take over a checkpoint's. Raises ValueError, naming the file, when it does not fit."""
        try:
            own = self.model.state_dict()
            weights = {n: spread(value, own[n]) if n in own else value for n, value in state["model"].items()}
            self.model.load_state_dict(weights)
            moments = {
                index: {name: spread(v, self.parameters[index]) if v.ndim else v for name, v in of_one.items()}
                for index, of_one in state["optimizer"]["state"].items()
            }
            self.optimizer.load_state_dict({**state["optimizer"], "state": moments})
            for name, value in self.ema.items():
                value.copy_(spread(state["ema"][name], value))
        except (RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise ValueError(f"{path} does not fit the model: {type(error).__name__} {reason}") from error


def new_learner(model: Denoiser, config: TrainConfig) -> Learner:
    """A learner that has done no step."""
    ema = {name: value.detach().clone() for name, value in model.state_dict().items()}
    names, parameters = zip(*model.named_parameters(), strict=True)
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0, fused=True)
    return Learner(model, ema, [mine(ema[name]) for name in names], list(parameters), optimizer)


def require_same_run(path: Path, saved_config: dict[str, Any], record: dict[str, Any]) -> None:
    """Raise ValueError, naming the settings, for a checkpoint of another run than `record` describes."""
    saved = DEFAULTS | saved_config
    saved["spec"] = asdict(checkpoint.spec_of(saved))
    changed = [key for key in record if key not in MAY_CHANGE and not _same(key, saved.get(key), record[key])]
    if "model" in changed:  # which says it in a word
        changed = [key for key in changed if key != "spec"]
    if changed:
        what = "; ".join(f"{key} was {saved.get(key)!r}, now {record[key]!r}" for key in changed)
        raise ValueError(f"{path} is of another run: {what}; choose another --out")


def _same(key: str, saved: Any, now: Any) -> bool:
    """Whether a setting has the same meaning: weights and folders are the same in another place."""
    if saved == now:
        return True
    if key == "autoencoder":
        return bool(digest_in(str(now))) and digest_in(str(saved)) == digest_in(str(now))
    return key == "dataset" and saved not in NAMED and now not in NAMED  # how many items and which classes is compared


def make_step(
    learner: Learner, autoencoder: Autoencoder, config: TrainConfig, execution: Execution, ranks: Ranks
) -> Callable[[Iterator[Batch], int], Tensor]:
    """The optimizer step: of the next `accumulate` batches, after so many steps; returns loss and norm (2,)."""
    model = learner.model.train()
    model.activation_checkpointing = execution.activation_checkpointing
    if execution.keep_operands:
        model.keep_operands()
    if execution.compile:
        model.compile()
    gradients = gradients_of(model, execution, ranks)
    schedule = linear_schedule().to(ranks.device)

    def loss_of(batch: Batch) -> Tensor:
        latents = autoencoder.sample(autoencoder.moments(batch.items), batch.posterior)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            with autocast(ranks.device, config.precision):
                output: Tensor = gradients.network(x, t, batch.labels, batch.drop_labels)
                return output

        return training_loss(schedule, denoise, latents, batch.t, batch.noise, config.decoder_nll).mean()

    def train_step(batches: Iterator[Batch], step: int) -> Tensor:
        for part in range(execution.accumulate):
            with gradients.part(last=part + 1 == execution.accumulate):
                loss = loss_of(next(batches).to(ranks.device)) / gradients.parts
                torch.autograd.backward(loss)
            gradients.done(loss)
        total = gradients.total()
        norm = torch.nn.utils.get_total_norm([p.grad for p in learner.parameters if p.grad is not None])
        if config.clip_norm and step >= config.clip_after:
            torch.nn.utils.clip_grads_with_norm_(learner.parameters, config.clip_norm, norm)
        learner.optimizer.step()
        learner.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(learner.averages, [*map(mine, learner.parameters)], 1 - config.ema_decay)
        return torch.stack([total, whole(norm)])

    return train_step
