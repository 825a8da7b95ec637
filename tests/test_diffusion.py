"""The diffusion process against closed forms, numerical integration, and a data set whose perfect denoiser is known."""

import math

import pytest
import torch
from torch import Tensor

from harness.diffusion import process
from harness.diffusion.config import DECODER_NLLS, PRESETS
from harness.diffusion.process import linear_schedule

MEAN, DEVIATION = 0.3, 0.5  # the Gaussian data set of the analytic denoiser


def analytic_denoiser(schedule):
    """The exact reverse chain for data N(MEAN, DEVIATION²): E[noise | x_t], and the true variance of x_{t-1} | x_t."""

    def denoise(x: Tensor, timesteps: Tensor) -> Tensor:
        t = torch.searchsorted(schedule.timesteps, timesteps)
        alpha, beta = schedule.alphas_cumprod[t], schedule.betas[t]
        previous, log_posterior = schedule.alphas_cumprod_prev[t], schedule.posterior_log_variance[t]
        variance_xt = alpha * DEVIATION**2 + 1 - alpha
        column = (-1, 1, 1, 1)
        noise = (1 - alpha).sqrt().view(column) * (x - (alpha.sqrt() * MEAN).view(column)) / variance_xt.view(column)
        variance_previous = previous * DEVIATION**2 + 1 - previous
        # x_t = sqrt(1 - beta) x_{t-1} + sqrt(beta) n: conditioning one Gaussian on the other
        true_variance = variance_previous * beta / variance_xt
        share = (true_variance.log() - log_posterior) / (beta.log() - log_posterior)
        share = torch.where(t == 0, torch.zeros_like(share), share)
        return torch.cat([noise, (2 * share - 1).view(column).expand_as(x)], dim=1)

    return denoise


def test_linear_schedule_is_ddpms():
    schedule = linear_schedule()
    assert schedule.betas[0].item() == pytest.approx(1e-4, rel=1e-9)
    assert schedule.betas[-1].item() == pytest.approx(0.02, rel=1e-9)
    by_hand = 1.0
    for i in range(1000):
        by_hand *= 1 - (1e-4 + (0.02 - 1e-4) * i / 999)
    assert schedule.alphas_cumprod[-1].item() == pytest.approx(by_hand, rel=1e-10)
    assert schedule.alphas_cumprod.dtype == torch.float64


@pytest.mark.parametrize("steps", [2, 50, 250, 999, 1000])
def test_respaced_chain_keeps_endpoints_and_the_full_chains_alpha_bars(steps):
    full, short = linear_schedule(), linear_schedule(steps)
    assert short.timesteps[0] == 0
    assert short.timesteps[-1] == 999
    assert len(short.timesteps.unique()) == steps
    assert torch.equal(short.alphas_cumprod, full.alphas_cumprod[short.timesteps])
    assert torch.allclose(torch.cumprod(1 - short.betas, 0), short.alphas_cumprod, rtol=1e-12)
    assert short.timesteps.diff().max() - short.timesteps.diff().min() <= 1  # as even as integers allow


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_step_counts_are_refused(steps):
    with pytest.raises(ValueError, match=r"1\.\.1000"):
        linear_schedule(steps)


def test_marginal_of_q_sample_has_the_closed_form_moments():
    schedule, generator = linear_schedule(), torch.Generator().manual_seed(0)
    x0 = torch.full((200_000, 1, 1, 1), 0.7, dtype=torch.float64)
    noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    xt = process.q_sample(schedule, x0, torch.full((len(x0),), 400), noise)
    alpha = schedule.alphas_cumprod[400].item()
    assert xt.mean().item() == pytest.approx(0.7 * math.sqrt(alpha), abs=0.01)
    assert xt.var().item() == pytest.approx(1 - alpha, rel=0.02)


