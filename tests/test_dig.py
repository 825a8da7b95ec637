"""DiG: its recurrence is gated linear attention's, its network that of its state dict, written out here."""

import sys
import types

import pytest
import torch
import torch.nn.functional as F

from harness.cost import analytic
from models import counterpart, create_model, spec
from models.families.dig import recurrence
from models.families.dig.recurrence import gated_linear_attention, recurrent


def operands(B=2, L=37, H=3, K=4, V=5, strength=1.0, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    q, k, forget = (torch.randn(B, L, H, K, generator=g, dtype=dtype) for _ in range(3))
    v = torch.randn(B, L, H, V, generator=g, dtype=dtype)
    return [t.requires_grad_() for t in (q, k, v, (strength * F.logsigmoid(forget)).detach())]


def weighted(q, k, v, log_decay):
    """The same as attention over all pairs: token j enters token i by q_i · (the decays between them) k_j."""
    B = log_decay.cumsum(1)
    out = torch.zeros_like(v)
    for i in range(q.shape[1]):
        for j in range(i + 1):
            score = (q[:, i] * k[:, j] * (B[:, i] - B[:, j]).exp()).sum(-1, keepdim=True)
            out[:, i] += score * v[:, j]
    return out


@pytest.mark.parametrize("length", [1, 15, 16, 17, 48])
def test_the_recurrence_is_attention_weighted_by_the_decays_between_two_tokens(length):
    given = [t.detach() for t in operands(L=length)]
    expected = weighted(*given)
    for implementation in ("recurrent", "chunked"):
        assert torch.allclose(gated_linear_attention(*given, implementation), expected, atol=1e-12)


@pytest.mark.parametrize("length", [16, 37])
@pytest.mark.parametrize("strength", [1 / 16, 1.0, 200.0])
def test_chunks_give_the_recurrences_values_and_gradients(length, strength):
    """Decays of 200 a token would overflow, were they ever divided by."""
    both = []
    for implementation in ("recurrent", "chunked"):
        given = operands(L=length, strength=strength)
        out = gated_linear_attention(*given, implementation)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
        both.append([out, *torch.autograd.grad(out, given, weights)])
    assert all(torch.isfinite(t).all() for t in both[1])
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(*both, strict=True))


def test_its_gradients_are_those_of_finite_differences():
    assert torch.autograd.gradcheck(gated_linear_attention, operands(B=1, L=18, H=1, K=2, V=1))


def test_the_operator_is_a_sound_one_of_torchs_dispatcher():
    torch.library.opcheck(torch.ops.dig.gated_linear_attention, operands(B=1, L=5))


def test_sixteen_bits_lose_nothing_in_the_state():
    given = [t.detach().bfloat16() for t in operands(L=64, strength=1 / 16)]
    out = gated_linear_attention(*given, "chunked")
    exact = recurrent(*(t.double() for t in given))
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, exact.bfloat16())


def test_an_implementation_that_cannot_run_is_refused_with_the_choices():
    given = operands(L=2)
    with pytest.raises(ValueError, match="unknown gla backend 'flash'; choose from auto, chunked, recurrent, fla"):
        gated_linear_attention(*given, "flash")
    with pytest.raises(ValueError, match=r"gla backend 'fla' cannot run here: its kernels run on a GPU; choose from"):
        gated_linear_attention(*given, "fla")
    with pytest.raises(ValueError, match="unknown gla backend 'flash'"):
        create_model("DiG-N/4", 64).set_implementation("flash")


def test_it_takes_flas_kernel_on_a_gpu_where_that_is_installed(monkeypatch):
    monkeypatch.setattr(recurrence, "fla_is_installed", lambda: True)
    assert [recurrence.resolve("auto", device) for device in ("cuda", "cpu")] == ["fla", "chunked"]
    monkeypatch.setattr(recurrence, "fla_is_installed", lambda: False)
    assert recurrence.resolve("auto", "cuda") == "chunked"
    with pytest.raises(ValueError, match="pip install flash-linear-attention"):
        recurrence.resolve("fla", "cuda")


def test_flas_kernel_is_called_with_its_own_layout_and_a_scale_of_one(monkeypatch):
    """A module with fla's public function, which takes (B, L, H, K) and scales q by what it is given."""
    kernel = types.ModuleType("fla.ops.gla")
    kernel.chunk_gla = lambda q, k, v, g, scale=None: (recurrent(scale * q, k, v, g), None)
    for name in ("fla", "fla.ops", "fla.ops.gla"):
        monkeypatch.setitem(sys.modules, name, kernel)
    monkeypatch.setattr(recurrence, "resolve", lambda name, device: name)
    given = operands()
    assert torch.allclose(gated_linear_attention(*given, "fla"), gated_linear_attention(*given, "chunked"))


