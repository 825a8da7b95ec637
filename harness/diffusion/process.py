"""The Gaussian diffusion of DiT as pure functions: schedule, posterior, hybrid loss, ancestral and DDIM steps.

DDPM: Ho et al., arXiv 2006.11239. Learned-range variance, hybrid loss and respacing: Nichol & Dhariwal, arXiv
2102.09672. DDIM: Song et al., arXiv 2010.02502. What DiT (arXiv 2212.09748) takes from them is what is here.

Letters: B batch, C channels, S steps of a schedule. x is (B, ..., C, H, W); a denoiser's output is (B, ..., 2C, H, W):
the noise, then v, which places the log variance between its two bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from harness.diffusion.config import EXACT, TANH, TIMESTEPS


@dataclass(frozen=True)
class Schedule:
    """The float64 tables (S,) of one chain; index 0 is the least noise. `timesteps` is what the network receives."""

    timesteps: Tensor
    betas: Tensor
    alphas_cumprod: Tensor
    alphas_cumprod_prev: Tensor
    posterior_log_variance: Tensor  # that of index 0, which is zero, replaced by its neighbour's

    def __len__(self) -> int:
        return len(self.timesteps)

    def to(self, device: torch.device | str) -> Schedule:
        return Schedule(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def linear_schedule(steps: int = TIMESTEPS) -> Schedule:
    """Betas 1e-4 to 0.02 over 1000 timesteps, respaced to `steps` of them with both endpoints kept.

    The kept alpha-bars are unchanged; betas follow from their ratios. Raises ValueError for steps outside 1..1000.
    """
    if not 1 <= steps <= TIMESTEPS:
        raise ValueError(f"steps must lie in 1..{TIMESTEPS}, not {steps}")
    full = torch.cumprod(1 - torch.linspace(1e-4, 0.02, TIMESTEPS, dtype=torch.float64), dim=0)
    last = TIMESTEPS - 1
    kept = torch.tensor([round(i * last / (steps - 1)) for i in range(steps)] if steps > 1 else [last])
    alphas_cumprod = full[kept]
    previous = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[:-1]])
    betas = 1 - alphas_cumprod / previous
    posterior = betas * (1 - previous) / (1 - alphas_cumprod)
    log_posterior = torch.cat([posterior[1:2] if steps > 1 else betas, posterior[1:]]).log()
    return Schedule(kept, betas, alphas_cumprod, previous, log_posterior)


def _column(values: Tensor, x: Tensor) -> Tensor:
    """One value a sample (B,), shaped to broadcast over x, in its dtype."""
    return values.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))


def _at(table: Tensor, t: Tensor, x: Tensor) -> Tensor:
    return _column(table[t], x)


def _split(output: Tensor, xt: Tensor) -> tuple[Tensor, Tensor]:
    """Noise and v of an output, in x's dtype. Raises ValueError when there are no variance channels."""
    channels = xt.shape[-3]
    if output.shape[-3] != 2 * channels:
        raise ValueError(f"a denoiser of {channels} channels must return {2 * channels}, not {output.shape[-3]}")
    noise, v = output.to(xt.dtype).chunk(2, dim=-3)
    return noise, v


