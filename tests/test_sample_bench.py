"""How fast samples are drawn on this machine, beside a plain loop over other implementations of the same network.

    python -m pytest tests/test_sample_bench.py --benchmark-only

takes some two minutes on an idle machine and writes results/benchmarks/sample.md and sample.json. Not part of the
normal test run. All sides have the same weights and draw as many samples in as many guided steps; they take turns.
"""

import copy
import dataclasses
import json
import statistics
import time
from pathlib import Path

import pytest
import torch
from reference_dit import ReferenceDiT

from harness.core.provenance import Provenance
from harness.data.autoencoder import Identity
from harness.diffusion.generate import run_chain, slots_of
from harness.diffusion.process import ddpm_step, linear_schedule
from harness.diffusion.sample_config import SampleConfig
from harness.diffusion.trained import Trained
from models import create_model

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"
COMMAND = "python -m pytest tests/test_sample_bench.py --benchmark-only"
MODEL, RESOLUTION, STEPS, SCALE, ROUNDS = "DiT-S/4", 256, 4, 4.0, 7
CPU = torch.device("cpu")


def diffusers_twin(model):
    """diffusers' DiTTransformer2DModel with the weights of a DiT of ours."""
    diffusers = pytest.importorskip("diffusers", reason="the comparison needs the extra 'vae' (diffusers)")
    spec, grid = model.spec, model.spec.grid(RESOLUTION)
    twin = diffusers.DiTTransformer2DModel(
        num_attention_heads=spec.heads, attention_head_dim=spec.width // spec.heads, num_layers=spec.depth,
        in_channels=spec.channels, out_channels=2 * spec.channels, sample_size=grid * spec.patch,
        patch_size=spec.patch, num_embeds_ada_norm=spec.num_classes,
    ).eval()  # fmt: skip
    ours = model.state_dict()
    state = {}
    for kind in ("weight", "bias"):
        state[f"pos_embed.proj.{kind}"] = ours[f"x_embedder.proj.{kind}"]
        state[f"proj_out_1.{kind}"] = ours[f"final_layer.adaLN_modulation.1.{kind}"]
        state[f"proj_out_2.{kind}"] = ours[f"final_layer.linear.{kind}"]
        for i in range(spec.depth):
            block, theirs = f"blocks.{i}", f"transformer_blocks.{i}"
            for name, layer in (("linear_1", "mlp.0"), ("linear_2", "mlp.2")):
                state[f"{theirs}.norm1.emb.timestep_embedder.{name}.{kind}"] = ours[f"t_embedder.{layer}.{kind}"]
            for name, part in zip("qkv", ours[f"{block}.attn.qkv.{kind}"].chunk(3), strict=True):
                state[f"{theirs}.attn1.to_{name}.{kind}"] = part
            state[f"{theirs}.norm1.linear.{kind}"] = ours[f"{block}.adaLN_modulation.1.{kind}"]
            state[f"{theirs}.attn1.to_out.0.{kind}"] = ours[f"{block}.attn.proj.{kind}"]
            state[f"{theirs}.ff.net.0.proj.{kind}"] = ours[f"{block}.mlp.fc1.{kind}"]
            state[f"{theirs}.ff.net.2.{kind}"] = ours[f"{block}.mlp.fc2.{kind}"]
    for i in range(spec.depth):
        table = ours["y_embedder.embedding_table.weight"]
        state[f"transformer_blocks.{i}.norm1.emb.class_embedder.embedding_table.weight"] = table
    missing, unexpected = twin.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("pos_embed" in name for name in missing), missing
    return twin


def plain_loop(network, count):
    """A guided chain as one writes it: noise, both halves through the network, guidance on three channels, a step."""
    schedule, labels = linear_schedule(STEPS), torch.arange(count)
    both = torch.cat([labels, torch.full_like(labels, 1000)])

    @torch.inference_mode()
    def draw():
        side = RESOLUTION // 8
        x = torch.randn(count, 4, side, side)
        for step in reversed(range(STEPS)):
            t = torch.full((count,), step)
            output = network(torch.cat([x, x]), schedule.timesteps[t].repeat(2), both)
            (cond, rest), (uncond, _) = (half.split([3, 5], dim=1) for half in output.chunk(2))
            guided = torch.cat([uncond + SCALE * (cond - uncond), rest], dim=1)
            x = ddpm_step(schedule, guided, x, t, torch.randn_like(x))
        return x

    return draw


