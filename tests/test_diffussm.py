"""DiffuSSM: its state space is a recurrence and a convolution, its block and its size are the paper's."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from harness.cost import analytic, count
from harness.cost.inputs import inputs_of
from harness.cost.operations import differences
from models import counterpart, create_model, spec
from models.families.diffussm.block import S4D
from models.families.diffussm.state_space import STRIDE, diagonal_state_space, kernel


def operands(B=2, L=9, E=3, P=4, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    u = torch.randn(B, L, E, generator=g, dtype=dtype)
    real, imaginary = -torch.rand(E, P, generator=g, dtype=dtype), 3 * torch.randn(E, P, generator=g, dtype=dtype)
    c = torch.view_as_complex(torch.randn(E, P, 2, generator=g, dtype=dtype))
    return [t.requires_grad_() for t in (u, torch.complex(real, imaginary), c)]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 2, STRIDE - 1, STRIDE, STRIDE + 1, 150])
def test_the_fft_gives_the_recurrences_values_and_gradients(length, reverse):
    both = []
    for implementation in ("recurrent", "fft"):
        given = operands(L=length)
        out = diagonal_state_space(*given, reverse, implementation)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
        both.append([out, *torch.autograd.grad(out, given, weights)])
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-11) for a, b in zip(*both, strict=True))


def test_its_gradients_are_those_of_finite_differences():
    assert torch.autograd.gradcheck(diagonal_state_space, operands(B=1, L=5, E=2, P=2))


def test_the_operator_is_a_sound_one_of_torchs_dispatcher():
    torch.library.opcheck(torch.ops.diffussm.diagonal_state_space, (*operands(), True))


def test_its_kernel_is_the_vandermonde_product():
    _, w, c = (t.detach() for t in operands())
    expected = 2 * (c.unsqueeze(-1) * (w.unsqueeze(-1) * torch.arange(150)).exp()).sum(1).real
    assert torch.allclose(kernel(w, c, 150), expected, atol=1e-12)


def test_reversed_it_is_the_forward_one_over_the_reversed_tokens():
    u, w, c = (t.detach() for t in operands(L=20))
    assert torch.allclose(diagonal_state_space(u, w, c, True), diagonal_state_space(u.flip(1), w, c).flip(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_single_precision_is_enough_for_a_thousand_tokens(dtype):
    torch.manual_seed(0)
    layer = S4D(8, 64)
    u = torch.randn(1, 1024, 8)
    with torch.no_grad():
        exact = layer.double()(u.to(dtype).double())
        out = layer.float()(u.to(dtype))
    assert (out - exact).abs().max() < (1e-4 if dtype == torch.float32 else 2e-2) * exact.abs().max()


def test_s4d_is_its_continuous_system_with_inputs_held_for_a_step():
    """h' = A h + B u by many small steps of Euler, y = 2 Re C h + D u: the pair's other half is its conjugate."""
    torch.manual_seed(0)
    layer = S4D(2, 4).double()
    with torch.no_grad():
        for p in (layer.B, layer.D, layer.A_imag):
            p.normal_()
        layer.log_dt.fill_(math.log(0.3))
        u = torch.randn(1, 3, 2).double()
        A = torch.complex(-layer.A_log.exp(), layer.A_imag)
        B, C = torch.view_as_complex(layer.B), torch.view_as_complex(layer.C)
        h, y, n = torch.zeros_like(A), [], 10_000
        for t in range(3):
            for _ in range(n):
                h = h + 0.3 / n * (A * h + B * u[0, t, :, None])
            y.append(2 * (C * h).sum(-1).real + layer.D * u[0, t])
        assert torch.allclose(layer(u)[0], torch.stack(y), atol=1e-3)


def test_an_unknown_implementation_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="unknown s4d backend 'naive'; choose from fft, recurrent"):
        diagonal_state_space(*operands(), implementation="naive")
    with pytest.raises(ValueError, match="unknown s4d backend 'naive'"):
        create_model("DiffuSSM-N/1", 64).set_implementation("naive")


# ------------------------------------------------------------------------------------------------------------ the block


@pytest.mark.parametrize("group", [2, 4])
def test_its_block_computes_the_papers_equations(group):
    torch.manual_seed(0)
    block = create_model("DiffuSSM-N/1", 64, group=group, depth=1).blocks[0].double()
    with torch.no_grad():
        for p in block.parameters():
            p.add_(0.1 * torch.randn_like(p))
    M, D, J = group, 64, 5
    x, c = torch.randn(1, J, D).double(), torch.randn(1, D).double()

    def sigma(v):
        return F.gelu(v, approximate="tanh")

    def linear(name, v):
        return v @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    w = block.state_dict()
    with torch.no_grad():
        shift, scale = linear("adaLN_modulation.1", F.silu(c))[0].chunk(2)
        rows = F.layer_norm(x[0], (D,), eps=1e-6) * (1 + scale) + shift
        widened = [sigma(linear("up", sigma(linear("w0", row)))) for row in rows]  # the matrices W↑ one below the other
        U = torch.stack([widened[position // M][D * (position % M) :][:D] for position in range(J * M)])
        Y = torch.cat([block.ssm[0](U[None])[0], block.ssm[1](U[None])[0]], -1)
        assert not block.ssm[0].reverse
        assert block.ssm[1].reverse
        assert Y.shape == (J * M, 2 * D)
        for j in range(J):
            back = torch.cat([sigma(linear(f"down.{m}", Y[j * M + m])) for m in range(M)])
            O_j = linear("w3", sigma(linear("w2", back)) * sigma(linear("w1", rows[j])))
            assert torch.allclose(block(x, c)[0, j], x[0, j] + O_j, atol=1e-9)


def test_a_row_of_the_stream_is_two_neighbours_of_a_line_of_the_latent():
    model = create_model("DiffuSSM-N/1", 64).eval()  # a new block is the identity
    assert model.pos_embed.shape == (1, 32, 64)
    with torch.no_grad():
        torch.nn.init.normal_(model.final_layer.linear.weight)
        x, t, y = torch.randn(1, 4, 8, 8), torch.tensor([5]), torch.tensor([3])
        changed = x.clone()
        changed[0, :, 5, 2] += 1.0
        moved = (model(x, t, y) - model(changed, t, y)).abs().sum(dim=(0, 1)) > 1e-4
    assert moved.nonzero().tolist() == [[5, 2], [5, 3]]


def test_linear_layers_cost_what_the_paper_prints():
    """13 (L/M) D² + L D² a block at M = 2, of L = 1024 positions: 7.5 L D²."""
    for ratio in (2, 4):
        s = spec("DiffuSSM-XL/1", group=ratio)
        D, L = s.width, 1024
        of_rows = [op for op in analytic(s, 256).ops if op.where.startswith("blocks") and op.kind == "linear"]
        block = sum(op.macs for op in of_rows if "adaLN" not in op.where) // 29
        assert block == 13 * (L // ratio) * D**2 + L * D**2
    cost = analytic(spec("DiffuSSM-XL/1"), 256)
    assert cost.by_kind()["recurrence"] == 29 * 2 * 1024 * 1152 * 32 * 6
    assert round(cost.gmacs, 2) == 308.80
    assert round(analytic(spec("DiffuSSM-XL/1"), 512).gmacs, 2) == 1234.97


def test_xl_has_the_papers_673_million_parameters_as_it_is_read_here_and_as_others_would_not():
    cost, D = analytic(spec("DiffuSSM-XL/1"), 256), 1152
    block = 15 * D * D + 10 * D + 2 * D * D + 2 * D + 2 * (2 + 6 * 32) * D
    around = 9 * D + 256 * D + D + D * D + D + 1001 * D + 2 * D * D + 2 * D + 16 * D + 16
    assert cost.params == 29 * block + around == 673_088_272
    readings = {
        "a gate as well": 29 * (D * D + D), "six chunks": 29 * 4 * (D * D + D), "B fixed to ones": -29 * 2 * 64 * D,
        "one state space for both directions": -29 * 194 * D, "32 states": -29 * 2 * 96 * D,
    }  # fmt: skip
    millions = {reading: round((cost.params + more) / 1e6) for reading, more in readings.items()}
    assert millions == {
        "a gate as well": 712, "six chunks": 827, "B fixed to ones": 669, "one state space for both directions": 667,
        "32 states": 667,
    }  # fmt: skip


def test_other_sizes_have_a_block_more_than_dits_and_are_held_against_those_of_patch_two():
    for size in ("S", "B", "L", "XL"):
        one = spec(f"DiffuSSM-{size}/1")
        assert counterpart(one) == spec(f"DiT-{size}/2")
        assert one.depth == counterpart(one).depth + 1
    assert counterpart(spec("DiffuSSM-XL/2")) == spec("DiT-XL/2")


@pytest.mark.parametrize("overrides", [{"group": 4}, {"group": 1}, {"state": 16}, {"depth": 1}])
def test_the_counts_agree_for_other_hourglasses(overrides):
    s = spec("DiffuSSM-N/1", **overrides)
    traced = count(create_model(s, 64, device="meta").eval(), *inputs_of(s, 64, 3, "meta"))
    assert differences(analytic(s, 64, 3), traced) == []


def test_what_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"resolution 24 is not divisible by 16 \(8 .* x patch 1 x group of 2\)"):
        create_model("DiffuSSM-N/1", 24)
    with pytest.raises(ValueError, match="group 3 must divide twice the width"):
        create_model("DiffuSSM-N/1", 96, group=3)
    with pytest.raises(ValueError, match="and state 5 must be even"):
        create_model("DiffuSSM-N/1", 64, state=5)
    assert dataclasses.replace(spec("DiffuSSM-N/1"), group=4).name == "DiffuSSM-N/1(group=4)"