def test_posterior_is_bayes_rule_on_two_gaussians():
    """q(x_{t-1} | x_t, x_0) ∝ N(x_t; sqrt(1-b) x_{t-1}, b) N(x_{t-1}; sqrt(a) x_0, 1-a): precisions add."""
    schedule = linear_schedule(250)
    t = torch.tensor([1, 17, 120, 249])
    x0, xt = torch.randn(2, 4, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mean, log_variance = process.posterior(schedule, x0, xt, t)
    beta = schedule.betas[t].view(-1, 1, 1, 1)
    previous = schedule.alphas_cumprod_prev[t].view(-1, 1, 1, 1)
    precision = (1 - beta) / beta + 1 / (1 - previous)
    assert torch.allclose(log_variance.exp(), 1 / precision, rtol=1e-9)
    by_hand = (xt * (1 - beta).sqrt() / beta + x0 * previous.sqrt() / (1 - previous)) / precision
    assert torch.allclose(mean, by_hand, rtol=1e-9)


def test_learned_range_variance_reaches_both_bounds():
    schedule, t = linear_schedule(), torch.tensor([500])
    x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    for v, expected in ((1.0, schedule.betas[500].log()), (-1.0, schedule.posterior_log_variance[500])):
        output = torch.cat([x, torch.full_like(x, v)], dim=1)
        assert process.predict(schedule, output, x, t).log_variance.item() == pytest.approx(expected.item(), rel=1e-12)


def test_variational_term_is_the_numerically_integrated_kl():
    schedule, t = linear_schedule(), torch.tensor([300])
    generator = torch.Generator().manual_seed(2)
    x0, xt, noise, v = torch.randn(4, 1, 1, 1, 1, dtype=torch.float64, generator=generator)
    output = torch.cat([noise, v], dim=1)
    bits = process.variational_term(schedule, output, x0, xt, t).item()

    mean_q, log_q = (value.item() for value in process.posterior(schedule, x0, xt, t))
    guess = process.predict(schedule, output, xt, t)
    q = torch.distributions.Normal(torch.tensor(mean_q, dtype=torch.float64), math.exp(0.5 * log_q))
    p = torch.distributions.Normal(guess.mean.squeeze(), (0.5 * guess.log_variance).exp().squeeze())
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64) * math.exp(0.5 * log_q) + mean_q
    integrand = q.log_prob(grid).exp() * (q.log_prob(grid) - p.log_prob(grid))
    assert bits == pytest.approx(torch.trapezoid(integrand, grid).item() / math.log(2), rel=1e-6)


def test_variational_term_at_zero_is_the_mass_of_the_8_bit_bin():
    schedule, t = linear_schedule(), torch.tensor([0])
    x0 = torch.full((1, 1, 1, 1), 2 * 100 / 255 - 1, dtype=torch.float64)
    xt = x0 + 0.01
    output = torch.zeros(1, 2, 1, 1, dtype=torch.float64)
    guess = process.predict(schedule, output, xt, t)
    p = torch.distributions.Normal(guess.mean.squeeze(), (0.5 * guess.log_variance).exp().squeeze())
    mass = p.cdf(x0.squeeze() + 1 / 255) - p.cdf(x0.squeeze() - 1 / 255)
    assert process.variational_term(schedule, output, x0, xt, t).item() == pytest.approx(-math.log2(mass.item()))


@pytest.mark.parametrize("cdf", DECODER_NLLS)
def test_masses_of_all_256_bins_sum_to_one(cdf):
    values = (2 * torch.arange(256, dtype=torch.float64) / 255 - 1).view(-1, 1)
    for mean, log_variance in ((0.0, -2.0), (0.97, -3.0), (-1.4, 0.5)):
        logs = process.discretised_log_likelihood(values, torch.tensor(mean).double(), torch.tensor(log_variance), cdf)
        assert logs.exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_the_tanh_of_dit_is_the_normal_cdf_to_within_two_ten_thousandths():
    """By hand at 1: u = sqrt(2 / pi) 1.044715 = 0.833561..., and (1 + tanh u) / 2 = 0.841192; the CDF is 0.841345."""
    assert process.tanh_cdf(torch.tensor(1.0, dtype=torch.float64)).item() == pytest.approx(0.841192, abs=1e-6)
    assert process.CDFS["exact"](torch.tensor(1.0, dtype=torch.float64)).item() == pytest.approx(0.841345, abs=1e-6)
    x = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    apart = (process.CDFS["tanh"](x) - process.CDFS["exact"](x)).abs()
    assert apart.max().item() == pytest.approx(1.79e-4, abs=1e-6)
    assert abs(x[apart.argmax()].item()) == pytest.approx(2.592, abs=2e-3)


