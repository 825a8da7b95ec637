"""DiT computes DiT's function and loads its checkpoints; DiM computes a bidirectional Mamba, written out here."""

import argparse

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from scans import here

from models import catalogue, create_model, load_weights, spec
from models.families.dim.block import causal_conv1d, scan_operands
from models.scan import selective_scan


def randomised(name: str, resolution: int = 64, seed: int = 0, **overrides):
    """A model whose every parameter is drawn anew: a fresh one has its gates closed and gives zeros."""
    torch.manual_seed(seed)
    model = create_model(name, resolution, **overrides).eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "A_" in key:
                p.copy_(torch.rand_like(p))  # log decay: keep it moderate
            else:
                p.normal_(std=0.1)
    return model


def inputs(model, batch: int = 3, seed: int = 1):
    g = torch.Generator().manual_seed(seed)
    side = model.resolution // model.spec.downsample
    x = torch.randn(batch, model.spec.channels, side, side, generator=g)
    t = torch.randint(0, 1000, (batch,), generator=g)
    y = torch.randint(0, model.spec.num_classes + 1, (batch,), generator=g)
    return x, t, y


# -------------------------------------------------------------------------------------------------- the whole catalogue


@pytest.mark.parametrize("name", catalogue())
def test_every_model_runs_on_meta_and_keeps_the_shape(name):
    model = create_model(name, 512, device="meta", depth=min(5, spec(name).depth)).eval()  # further blocks are alike
    x = torch.empty(2, 4, 64, 64, device="meta")
    with torch.no_grad():
        out = model(x, torch.empty(2, device="meta"), torch.empty(2, dtype=torch.long, device="meta"))
    assert out.shape == (2, 8, 64, 64)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("DiT-XL/2", 674.83), ("DiT-S/4", 32.92), ("DiT-B/8", 130.87), ("DiM-XL/2", 994.47), ("DiM-B/4", 199.19)],
)
def test_parameter_counts_are_those_of_hand_arithmetic(name, millions):
    s = spec(name)
    D, N, p, R, S, K = s.width, s.depth, s.patch, s.dt_rank, 16, 4
    mixer = 4 * D * D + 4 * D if s.family == "DiT" else 6 * D * D + 4 * D * (2 * R + 3 * S + K + 3)
    block = mixer + 8 * D * D + 5 * D + 6 * D * D + 6 * D
    stem = 4 * p * p * D + D + 256 * D + D + D * D + D + 1001 * D
    head = 2 * D * D + 2 * D + 8 * p * p * D + 8 * p * p
    model = create_model(name, device="meta")
    assert sum(q.numel() for q in model.parameters()) == N * block + stem + head
    assert round((N * block + stem + head) / 1e6, 2) == millions


# ----------------------------------------------------------------------------------------------------------- DiT is DiT


def dit_keys(depth: int) -> list[str]:
    """The keys of an official DiT checkpoint."""
    block = "attn.qkv attn.proj mlp.fc1 mlp.fc2 adaLN_modulation.1".split()
    linears = ["x_embedder.proj", "t_embedder.mlp.0", "t_embedder.mlp.2", "final_layer.linear"]
    linears += ["final_layer.adaLN_modulation.1"] + [f"blocks.{i}.{name}" for i in range(depth) for name in block]
    keys = [f"{name}.{kind}" for name in linears for kind in ("weight", "bias")]
    return ["pos_embed", "y_embedder.embedding_table.weight", *keys]


@pytest.mark.parametrize(("resolution", "values"), [(256, 675_129_632), (512, 676_014_368)])
def test_dit_xl_2_has_the_keys_and_values_of_the_official_checkpoints(resolution, values):
    state = create_model("DiT-XL/2", resolution, device="meta").state_dict()
    assert sorted(state) == sorted(dit_keys(28))
    assert len(state) == 292
    assert sum(v.numel() for v in state.values()) == values
    assert state["blocks.0.attn.qkv.weight"].shape == (3456, 1152)
    assert state["y_embedder.embedding_table.weight"].shape == (1001, 1152)


