"""One step of a workload as a function to call: what is timed, and whose memory is predicted and measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.core.workload import Workload
from harness.cost.inputs import inputs_of
from models.denoiser import Denoiser

CFG_SCALE = 1.5
EMA_DECAY = 0.9999
LEARNING_RATE = 1e-4

Mark = Callable[[Tensor, str, str], None]


def configure(model: Denoiser, workload: Workload) -> None:
    """Choose the implementation of the mixers, the checkpointing and the storage of weights that a workload names.

    Raises ValueError, with the choices, for an unknown implementation.
    """
    model.activation_checkpointing = workload.checkpointing
    model.train(workload.action == "train")
    if workload.implementation:
        model.set_implementation(workload.implementation)
    if workload.weights == "bfloat16":
        model.store_weights(torch.bfloat16)
    if workload.operands == "kept":
        model.keep_operands()


def step_of(workload: Workload, model: Denoiser, device: str, mark: Mark | None = None) -> Callable[[], Any]:
    """The step, ready to run any number of times. `mark(tensor, op, category)` is called for tensors that it keeps."""
    mark = mark or (lambda tensor, op, category: None)
    precision = torch.autocast(device, torch.bfloat16, enabled=workload.dtype == "bfloat16")
    step = {"forward": _forward, "sample": _sample, "train": _train}[workload.action]
    return step(workload, model, device, precision, mark)


def _forward(
    workload: Workload, model: Denoiser, device: str, precision: torch.autocast, mark: Mark
) -> Callable[[], Any]:
    inputs = inputs_of(workload.spec, workload.resolution, workload.batch, device)

    def step() -> Tensor:
        with torch.no_grad(), precision:
            out: Tensor = model(*inputs)
        return out

    return step


def _sample(
    workload: Workload, model: Denoiser, device: str, precision: torch.autocast, mark: Mark
) -> Callable[[], Any]:
    """One denoising step under classifier-free guidance: the batch is doubled inside the network."""
    inputs = inputs_of(workload.spec, workload.resolution, 2 * workload.batch, device)

    def step() -> Tensor:
        with torch.no_grad(), precision:
            return model.forward_with_cfg(*inputs, cfg_scale=CFG_SCALE)

    return step


def _train(
    workload: Workload, model: Denoiser, device: str, precision: torch.autocast, mark: Mark
) -> Callable[[], Any]:
    """Loss, gradients, AdamW, EMA, as in training but for the loss, a few latents beside the activations."""
    x, t, y = inputs_of(workload.spec, workload.resolution, workload.batch, device, workload.joint_images)
    keep = torch.zeros_like(y, dtype=torch.bool)
    parameters = list(model.parameters())
    averages = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    for p in parameters:
        p.grad = torch.zeros_like(p)
        p.register_post_accumulate_grad_hook(lambda p: mark(p.grad, "gradient", "gradients"))
    optimizer.step()  # makes the moments, so that every later step is alike
    optimizer.zero_grad(set_to_none=True)
    moments = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
    for tensor in (*averages, *moments):
        mark(tensor, "optimizer", "optimizer and EMA")

    def step() -> None:
        with precision:
            out = model(x, t, y, keep)
        out.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch._foreach_lerp_(averages, [p.detach() for p in parameters], 1 - EMA_DECAY)

    return step