def by_hand(cdf: str, off: float, v: float) -> tuple[float, float]:
    """The term at t = 0 in bits, and its gradient to v, of one inner value whose predicted mean is `off` below it.

    The variance lies between two: beta_0 = 1e-4, and that of t = 1, beta_1 beta_0 / (1 - (1 - beta_0)(1 - beta_1)).
    """
    first, second = 1e-4, 1e-4 + (0.02 - 1e-4) / 999
    upper, lower = math.log(first), math.log(second * first / (1 - (1 - first) * (1 - second)))
    precision = math.exp(-((v + 1) / 2 * upper + (1 - v) / 2 * lower) / 2)
    ends = [precision * (off + width) for width in (1 / 255, -1 / 255)]
    if cdf == "exact":
        cdfs = [(1 + math.erf(z / math.sqrt(2))) / 2 for z in ends]
        densities = [math.exp(-z * z / 2) / math.sqrt(2 * math.pi) for z in ends]
    else:
        k = math.sqrt(2 / math.pi)
        waves = [math.tanh(k * (z + 0.044715 * z**3)) for z in ends]
        cdfs = [(1 + wave) / 2 for wave in waves]
        densities = [(1 - w * w) / 2 * k * (1 + 3 * 0.044715 * z * z) for w, z in zip(waves, ends, strict=True)]
    mass = cdfs[0] - cdfs[1]
    by_log_variance = -(densities[0] * ends[0] - densities[1] * ends[1]) / 2  # a precision p falls by p / 2
    return -math.log2(mass), -by_log_variance / mass * (upper - lower) / 2 / math.log(2)


@pytest.mark.parametrize(("off", "apart"), [(0.0, -5.53e-5), (0.004, -8.76e-5), (-0.013, 1.986e-3), (0.03, -0.1316)])
def test_the_term_at_zero_and_its_gradient_are_those_worked_out_by_hand_for_both(off, apart):
    """And the gradients are as far apart as they are: next to nothing where the mean is right, not where it is off."""
    schedule, t = linear_schedule(), torch.tensor([0])
    x0 = torch.full((1, 1, 1, 1), 2 * 100 / 255 - 1, dtype=torch.float64)
    xt = (x0 - off) * schedule.alphas_cumprod[0].sqrt()  # with no noise predicted, x0 is believed to be x0 - off
    found = {}
    for cdf in DECODER_NLLS:
        v = torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64, requires_grad=True)
        bits = process.variational_term(schedule, torch.cat([torch.zeros_like(v), v], dim=1), x0, xt, t, cdf)
        (gradient,) = torch.autograd.grad(bits.sum(), v)
        found[cdf] = bits.item(), gradient.item()
        assert found[cdf] == pytest.approx(by_hand(cdf, off, 0.3), rel=1e-9), cdf
    assert found["tanh"][1] - found["exact"][1] == pytest.approx(apart, rel=2e-3)


def test_the_loss_takes_the_likelihood_that_is_asked_for_at_zero_alone():
    schedule, generator = linear_schedule(), torch.Generator().manual_seed(6)
    x0, noise = torch.randn(2, 2, 1, 2, 2, dtype=torch.float64, generator=generator)
    output = torch.randn(2, 2, 2, 2, dtype=torch.float64, generator=generator)
    losses = [
        process.training_loss(schedule, lambda *_: output, x0, torch.tensor([0, 1]), noise, name)
        for name in DECODER_NLLS
    ]
    assert losses[0][0] != losses[1][0]
    assert losses[0][1] == losses[1][1]


def test_presets_that_reproduce_dit_and_latte_take_their_likelihood_and_the_others_the_exact_one():
    assert {name: preset.decoder_nll for name, preset in PRESETS.items()} == {
        "digits": "exact", "fashion-mnist": "exact", "moving-digits": "exact", "bouncing-digits": "exact",
        "imagenet256": "tanh", "ucf101": "tanh",
    }  # fmt: skip