def plain_dit(w: dict, x, t, y, patch: int, heads: int, depth: int):
    """DiT's forward pass from its state dict, in plain tensor arithmetic."""
    B, C, H, W = x.shape
    h = H // patch
    patches = x.reshape(B, C, h, patch, h, patch).permute(0, 2, 4, 1, 3, 5).reshape(B, h * h, -1)
    tokens = patches @ w["x_embedder.proj.weight"].flatten(1).T + w["x_embedder.proj.bias"] + w["pos_embed"]
    freqs = 10000 ** (-torch.arange(128) / 128)
    angles = t[:, None].float() * freqs
    c = torch.cat([angles.cos(), angles.sin()], 1) @ w["t_embedder.mlp.0.weight"].T + w["t_embedder.mlp.0.bias"]
    c = (c * c.sigmoid()) @ w["t_embedder.mlp.2.weight"].T + w["t_embedder.mlp.2.bias"]
    c = c + w["y_embedder.embedding_table.weight"][y]
    c = c * c.sigmoid()

    def norm(v):
        return (v - v.mean(-1, keepdim=True)) / (v.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()

    def linear(name, v):
        return v @ w[name + ".weight"].T + w[name + ".bias"]

    for i in range(depth):
        m = [v[:, None] for v in linear(f"blocks.{i}.adaLN_modulation.1", c).chunk(6, 1)]
        qkv = linear(f"blocks.{i}.attn.qkv", norm(tokens) * (1 + m[1]) + m[0])
        q, k, v = (a.reshape(B, h * h, heads, -1).transpose(1, 2) for a in qkv.chunk(3, -1))
        attention = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v
        attention = attention.transpose(1, 2).reshape(tokens.shape)
        tokens = tokens + m[2] * linear(f"blocks.{i}.attn.proj", attention)
        hidden = linear(f"blocks.{i}.mlp.fc1", norm(tokens) * (1 + m[4]) + m[3])
        hidden = 0.5 * hidden * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)))
        tokens = tokens + m[5] * linear(f"blocks.{i}.mlp.fc2", hidden)
    shift, scale = (v[:, None] for v in linear("final_layer.adaLN_modulation.1", c).chunk(2, 1))
    out = linear("final_layer.linear", norm(tokens) * (1 + scale) + shift)
    return torch.einsum("nhwpqc->nchpwq", out.reshape(B, h, h, patch, patch, 2 * C)).reshape(B, 2 * C, H, W)


@pytest.mark.parametrize("fused", [True, False])
def test_dit_computes_the_function_of_its_state_dict(fused):
    model = randomised("DiT-N/2")
    for block in model.blocks:
        block.attn.fused_attn = fused
    x, t, y = inputs(model)
    with torch.no_grad():
        expected = plain_dit(model.state_dict(), x, t, y, patch=2, heads=2, depth=3)
        assert torch.allclose(model(x, t, y), expected, atol=1e-4)


def test_position_table_is_dits():
    """Half the width for each axis, [sin | cos] at 10000^(-i / (D/4)), columns first, tokens row by row."""
    table = create_model("DiT-N/8", 256).pos_embed[0].double()  # 4 x 4 tokens, width 64
    row, column, i = 2, 3, 5
    token = table[row * 4 + column]
    omega = 10000.0 ** (-i / 16)
    expected = torch.tensor(
        [omega * column, omega * column + torch.pi / 2, omega * row, omega * row + torch.pi / 2]
    ).sin()
    assert torch.allclose(token[[i, 16 + i, 32 + i, 48 + i]], expected.double(), atol=1e-6)


def test_guidance_is_dits_three_channels_by_default():
    model = randomised("DiT-N/2")
    x, t, y = inputs(model, batch=2)
    null = torch.full_like(y, 1000)
    doubled = (torch.cat([x, torch.zeros_like(x)]), torch.cat([t, t]), torch.cat([y, null]))
    with torch.no_grad():
        cond, uncond = model(x, t, y), model(x, t, null)
        out = model.forward_with_cfg(*doubled, cfg_scale=1.5)
        all_four = model.forward_with_cfg(*doubled, cfg_scale=1.5, cfg_channels=4)
    guided = uncond + 1.5 * (cond - uncond)
    assert torch.allclose(out[:2, :3], guided[:, :3], atol=1e-5)
    assert torch.allclose(out[:2, 3:], cond[:, 3:], atol=1e-5)
    assert torch.allclose(out[2:, :3], guided[:, :3], atol=1e-5)
    assert torch.allclose(all_four[:2, :4], guided[:, :4], atol=1e-5)
    assert torch.allclose(all_four[:2, 4:], cond[:, 4:], atol=1e-5)