def q_sample(schedule: Schedule, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """x_t given x_0: sqrt(abar) x_0 + sqrt(1 - abar) noise (DDPM eq. 4). t (B,) indexes the schedule."""
    alphas = schedule.alphas_cumprod
    return _at(alphas.sqrt(), t, x0) * x0 + _at((1 - alphas).sqrt(), t, x0) * noise


def posterior(schedule: Schedule, x0: Tensor, xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance of q(x_{t-1} | x_t, x_0) (DDPM eq. 7); the log variance broadcasts over x."""
    previous, alphas, betas = schedule.alphas_cumprod_prev, schedule.alphas_cumprod, schedule.betas
    on_x0 = betas * previous.sqrt() / (1 - alphas)
    on_xt = (1 - previous) * (1 - betas).sqrt() / (1 - alphas)
    mean = _at(on_x0, t, xt) * x0 + _at(on_xt, t, xt) * xt
    return mean, _at(schedule.posterior_log_variance, t, xt)


@dataclass(frozen=True)
class Prediction:
    """What a denoiser's output states of a step: the noise, x_0, and the Gaussian p(x_{t-1} | x_t)."""

    noise: Tensor
    x0: Tensor
    mean: Tensor
    log_variance: Tensor


def predict(schedule: Schedule, output: Tensor, xt: Tensor, t: Tensor) -> Prediction:
    """Read an output (B, ..., 2C, H, W). Raises ValueError when it has no variance channels."""
    noise, v = _split(output, xt)
    alphas = schedule.alphas_cumprod
    x0 = _at(alphas.rsqrt(), t, xt) * xt - _at((1 / alphas - 1).sqrt(), t, xt) * noise
    mean, lower = posterior(schedule, x0, xt, t)
    upper = _at(schedule.betas.log(), t, xt)
    share = (v + 1) / 2
    return Prediction(noise, x0, mean, share * upper + (1 - share) * lower)


def gaussian_kl(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N1 || N2) elementwise, in nats."""
    ratio = log_variance1 - log_variance2
    return 0.5 * (ratio.exp() - 1 - ratio + (mean1 - mean2) ** 2 * (-log_variance2).exp())


def tanh_cdf(x: Tensor) -> Tensor:
    """The standard normal's CDF by a tanh, nowhere further from it than 1.8e-4 (that of GELU, arXiv 1606.08415).

    ADM, DiT and Latte compute the decoder's likelihood with it (`approx_standard_normal_cdf`).
    """
    return 0.5 * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())


CDFS: Mapping[str, Callable[[Tensor], Tensor]] = {EXACT: torch.special.ndtr, TANH: tanh_cdf}
"""Of the standard normal, by the names of `--decoder-nll`."""


def discretised_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor, cdf: str = EXACT) -> Tensor:
    """Log probability, in nats, of 8-bit values scaled to [-1, 1]: the Gaussian's mass in a bin of width 2/255.

    The outermost bins reach to infinity (DDPM eq. 13), so that the 256 masses sum to one. `cdf` is one of CDFS.
    """
    precision = (-0.5 * log_variance).exp()
    upper = CDFS[cdf](precision * (x - mean + 1 / 255))
    lower = CDFS[cdf](precision * (x - mean - 1 / 255))
    mass = torch.where(x < -0.999, upper, torch.where(x > 0.999, 1 - lower, upper - lower))
    return mass.clamp(min=1e-12).log()


def variational_term(schedule: Schedule, output: Tensor, x0: Tensor, xt: Tensor, t: Tensor, cdf: str = EXACT) -> Tensor:
    """The term of the variational bound at t, (B,), in bits a dimension: a KL, or the decoder's likelihood at t = 0."""
    guess = predict(schedule, output, xt, t)
    true_mean, true_log_variance = posterior(schedule, x0, xt, t)
    kl = gaussian_kl(true_mean, true_log_variance, guess.mean, guess.log_variance)
    decoder = -discretised_log_likelihood(x0, guess.mean, guess.log_variance, cdf)
    nats = torch.where(t == 0, decoder.flatten(1).mean(1), kl.flatten(1).mean(1))
    return nats / math.log(2)


def training_loss(
    schedule: Schedule, denoiser: Callable[[Tensor, Tensor], Tensor], x0: Tensor, t: Tensor, noise: Tensor,
    decoder_nll: str = EXACT,
) -> Tensor:  # fmt: skip
    """DiT's hybrid loss (B,): mean squared error of the noise, plus the variational term, unweighted.

    The variational term sees a detached noise prediction, hence trains the variance alone (arXiv 2102.09672, eq. 16).
    `denoiser(x_t, timesteps)` returns (B, ..., 2C, H, W); the loss is computed in x0's dtype whatever it returns.
    `decoder_nll` says by which of CDFS the term at t = 0 is computed.
    """
    xt = q_sample(schedule, x0, t, noise)
    predicted, v = _split(denoiser(xt, schedule.timesteps[t]), xt)
    squared = ((predicted - noise) ** 2).flatten(1).mean(1)
    frozen_mean = torch.cat([predicted.detach(), v], dim=-3)
    return squared + variational_term(schedule, frozen_mean, x0, xt, t, decoder_nll)


def ddpm_step(schedule: Schedule, output: Tensor, xt: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """One ancestral step to x_{t-1}; the last, at t = 0, adds no noise. x_0 is not clipped, as in DiT."""
    guess = predict(schedule, output, xt, t)
    return guess.mean + _column(t > 0, xt) * (0.5 * guess.log_variance).exp() * noise


def ddim_step(schedule: Schedule, output: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """One deterministic step to x_{t-1} (DDIM eq. 12 with sigma = 0)."""
    guess = predict(schedule, output, xt, t)
    previous = schedule.alphas_cumprod_prev
    return _at(previous.sqrt(), t, xt) * guess.x0 + _at((1 - previous).sqrt(), t, xt) * guess.noise


def sample(
    schedule: Schedule,
    denoiser: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    sampler: str,
    draw_noise: Callable[[], Tensor],
    watch: Callable[[int, Tensor], None] = lambda done, x: None,
) -> Tensor:
    """Run the whole chain from x ~ N(0, I), (B, ..., C, H, W).

    `draw_noise` gives each DDPM step's noise, like x; `watch` is given how many steps are done, and x, after each.
    """
    for step in reversed(range(len(schedule))):
        t = torch.full((len(x),), step, dtype=torch.int64, device=x.device)
        output = denoiser(x, schedule.timesteps[t])
        x = ddim_step(schedule, output, x, t) if sampler == "ddim" else ddpm_step(schedule, output, x, t, draw_noise())
        watch(len(schedule) - step, x)
    return x