def test_hybrid_loss_trains_the_noise_by_squared_error_and_the_variance_by_the_bound_alone():
    schedule, t = linear_schedule(), torch.tensor([0, 250, 999])
    generator = torch.Generator().manual_seed(3)
    x0, noise, out_noise, out_v = torch.randn(4, 3, 2, 4, 4, dtype=torch.float64, generator=generator)
    out_noise.requires_grad_()
    out_v.requires_grad_()
    output = torch.cat([out_noise, out_v], dim=1)
    loss = process.training_loss(schedule, lambda *_: output, x0, t, noise)
    by_noise, by_v = torch.autograd.grad(loss.sum(), [out_noise, out_v], retain_graph=True)
    assert torch.allclose(by_noise, 2 * (out_noise - noise) / 32)
    xt = process.q_sample(schedule, x0, t, noise)
    bound = process.variational_term(schedule, output, x0, xt, t)
    assert torch.allclose(by_v, torch.autograd.grad(bound.sum(), out_v)[0])
    assert torch.allclose(loss, ((out_noise - noise) ** 2).flatten(1).mean(1) + bound)


def test_the_network_receives_original_timesteps():
    seen = []

    def denoiser(x, timesteps):
        seen.append(timesteps[0].item())
        return torch.zeros(1, 2, 1, 1)

    process.sample(linear_schedule(4), denoiser, torch.zeros(1, 1, 1, 1), "ddim", lambda: torch.zeros(1, 1, 1, 1))
    assert seen == [999, 666, 333, 0]


@pytest.mark.parametrize(("sampler", "steps"), [("ddpm", 1000), ("ddpm", 50), ("ddim", 1000), ("ddim", 250)])
def test_sampling_from_the_analytic_denoiser_recovers_mean_and_variance(sampler, steps):
    schedule, generator = linear_schedule(steps), torch.Generator().manual_seed(4)

    def draw() -> Tensor:
        return torch.randn(8, 1, 50, 50, dtype=torch.float64, generator=generator)

    samples = process.sample(schedule, analytic_denoiser(schedule), draw(), sampler, draw)
    standard_error = DEVIATION / math.sqrt(samples.numel())
    assert samples.mean().item() == pytest.approx(MEAN, abs=5 * standard_error + 0.005)
    assert samples.std().item() == pytest.approx(DEVIATION, rel=0.03)


def test_last_ddpm_step_adds_no_noise():
    schedule, t = linear_schedule(), torch.tensor([0, 1])
    x, output = torch.ones(2, 1, 1, 1), torch.zeros(2, 2, 1, 1)
    quiet = process.ddpm_step(schedule, output, x, t, torch.zeros_like(x))
    noisy = process.ddpm_step(schedule, output, x, t, torch.ones_like(x))
    assert quiet[0] == noisy[0]
    assert quiet[1] != noisy[1]


def test_clips_are_diffused_like_images():
    """A frame axis before the channels changes nothing: the loss of a clip is that of its frames at one timestep."""
    schedule, generator = linear_schedule(), torch.Generator().manual_seed(5)
    x0, noise = torch.randn(2, 3, 4, 1, 2, 2, generator=generator)
    output = torch.randn(3, 4, 2, 2, 2, generator=generator)
    t = torch.tensor([0, 10, 600])
    clips = process.training_loss(schedule, lambda *_: output, x0, t, noise)
    frames = process.training_loss(
        schedule, lambda *_: output.flatten(0, 1), x0.flatten(0, 1), t.repeat_interleave(4), noise.flatten(0, 1)
    )
    assert torch.allclose(clips, frames.view(3, 4).mean(1))


def test_an_output_without_variance_channels_is_named():
    schedule, x = linear_schedule(), torch.zeros(1, 4, 2, 2)
    with pytest.raises(ValueError, match="must return 8, not 4"):
        process.training_loss(schedule, lambda *_: x, x, torch.tensor([3]), x)
