"""What learns: a model with its moving averages and its optimizer, its step, and what a checkpoint keeps of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
class Average:
    """A moving average of a model: its entries, and those of them that follow parameters, in the parameters' order."""

    decay: float
    entries: dict[str, Tensor]
    following: list[Tensor]

    @classmethod
    def of(cls, model: Denoiser, decay: float) -> Average:
        """An average that begins at the model as it is."""
        entries = {name: value.detach().clone() for name, value in model.state_dict().items()}
        return cls(decay, entries, [mine(entries[name]) for name, _ in model.named_parameters()])

    def follow(self, parameters: Sequence[Tensor]) -> None:
        """A step towards the parameters."""
        torch._foreach_lerp_(self.following, [*map(mine, parameters)], 1 - self.decay)

    def restore(self, saved: dict[str, Tensor]) -> None:
        """Take over a checkpoint's entries."""
        for name, value in self.entries.items():
            value.copy_(spread(saved[name], value))


@dataclass(frozen=True)
class Learner:
    """What a checkpoint saves: the model with its parameters, its averages, and the optimizer.

    The run's own average is the first. Of a model that is shared among processes all of these are slices, but for what
    `state` gives.
    """

    model: Denoiser
    averages: list[Average]
    parameters: list[Tensor]
    optimizer: torch.optim.Optimizer

    def state(self, keep: bool = True) -> dict[str, Any]:
        """For a checkpoint, in those processes that `keep` it; all take part."""
        own, *further = self.averages
        state: dict[str, Any] = {"model": self.model.state_dict(), "ema": own.entries}
        state["optimizer"] = self.optimizer.state_dict()
        state |= {checkpoint.FURTHER: {average.decay: average.entries for average in further}} if further else {}
        return cast(dict[str, Any], all_whole(state, keep))

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Take over a checkpoint's.

        Raises ValueError, naming the file, when it does not fit, or keeps other averages: none begins halfway.
        """
        average, *further = self.averages
        saved = state.get(checkpoint.FURTHER, {})
        if set(saved) != {one.decay for one in further}:
            kept = " ".join(f"{decay:g}" for decay in sorted(saved))
            same = f"continue with --further-ema-decays {kept}" if kept else "continue without --further-ema-decays"
            raise ValueError(f"{path} keeps other averages, and none begins halfway: {same}, or choose another --out")
        try:
            own = self.model.state_dict()
            weights = {n: spread(value, own[n]) if n in own else value for n, value in state["model"].items()}
            self.model.load_state_dict(weights)
            moments = {
                index: {name: spread(v, self.parameters[index]) if v.ndim else v for name, v in of_one.items()}
                for index, of_one in state["optimizer"]["state"].items()
            }
            self.optimizer.load_state_dict({**state["optimizer"], "state": moments})
            average.restore(state["ema"])
            for one in further:
                one.restore(saved[one.decay])
        except (RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise ValueError(f"{path} does not fit the model: {type(error).__name__} {reason}") from error


def new_learner(model: Denoiser, config: TrainConfig, further_decays: Sequence[float] = ()) -> Learner:
    """A learner that has done no step, with further averages beside the run's own."""
    averages = [Average.of(model, decay) for decay in (config.ema_decay, *further_decays)]
    parameters: list[Tensor] = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0, fused=True)
    return Learner(model, averages, parameters, optimizer)


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
            for average in learner.averages:
                average.follow(learner.parameters)
        return torch.stack([total, whole(norm)])

    return train_step