def test_guidance_never_touches_the_variance_of_a_one_channel_image():
    model = randomised("DiM-N/2", 8, channels=1, downsample=1, num_classes=10)
    x, t, y = inputs(model, batch=1)
    with torch.no_grad():
        cond = model(x, t, y)
        out = model.forward_with_cfg(x.repeat(2, 1, 1, 1), t.repeat(2), torch.tensor([y.item(), 10]), cfg_scale=4.0)
    assert torch.allclose(out[0, 1], cond[0, 1], atol=1e-5)
    assert not torch.allclose(out[0, 0], cond[0, 0], atol=1e-3)


# ----------------------------------------------------------------------------------------- DiM is a bidirectional Mamba


def plain_mamba(w: dict, x, b: str = ""):
    """One direction of the mixer over x (L, D), token by token and channel by channel, in float64."""
    w = {k: v.double() for k, v in w.items()}
    E, K = w[f"conv1d{b}.weight"].shape[0], w[f"conv1d{b}.weight"].shape[2]
    R = w[f"dt_proj{b}.weight"].shape[1]
    xz = x.double() @ w["in_proj.weight"].T
    u, z = xz[:, :E], xz[:, E:]
    A, state = -w[f"A{b}_log"].exp(), torch.zeros_like(w[f"A{b}_log"])
    out = []
    for i in range(len(x)):
        conv = w[f"conv1d{b}.bias"].clone()
        for k in range(K):
            if i - k >= 0:
                conv += w[f"conv1d{b}.weight"][:, 0, K - 1 - k] * u[i - k]
        v = conv * conv.sigmoid()
        projected = w[f"x_proj{b}.weight"] @ v
        dt = F.softplus(w[f"dt_proj{b}.weight"] @ projected[:R] + w[f"dt_proj{b}.bias"])
        B, C = projected[R : R + 16], projected[R + 16 :]
        state = (dt[:, None] * A).exp() * state + (dt * v)[:, None] * B
        out.append((state @ C + w[f"D{b}"] * v) * z[i] * z[i].sigmoid())
    return torch.stack(out)


@pytest.mark.parametrize("merge", ["mean", "sum"])
def test_mixer_is_two_mambas_one_over_the_reversed_sequence(merge):
    mixer = randomised("DiM-N/4", merge=merge).blocks[0].mixer
    x = torch.randn(2, 7, 64)
    with torch.no_grad():
        for sample, got in zip(x, mixer(x), strict=True):
            w = mixer.state_dict()
            both = plain_mamba(w, sample) + plain_mamba(w, sample.flip(0), "_b").flip(0)
            expected = both * (0.5 if merge == "mean" else 1.0) @ w["out_proj.weight"].double().T
            assert torch.allclose(got.double(), expected, atol=1e-5)


def test_mixer_has_vims_state_dict():
    D, E, R, S, K = 1152, 2304, 72, 16, 4
    shapes = {
        k: tuple(v.shape) for k, v in create_model("DiM-XL/2", device="meta").blocks[0].mixer.state_dict().items()
    }
    expected = {"in_proj.weight": (2 * E, D), "out_proj.weight": (D, E)}
    for b in ("", "_b"):
        expected |= {
            f"conv1d{b}.weight": (E, 1, K), f"conv1d{b}.bias": (E,), f"x_proj{b}.weight": (R + 2 * S, E),
            f"dt_proj{b}.weight": (E, R), f"dt_proj{b}.bias": (E,), f"A{b}_log": (E, S), f"D{b}": (E,),
        }  # fmt: skip
    assert shapes == expected


def test_swapping_the_directions_weights_flips_the_output():
    mixer = randomised("DiM-N/4").blocks[0].mixer
    x = torch.randn(2, 9, 64)
    with torch.no_grad():
        expected = mixer(x).flip(1)
        w = mixer.state_dict()
        pairs = [
            (f"{name}.{kind}", f"{name}_b.{kind}") for name in ("conv1d", "dt_proj") for kind in ("weight", "bias")
        ]
        pairs += [("x_proj.weight", "x_proj_b.weight"), ("A_log", "A_b_log"), ("D", "D_b")]
        mixer.load_state_dict(w | {a: w[b].clone() for a, b in pairs} | {b: w[a].clone() for a, b in pairs})
        assert torch.allclose(mixer(x.flip(1)), expected, atol=1e-5)