def as_harness(model):
    """The chain of harness.sample, and how many samples a batch of it has."""
    trained = Trained(model, Identity(), [], {}, {}, STEPS)
    config = trained.resolve(SampleConfig(steps=STEPS, cfg_scale=SCALE, classes="balanced"))
    slots = slots_of(trained, 64, CPU)

    @torch.inference_mode()
    def draw():
        return run_chain(trained, config, list(range(slots)), slots, CPU)

    return draw, slots


def test_samples_are_drawn_as_fast_as_by_a_plain_loop_over_other_implementations(benchmark):
    torch.manual_seed(0)
    model = create_model(MODEL, RESOLUTION).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(std=0.02)  # no layer is zero, as some are at the start of a training
    reference = ReferenceDiT(model.spec, RESOLUTION).eval()
    reference.load_state_dict(model.state_dict())
    twin = diffusers_twin(model)
    ours, count = as_harness(model)

    def by_diffusers(x, t, y):
        return twin(x, timestep=t, class_labels=y).sample

    x, y = torch.randn(2, 4, 32, 32), torch.tensor([3, 5])
    with torch.inference_mode():
        for t in (torch.zeros(2, dtype=torch.int64), torch.tensor([10, 500])):
            torch.testing.assert_close(reference(x, t, y), model(x, t, y))
        start = torch.zeros(2, dtype=torch.int64)  # elsewhere diffusers' frequencies of the time embedding differ
        torch.testing.assert_close(by_diffusers(x, start, y), model(x, start, y), rtol=1e-3, atol=1e-3)

    compiled = copy.deepcopy(model)
    compiled.compile()
    sides = {
        "ours": ours,
        "ours, --compile": as_harness(compiled)[0],
        "timm's blocks in the reference arrangement, plain loop": plain_loop(reference, count),
        "diffusers' DiTTransformer2DModel, plain loop": plain_loop(by_diffusers, count),
    }
    first, taken = {}, {name: [] for name in sides}
    for name, draw in sides.items():
        first[name] = _seconds(draw)
    for name in sides:
        _seconds(sides[name])
    for at in range(ROUNDS):
        for name in list(sides)[:: 1 if at % 2 else -1]:
            taken[name].append(_seconds(sides[name]))
    benchmark.pedantic(ours, rounds=1)
    _write(count, first, taken)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    assert all(time >= 0.97 * medians["ours"] for name, time in medians.items() if "plain loop" in name), medians


def _seconds(draw):
    start = time.perf_counter()
    draw()
    return time.perf_counter() - start


def _write(count, first, taken):
    RESULTS.mkdir(parents=True, exist_ok=True)
    here = dataclasses.asdict(Provenance.here())
    record = {**here, "command": COMMAND, "threads": torch.get_num_threads(), "first_seconds": first, "seconds": taken}
    (RESULTS / "sample.json").write_text(json.dumps(record, indent=1) + "\n")
    ours = statistics.median(taken["ours"])
    lines = ["| sampler and network | s | over ours | first call, s |", "| --- | --- | --- | --- |"]
    for name, times in taken.items():
        median = statistics.median(times)
        lines.append(f"| {name} | {median:.2f} | {median / ours:.3f} | {first[name]:.1f} |")
    what = (
        f"{count} samples of {MODEL} at {RESOLUTION} in {STEPS} guided steps, medians of {ROUNDS} rounds on "
        f"{here['device']}, {torch.get_num_threads()} threads, torch {torch.__version__}: `{COMMAND}`"
    )
    (RESULTS / "sample.md").write_text("\n".join([what, "", *lines]) + "\n")