# ---------------------------------------------------------------------------------------------------------- the network


def randomised(name="DiG-N/4", resolution=96, **overrides):
    torch.manual_seed(0)
    model = create_model(name, resolution, **overrides).eval().double()
    model.t_embedder.float()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.2)
    return model


def plain_block(w, x, c, heads, edge):
    """DiG's block from its state dict, in the order of github.com/hustvl/DiG."""

    def norm(v):
        return (v - v.mean(-1, keepdim=True)) / (v.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()

    def swish(v):
        return v * v.sigmoid()

    B, L, D = x.shape
    m = [v[:, None] for v in (swish(c) @ w["adaLN_modulation.1.weight"].T + w["adaLN_modulation.1.bias"]).chunk(6, 1)]
    h = norm(x) * (1 + m[1]) + m[0]
    q, k, v, g = (h @ w[f"attn.{name}_proj.weight"].T for name in "qkvg")
    forget = h @ w["attn.gk_proj.0.weight"].T @ w["attn.gk_proj.1.weight"].T + w["attn.gk_proj.1.bias"]
    q, k, v, g, forget = (t.reshape(B, L, heads, -1) for t in (q, k, v, g, forget))
    o = weighted(q * (D // 2 // heads) ** -0.5, k, v, forget.sigmoid().log() / 16)
    o = o / (o.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w["attn.g_norm_swish_gate.weight"] * swish(g)
    x = x + m[2] * (o.reshape(B, L, D) @ w["attn.o_proj.weight"].T)
    a, b = ((norm(x) * (1 + m[4]) + m[3]) @ w["mlp.gate_proj.weight"].T).chunk(2, -1)
    x = x + m[5] * ((swish(a) * b) @ w["mlp.down_proj.weight"].T)
    padded = F.pad(x.reshape(B, edge, edge, D), (0, 0, 1, 1, 1, 1))
    out = w["dw_conv.bias"].expand(B, edge, edge, D).clone()
    for row in range(3):
        for column in range(3):
            out += padded[:, row : row + edge, column : column + edge] * w["dw_conv.weight"][:, 0, row, column]
    return out.reshape(B, L, D)


def test_it_computes_the_function_of_its_state_dict_in_four_orders():
    model = randomised(depth=6)
    edge, w = model.grid, model.state_dict()
    x, c = torch.randn(2, edge * edge, 64).double(), torch.randn(2, 64).double()
    expected = x
    for i in range(6):
        own = {key.removeprefix(f"blocks.{i}."): v for key, v in w.items() if key.startswith(f"blocks.{i}.")}
        expected = plain_block(own, expected, c, 2, edge).flip(1)
        if i % 2:
            expected = expected.reshape(2, edge, edge, 64).transpose(1, 2).reshape(2, edge * edge, 64)
    with torch.no_grad():
        got = model.through(model.blocks, x, c)
    # after six blocks the grid is transposed (three times) and in its first direction; DiG's depths end as they began
    assert torch.allclose(got, expected.reshape(2, edge, edge, 64).transpose(1, 2).reshape(got.shape), atol=1e-9)


def test_it_computes_what_the_repositorys_own_module_computes():
    """Values of github.com/hustvl/DiG at e3ac0ba in float64, its kernel replaced by the recurrence, on these weights.

    Timesteps are embedded in float32, here and there.
    """
    model = create_model("DiG-N/4", 128, depth=4).eval().double()
    model.t_embedder.float()
    with torch.no_grad():
        for place, (_, p) in enumerate(sorted(model.named_parameters())):
            p.copy_(0.3 * torch.cos(1.3 * torch.arange(p.numel(), dtype=torch.float64) + place).reshape(p.shape))
    x = torch.sin(0.7 * torch.arange(2048, dtype=torch.float64)).reshape(2, 4, 16, 16).requires_grad_()
    out = model(x, torch.tensor([17, 803]), torch.tensor([3, 1000]))
    out.square().sum().backward()
    some = [0.2332893402, -7.3367560617, 3.7012725856, -3.1573319546, -0.6250129823, -1.9116045757, 6.1567529286]
    assert out.flatten()[:: out.numel() // 6].tolist() == pytest.approx(some, rel=1e-4)
    assert out.norm().item() == pytest.approx(240.4613381642, rel=1e-5)
    some = [2101.7277969979, -4626.1302560877, 566.1489430168, -468.9044361586]
    assert x.grad.flatten()[:: x.numel() // 4].tolist() == pytest.approx(some, rel=1e-4)
    assert x.grad.norm().item() == pytest.approx(229759.1295025859, rel=1e-5)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_every_token_comes_out_where_it_went_in(depth):
    model = create_model("DiG-N/4", 128, depth=depth).eval()  # a new block is the identity
    x, c = torch.randn(2, 16, 64), torch.randn(2, 64)
    with torch.no_grad():
        assert torch.equal(model.through(model.blocks, x, c), x)


def test_its_state_dict_has_the_repositorys_names():
    block = "adaLN_modulation.1.weight adaLN_modulation.1.bias attn.q_proj.weight attn.k_proj.weight "
    block += "attn.v_proj.weight attn.g_proj.weight attn.gk_proj.0.weight attn.gk_proj.1.weight attn.gk_proj.1.bias "
    block += "attn.o_proj.weight "
    block += "attn.g_norm_swish_gate.weight mlp.gate_proj.weight mlp.down_proj.weight dw_conv.weight dw_conv.bias"
    state = create_model("DiG-XL/2", device="meta").state_dict()
    shared = [key for key in create_model("DiT-XL/2", device="meta").state_dict() if not key.startswith("blocks.")]
    assert sorted(state) == sorted([*shared, *(f"blocks.{i}.{name}" for i in range(28) for name in block.split())])
    shapes = {name: tuple(state[f"blocks.0.{name}"].shape) for name in block.split()}
    assert shapes["attn.gk_proj.0.weight"] == (16, 1152)
    assert shapes["attn.gk_proj.1.weight"] == (576, 16)
    assert shapes["attn.q_proj.weight"] == (576, 1152)
    assert shapes["attn.g_norm_swish_gate.weight"] == (64,)  # 18 heads
    assert shapes["mlp.gate_proj.weight"] == (6144, 1152)


@pytest.mark.parametrize(
    ("size", "millions", "gmacs", "inner"),
    [("S", 32.98, 5.60, 1024), ("B", 130.55, 22.10, 2048), ("L", 464.76, 79.90, 2816), ("XL", 675.66, 115.46, 3072)],
)
def test_parameters_and_costs_are_those_of_hand_arithmetic(size, millions, gmacs, inner):
    s = spec(f"DiG-{size}/2")
    D, N, L = s.width, s.depth, 256
    weights = 4 * D * D + 24 * D + 3 * D * inner + 6 * D * D  # of the linear layers, adaLN's the last
    block = weights + D // 2 + 64 + 6 * D + 10 * D  # biases of the gate and adaLN, norm of a head of 64, convolution
    around = 16 * D + D + 256 * D + D + D * D + D + 1001 * D + 2 * D * D + 2 * D + 32 * D + 32
    assert analytic(s, 256).params == N * block + around
    assert round(analytic(s, 256).params / 1e6, 2) == millions
    token = weights - 6 * D * D + 3 * D // 2 * 64 + 9 * D  # three for each value of a state of (D/2, 64)
    by_hand = N * (L * token + 6 * D * D) + L * 48 * D + 256 * D + 3 * D * D
    assert analytic(s, 256).macs == by_hand
    assert round(by_hand / 1e9, 2) == gmacs


def test_a_new_one_is_initialised_as_the_repositorys():
    model = create_model("DiG-T/4", 64)
    for name, linear in (("o_proj", model.blocks[0].attn.o_proj), ("gate_proj", model.blocks[0].mlp.gate_proj)):
        gain = 2**-2.5 if name == "o_proj" else 1.0
        expected = gain * (2 / sum(linear.weight.shape)) ** 0.5
        assert abs(linear.weight.std() / expected - 1) < 0.03
    centre = model.blocks[0].dw_conv.weight[:, 0]
    assert torch.equal(centre, F.pad(torch.ones(128, 1, 1), (1, 1, 1, 1)))
    assert not model.blocks[0].dw_conv.bias.any()


def test_it_stands_beside_the_dit_of_its_size_and_takes_images_alone():
    assert counterpart(spec("DiG-XL/2")) == spec("DiT-XL/2")  # which has 16 heads, not 18
    with pytest.raises(ValueError, match=r"DiG-XL/2 is a model of images and has no frames$"):
        spec("DiG-XL/2", frames=8)
