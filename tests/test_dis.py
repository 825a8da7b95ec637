"""DiS: the function of its state dict, written out here; the repository's names, shapes and arithmetic."""

import dataclasses
import itertools

import pytest
import torch
import torch.nn.functional as F

from harness.cost import analytic, equal_macs_depth
from harness.cost.extension import extension_of
from models import counterpart, create_model, spec


def randomised(depth, resolution=64):
    torch.manual_seed(0)
    model = create_model("DiS-N/4", resolution, depth=depth).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


@pytest.mark.parametrize("depth", [3, 6])
def test_it_computes_the_function_of_its_state_dict(depth):
    model = randomised(depth)
    w = model.state_dict()
    x, t, y = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.tensor([5, 1000])

    def linear(name, v):
        return v @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def rms(name, v):
        return v / (v.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"]

    angles = t[:, None] * 10000 ** (-torch.arange(32) / 32)
    time = linear("time_embed.2", F.silu(linear("time_embed.0", torch.cat([angles.cos(), angles.sin()], 1))))
    label = w["label_emb.embedding_table.weight"][y]
    patches = x.reshape(2, 4, 2, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).reshape(2, 4, 64)
    patches = patches @ w["patch_embed.proj.weight"].flatten(1).T + w["patch_embed.proj.bias"]
    hidden = torch.cat([label[:, None], time[:, None], patches], 1) + w["pos_embed"]
    pairs, residual, skips = depth // 2, torch.zeros_like(hidden), []
    names = [f"in_blocks.{i}" for i in range(pairs)] + ["mid_block"] * (depth % 2)
    with torch.no_grad():
        for name in names + [f"out_blocks.{i}" for i in range(pairs)]:
            if name.startswith("out"):
                hidden = linear(f"{name}.skip_linear", torch.cat([hidden, skips.pop()], -1))
            residual = residual + hidden
            hidden = model.get_submodule(f"{name}.mixer")(rms(f"{name}.norm", residual))
            if name.startswith("in"):
                skips.append(hidden)
        out = rms("norm_f", residual + hidden)[:, 2:]
        shift, scale = linear("final_layer.adaLN_modulation.1", F.silu(time + label))[:, None].chunk(2, -1)
        out = linear("final_layer.linear", F.layer_norm(out, (64,), eps=1e-6) * (1 + scale) + shift)
        expected = torch.einsum("nhwpqc->nchpwq", out.reshape(2, 2, 2, 4, 4, 8)).reshape(2, 8, 8, 8)
        assert torch.allclose(model(x, t, y), expected, atol=1e-5 * float(expected.abs().max()))


def test_it_computes_what_the_repositorys_own_module_computes():
    """Values of github.com/feizc/DiS at 3da562e in float64, its kernels replaced by their reference, on these weights.

    Timesteps are turned to features in float32 here.
    """
    model = create_model("DiS-N/4", 128, depth=5).eval().double()
    with torch.no_grad():
        for place, (_, p) in enumerate(sorted(model.named_parameters())):
            p.copy_(0.3 * torch.cos(1.3 * torch.arange(p.numel(), dtype=torch.float64) + place).reshape(p.shape))
    x = torch.sin(0.7 * torch.arange(2048, dtype=torch.float64)).reshape(2, 4, 16, 16).requires_grad_()
    out = model(x, torch.tensor([17, 803]), torch.tensor([3, 1000]))
    out.square().sum().backward()
    some = [10.6994705424, 21.8752322167, -12.0027599043, -8.9336408687, 19.8306717377, 15.3906712417, -10.2777378300]
    assert out.flatten()[:: out.numel() // 6].tolist() == pytest.approx(some, rel=1e-4)
    assert out.norm().item() == pytest.approx(676.5241081351, rel=1e-5)
    some = [6963.3295163886, -3126.8720117479, 6223.3750952601, -927.8568307453]
    assert x.grad.flatten()[:: x.numel() // 4].tolist() == pytest.approx(some, rel=1e-4)
    assert x.grad.norm().item() == pytest.approx(194095.9301132754, rel=1e-5)


def test_its_mixer_adds_the_two_directions_as_vims_does():
    assert spec("DiS-N/4").merge == "sum"
    assert spec("DiS-N/4").name == "DiS-N/4"
    assert spec("DiS-N/4", merge="mean").name == "DiS-N/4(merge=mean)"
    mixer, averaging = (create_model("DiS-N/4", 64, merge=merge).in_blocks[0].mixer for merge in ("sum", "mean"))
    averaging.load_state_dict(mixer.state_dict())
    x = torch.randn(2, 5, 64)
    with torch.no_grad():
        assert torch.allclose(mixer(x), 2 * averaging(x), atol=1e-6)


def test_its_state_dict_has_the_repositorys_names_and_shapes():
    mixer = {"in_proj.weight", "out_proj.weight"}
    for b in ("", "_b"):
        mixer |= {f"A{b}_log", f"D{b}", f"conv1d{b}.weight", f"conv1d{b}.bias", f"x_proj{b}.weight"}
        mixer |= {f"dt_proj{b}.weight", f"dt_proj{b}.bias"}
    blocks = [f"in_blocks.{i}" for i in range(24)] + ["mid_block"] + [f"out_blocks.{i}" for i in range(24)]
    expected = {f"{block}.mixer.{name}" for block in blocks for name in mixer} | {
        f"{block}.norm.weight" for block in blocks
    }
    skips = [f"out_blocks.{i}.skip_linear" for i in range(24)]
    linears = ["patch_embed.proj", "time_embed.0", "time_embed.2", "final_layer.linear", *skips]
    expected |= {
        f"{name}.{kind}" for name in [*linears, "final_layer.adaLN_modulation.1"] for kind in ("weight", "bias")
    }
    expected |= {"pos_embed", "label_emb.embedding_table.weight", "norm_f.weight"}
    state = create_model("DiS-H/2", device="meta").state_dict()
    assert set(state) == expected
    assert state["pos_embed"].shape == (1, 258, 1536)
    assert state["time_embed.0.weight"].shape == (6144, 1536)
    assert state["out_blocks.0.skip_linear.weight"].shape == (1536, 3072)


@pytest.mark.parametrize(
    ("size", "millions", "gmacs"),
    [("S", 29.13, 7.47), ("B", 121.16, 30.38), ("M", 231.41, 59.67), ("L", 407.25, 104.35), ("H", 906.97, 230.90)],
)
def test_parameters_and_costs_are_those_of_hand_arithmetic(size, millions, gmacs):
    s = spec(f"DiS-{size}/2")
    D, N, L, S, K = s.width, s.depth, 256, 16, 4
    T, E, R, pairs = L + 2, 2 * D, -(-D // 16), N // 2
    mixer = 6 * D * D + 2 * E * (2 * R + 2 * S + K)
    assert analytic(s, 256).macs == (
        N * T * (mixer + 8 * E * S) + pairs * T * 2 * D * D + L * 16 * D + 8 * D * D + 2 * D * D + T * D * 32
    )
    block = mixer + 2 * E * (S + 3) + D  # A, D, two biases; the norm
    around = 17 * D + 8 * D * D + 5 * D + 1001 * D + T * D + D + 2 * D * D + 2 * D + 32 * D + 32
    assert analytic(s, 256).params == N * block + pairs * (2 * D * D + D) + around
    assert round(analytic(s, 256).params / 1e6, 2) == millions
    assert round(analytic(s, 256).gmacs, 2) == gmacs


def test_a_new_one_is_initialised_as_the_repositorys():
    torch.manual_seed(0)
    model = create_model("DiS-T/4", 64)
    mixer = model.in_blocks[0].mixer
    assert not model.pos_embed.any()
    assert abs(model.label_emb.embedding_table.weight.std() / 0.02 - 1) < 0.05
    assert abs(mixer.out_proj.weight.std() * (3 * 256 * 12) ** 0.5 - 1) < 0.05  # uniform, of 12 residual blocks
    assert torch.allclose(mixer.A_log.exp(), torch.arange(1, 17.0).expand(256, 16))
    assert F.softplus(mixer.dt_proj.bias).log().std() > 0.5
    assert not mixer.dt_proj_b.bias.any()
    linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module.bias is not None]
    assert sum(bool(linear.bias.any()) for linear in linears) == 13  # the forward step sizes of each block


def test_it_is_held_against_the_dit_of_its_size_where_there_is_one():
    rivals = {size: counterpart(spec(f"DiS-{size}/2")) for size in ("S", "B", "M", "L", "H")}
    assert rivals == {
        "S": spec("DiT-S/2"), "B": spec("DiT-B/2"), "M": None, "L": spec("DiT-L/2"), "H": spec("DiT-XL/2")
    }  # fmt: skip


def test_two_further_blocks_cost_the_same_and_whole_depths_come_near_any_cost():
    macs = [analytic(spec("DiS-B/2", depth=n), 256).macs for n in range(1, 8)]
    assert len({b - a for a, b in zip(macs, macs[2:], strict=False)}) == 1
    assert len({b - a for a, b in itertools.pairwise(macs)}) == 2  # every second one has a skip
    assert extension_of(spec("DiS-H/2")).built == (3, 5)
    one, rival = spec("DiS-B/2"), spec("DiT-B/2")
    target = analytic(rival, 512).macs
    gaps = {n: abs(analytic(dataclasses.replace(one, depth=n), 512).macs - target) for n in range(1, 60)}
    assert equal_macs_depth(one, rival, 512) == min(gaps, key=gaps.__getitem__)
