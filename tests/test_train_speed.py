"""Benchmarks of the training step, each against a reference timed in the same run: pytest tests/test_train_speed.py
--benchmark-only. Rounds alternate, so that whatever else the machine does falls on both."""

import dataclasses
import statistics
import time

import torch
from timm.layers import Attention, Mlp, PatchEmbed
from torch import nn

from harness.autoencoder import Identity
from harness.data import Digits
from harness.diffusion import fit
from harness.diffusion.batches import draw_batch, prefetch
from harness.diffusion.presets import PRESETS
from harness.diffusion.process import linear_schedule, training_loss
from harness.distributed import Ranks
from models import create_model
from models.layers import FinalLayer, LabelEmbedder, TimestepEmbedder, modulate, sincos_2d

CPU = Ranks(0, 1, torch.device("cpu"))


def alternate(benchmark, ours, reference, rounds):
    """Time both in turn; returns reference time over ours, of the medians: above 1, ours is faster."""
    times = {ours: [], reference: []}
    for step in (ours, reference):
        step()
    for _ in range(rounds):
        for step, seconds in times.items():
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
    ratio = statistics.median(times[reference]) / statistics.median(times[ours])
    benchmark.extra_info |= {"ratio": ratio, "reference_seconds": times[reference], "threads": torch.get_num_threads()}
    benchmark.pedantic(ours, rounds=1)
    print(f"\n{statistics.median(times[ours]) * 1e3:.1f} ms a step, {ratio:.3f}x the reference's speed")
    return ratio


def test_the_trainer_s_step_is_as_fast_as_a_loop_by_hand(benchmark):
    """The whole step, batches included, against the loop that one would write: foreach AdamW, EMA by parameter."""
    config = dataclasses.replace(PRESETS["digits"], model="DiT-T/2", batch=128)
    digits = Digits(8)
    torch.manual_seed(0)
    model = create_model("DiT-T/2", 8, channels=1, downsample=1, num_classes=10)
    twin = create_model("DiT-T/2", 8, channels=1, downsample=1, num_classes=10)
    twin.load_state_dict(model.state_dict())

    execution = fit.Execution(checkpoint_every=10**9, milestones=frozenset())
    learner = fit.new_learner(model, config)
    train_step = fit.make_step(learner, Identity(), config, execution, CPU)
    parts = ((step, range(128)) for step in range(10**6))
    batches = prefetch(lambda s, rows: draw_batch(digits, config, (1, 8, 8), False, s, rows), parts, 2)

    images, labels = digits.load(range(len(digits)), [False] * len(digits))
    schedule = linear_schedule()
    optimizer = torch.optim.AdamW(twin.parameters(), lr=config.learning_rate, weight_decay=0)
    ema = {name: value.detach().clone() for name, value in twin.named_parameters()}
    twin.train()

    def by_hand():
        rows = torch.randint(len(images), (128,))
        x0, y, t = images[rows], labels[rows], torch.randint(1000, (128,))
        loss = training_loss(schedule, lambda x, s: twin(x, s, y), x0, t, torch.randn_like(x0)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for name, value in twin.named_parameters():
                ema[name].mul_(config.ema_decay).add_(value, alpha=1 - config.ema_decay)
        return loss.item()

    ratio = alternate(benchmark, lambda: train_step(batches)[0].item(), by_hand, rounds=40)
    batches.close()
    assert ratio >= 0.97


class ReferenceBlock(nn.Module):
    """A DiT block in the reference arrangement: timm's attention and MLP between affine-free norms, one adaLN."""

    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(width, num_heads=heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(width, 4 * width, act_layer=lambda: nn.GELU(approximate="tanh"))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x, c):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + gate1.unsqueeze(1) * self.attn(modulate(self.norm1(x), shift1, scale1))
        return x + gate2.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift2, scale2))


class ReferenceDiT(nn.Module):
    def __init__(self, spec, resolution):
        super().__init__()
        grid = spec.grid(resolution)
        self.patch, self.grid = spec.patch, grid
        self.x_embedder = PatchEmbed(grid * spec.patch, spec.patch, spec.channels, spec.width)
        self.t_embedder = TimestepEmbedder(spec.width)
        self.y_embedder = LabelEmbedder(spec.num_classes, spec.width, 0.1)
        self.pos_embed = nn.Parameter(sincos_2d(grid, spec.width), requires_grad=False)
        self.blocks = nn.ModuleList([ReferenceBlock(spec.width, spec.heads) for _ in range(spec.depth)])
        self.final_layer = FinalLayer(spec)

    def forward(self, x, t, y):
        x = self.x_embedder(x) + self.pos_embed
        c = self.t_embedder(t) + self.y_embedder(y)
        for block in self.blocks:
            x = block(x, c)
        x = self.final_layer(x, c).unflatten(1, (self.grid, self.grid)).unflatten(-1, (self.patch, self.patch, -1))
        return torch.einsum("bhwpqc->bchpwq", x).reshape(len(x), -1, self.grid * self.patch, self.grid * self.patch)


def test_dit_b4_trains_as_fast_as_the_reference_arrangement(benchmark):
    model = create_model("DiT-B/4", 256).train()
    reference = ReferenceDiT(model.spec, 256)
    reference.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(0)
    x, t, y = torch.randn(2, 4, 32, 32, generator=generator), torch.tensor([10, 500]), torch.tensor([1, 2])
    noise, schedule = torch.randn(x.shape, generator=generator), linear_schedule()

    def step_of(network):
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0, fused=True)

        def step():
            training_loss(schedule, lambda x, s: network(x, s, y), x, t, noise).mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    with torch.no_grad():
        model.eval(), reference.eval()
        torch.testing.assert_close(model(x, t, y), reference(x, t, y))
        model.train(), reference.train()
    ratio = alternate(benchmark, step_of(model), step_of(reference), rounds=10)
    assert ratio >= 0.97, "equal, within the noise of a shared machine"