def test_each_direction_sees_only_its_own_side():
    mixer = randomised("DiM-N/4").blocks[0].mixer
    x, z = torch.randn(1, 12, 128), torch.randn(1, 12, 128)
    changed = x.clone()
    changed[:, 6] += 1.0

    def scanned(x, reverse):
        *operands, bias = scan_operands(x, *mixer.weights_of(reverse), reverse)
        return selective_scan(*operands, z, bias, delta_softplus=True, reverse=reverse)

    with torch.no_grad():
        forward = (scanned(x, False) - scanned(changed, False)).abs().sum(-1)[0]
        backward = (scanned(x, True) - scanned(changed, True)).abs().sum(-1)[0]
    assert (forward[:6] == 0).all()
    assert (forward[6:] > 0).all()
    assert (backward[7:] == 0).all()
    assert (backward[:7] > 0).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_convolution_pads_the_side_that_time_comes_from(reverse):
    x = torch.zeros(1, 6, 1)
    x[0, 2] = 1.0
    weight = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])  # the last tap is the token itself
    out = causal_conv1d(x, weight, None, reverse)[0, :, 0].tolist()
    assert out == ([2.0, 3.0, 4.0, 0.0, 0.0, 0.0] if reverse else [0.0, 0.0, 4.0, 3.0, 2.0, 1.0])


def test_without_mlp_a_block_is_the_mixer_under_three_chunks():
    model = create_model("DiM-XL/4", mlp=False, device="meta")
    assert model.blocks[0].adaLN_modulation[1].out_features == 3 * 1152
    assert model.blocks[0].mlp is None
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 468.8  # hand count of that reading


# --------------------------------------------------------------------------------------------- initialisation, training


def test_a_fresh_model_gives_zeros_and_every_block_is_the_identity():
    for name in ("DiT-N/4", "DiM-N/4"):
        model = create_model(name, 64).eval()
        x, t, y = inputs(model)
        with torch.no_grad():
            assert not model(x, t, y).any()
            tokens, c = torch.randn(3, 4, 64), torch.randn(3, 64)
            assert torch.equal(model.blocks[0](tokens, c), tokens)


def test_initialisation_is_dits_and_spares_the_state_space():
    model = create_model("DiM-T/4", 64)
    mixer = model.blocks[0].mixer
    assert torch.allclose(mixer.A_log.exp(), torch.arange(1, 17.0).expand(256, 16))
    assert (mixer.D == 1).all()
    assert (mixer.D_b == 1).all()
    dt = F.softplus(mixer.dt_proj_b.bias)
    assert dt.min() >= 1e-3 * 0.99
    assert dt.max() <= 1e-1 * 1.01
    assert dt.log().std() > 0.5  # spread over the two decades, not one value
    assert mixer.dt_proj.weight.abs().max() <= mixer.dt_proj.in_features**-0.5
    in_proj = mixer.in_proj.weight
    assert abs(in_proj.std() / (2 / (128 + 512)) ** 0.5 - 1) < 0.05  # xavier
    patches = model.x_embedder.proj.weight
    assert abs(patches.std() / (2 / (128 + 64)) ** 0.5 - 1) < 0.1
    assert abs(model.y_embedder.embedding_table.weight.std() / 0.02 - 1) < 0.05


@pytest.mark.parametrize("name", ["DiT-N/4", "DiM-N/4"])
def test_gradients_reach_every_parameter(name):
    model = randomised(name)
    x, t, y = inputs(model)
    model(x, t, y).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("name", ["DiT-N/4", "DiM-N/4"])
def test_activation_checkpointing_changes_no_gradient(name):
    model = randomised(name).train()
    x, t, y = inputs(model)
    keep = torch.zeros(3, dtype=torch.bool)
    grads = []
    for model.activation_checkpointing in (False, True):
        model.zero_grad()
        model(x, t, y, keep).square().mean().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("backend", here)
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("name", "shape"), [("DiM-N/2", (4, 8, 8)), ("DiM-N/4-video-both", (3, 4, 8, 8))])
def test_recomputed_operands_give_the_same_gradients_to_the_last_bit(backend, half, name, shape):
    """The bar is mamba_ssm's own: its `checkpoint_lvl` changes what is kept, not what is computed."""
    model = randomised(name, 64, depth=1, **({"frames": 3} if len(shape) == 4 else {})).train()
    model.set_implementation(backend)

    def gradients():
        x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        keep = torch.tensor([False, False])
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = model(x, torch.tensor([3.0, 700.0]), torch.tensor([1, 2]), keep)
        return [out, *torch.autograd.grad(out.float().square().mean(), [x, *model.parameters()])]

    recomputed = gradients()
    model.keep_operands()
    kept = gradients()
    assert all(torch.equal(a, b) for a, b in zip(recomputed, kept, strict=True))
    assert all(g.abs().max() > 0 for g in kept)


@pytest.mark.slow
def test_a_compiler_takes_the_mixer_in_training():
    mixer = randomised("DiM-N/4").blocks[0].mixer
    x = torch.randn(2, 12, 64)
    compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")
    expected, found = (torch.autograd.grad(f(x).sum(), list(mixer.parameters())) for f in (mixer, compiled))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("name", ["DiT-N/4", "DiM-N/4", "DiG-N/4"])
def test_weights_stored_in_bfloat16_give_the_outputs_of_autocast_to_the_last_bit(name):
    model = randomised(name)
    x, t, y = inputs(model)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(x, t, y)
        model.store_weights(torch.bfloat16)
        assert torch.equal(model(x, t, y), expected)
    halved = [p for p in model.parameters() if p.dtype == torch.bfloat16]
    assert sum(p.numel() for p in halved) > 0.7 * sum(p.numel() for p in model.parameters())
    assert all(p.dtype == torch.float32 for key, p in model.named_parameters() if "A_" in key or key.endswith("bias"))


def test_a_family_that_recomputes_nothing_keeps_nothing():
    with pytest.raises(ValueError, match="DiT recomputes no operands"):
        create_model("DiT-N/2", 64, depth=1).keep_operands()


def test_labels_drop_in_training_alone_and_at_their_rate():
    embedder = create_model("DiT-N/4", 64).y_embedder
    y = torch.zeros(4000, dtype=torch.long)
    null = embedder.embedding_table.weight[1000]
    rate = (embedder(y) == null).all(1).float().mean()
    assert 0.08 < rate < 0.12
    assert not (embedder.eval()(y) == null).all(1).any()
    drop = torch.arange(4000) % 2 == 0
    assert torch.equal((embedder(y, drop) == null).all(1), drop)


# -------------------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("form", ["bare", "ema", "training", "safetensors"])
def test_official_forms_of_checkpoint_load(tmp_path, form):
    model, other = randomised("DiT-N/4"), create_model("DiT-N/4", 64)
    state = model.state_dict()
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pt")
    if form == "safetensors":
        save_file(state, path)
    else:
        noise = {k: torch.zeros_like(v) for k, v in state.items()}
        whole = {"model": noise, "ema": state, "opt": {"step": 1}, "args": argparse.Namespace(model="DiT-N/4")}
        torch.save({"bare": state, "ema": {"ema": state}, "training": whole}[form], path)
    load_weights(other, path)
    assert all(torch.equal(a, b) for a, b in zip(state.values(), other.state_dict().values(), strict=True))


def test_weights_of_another_model_are_refused_by_name():
    model = create_model("DiT-N/4", 64)
    with pytest.raises(ValueError, match=r"missing: blocks.0.attn.qkv.weight.*unexpected: blocks.0.mixer"):
        load_weights(model, create_model("DiM-N/4", 64, depth=3).state_dict())
    with pytest.raises(ValueError, match=r"pos_embed \(1, 16, 64\) for \(1, 4, 64\)"):
        load_weights(model, create_model("DiT-N/4", 128).state_dict())


def test_a_file_that_holds_no_weights_is_refused_in_one_line(tmp_path):
    model = create_model("DiT-N/4", 64)
    broken, absent, number = tmp_path / "broken.pt", tmp_path / "absent.pt", tmp_path / "number.pt"
    broken.write_bytes(b"not a checkpoint")
    torch.save(3, number)
    for path in (broken, absent, number):
        with pytest.raises(ValueError, match="cannot read weights") as caught:
            load_weights(model, path)
        assert "\n" not in str(caught.value)


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return print, ("sprung",)

    torch.save({"ema": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match="cannot read weights"):
        load_weights(create_model("DiT-N/4", 64), tmp_path / "trap.pt")
