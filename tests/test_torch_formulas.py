"""Torch's own counter sees the kernels of other packages: stand-ins of their functions, and the packages themselves."""

import sys
import types

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from harness.cost import torch_formulas
from models.scan import selective_scan


def counted(run):
    """The FLOPs that torch's counter gives of a call."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.fixture
def scan_package(monkeypatch):
    """mamba_ssm's interface: an autograd function around the fwd and bwd of a compiled module."""
    cuda = types.ModuleType("selective_scan_cuda")
    cuda.fwd = lambda u, delta, A, B, C, D, z, bias, softplus: (u * 2, u)
    cuda.bwd = lambda u, delta, A, B, C, D, z, bias, dout, *rest: (dout, dout)
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", cuda)

    class SelectiveScanFn(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u, delta, A, B, C):
            ctx.save_for_backward(u, delta, A, B, C)
            return sys.modules["selective_scan_cuda"].fwd(u, delta, A, B, C, None, None, None, True)[0]

        @staticmethod
        def backward(ctx, dout):
            saved = ctx.saved_tensors
            du, ddelta = sys.modules["selective_scan_cuda"].bwd(*saved, None, None, None, dout, None, None, None, True)
            return du, ddelta, None, None, None

    return cuda, SelectiveScanFn.apply


B, L, E, S, K, V, H = 2, 8, 6, 16, 4, 10, 3


def scan_operands(requires_grad=False):
    u, delta = (torch.randn(B, E, L, requires_grad=requires_grad) for _ in range(2))
    return u, delta, -torch.ones(E, S), torch.randn(B, S, L), torch.randn(B, S, L)


def test_the_counter_says_nothing_of_a_kernel_before_and_the_recurrence_after(scan_package):
    _, selective_scan_fn = scan_package
    elementwise_only = counted(lambda: selective_scan_fn(*scan_operands()))
    assert elementwise_only == 0
    assert "selective_scan_cuda.fwd" in torch_formulas.register()
    assert counted(lambda: selective_scan_fn(*scan_operands())) == 2 * 4 * B * L * E * S


def test_a_scan_counts_as_the_operator_of_this_package_does_forward_and_backward(scan_package):
    _, selective_scan_fn = scan_package
    torch_formulas.register()
    theirs = counted(lambda: selective_scan_fn(*scan_operands(requires_grad=True)).sum().backward())
    u, delta = (torch.randn(B, L, E, requires_grad=True) for _ in range(2))
    A, BC = -torch.ones(E, S), torch.randn(B, L, S)
    ours = counted(lambda: selective_scan(u, delta, A, BC, BC, delta_softplus=True).sum().backward())
    assert theirs == ours == 2 * (4 + 12) * B * L * E * S


def test_values_and_gradients_stay_as_they_are(scan_package):
    _, selective_scan_fn = scan_package
    operands = scan_operands(requires_grad=True)
    before = selective_scan_fn(*operands)
    torch_formulas.register()
    with FlopCounterMode(display=False):
        during = selective_scan_fn(*operands)
    (gradient,) = torch.autograd.grad(during.sum(), operands[:1])
    assert torch.equal(before, during)
    assert torch.equal(gradient, torch.ones_like(gradient))


def test_registering_twice_counts_once_and_names_imported_elsewhere_are_replaced(scan_package, monkeypatch):
    cuda, _ = scan_package
    user = types.ModuleType("a_users_kernels")
    user.scan = cuda.fwd
    monkeypatch.setitem(sys.modules, "a_users_kernels", user)
    torch_formulas.register()
    torch_formulas.register()
    assert user.scan is cuda.fwd
    u, delta, A, B_, C = scan_operands()
    assert counted(lambda: user.scan(u, delta, A, B_, C, None, None, None, True)) == 2 * 4 * B * L * E * S


@pytest.fixture
def linear_attention(monkeypatch):
    """flash-linear-attention's public functions, one of which calls another, as its retention does."""
    made = {}
    for name in ("fla", "fla.ops", "fla.ops.gla", "fla.ops.simple_gla", "fla.ops.retention", "fla.ops.delta_rule"):
        made[name] = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, made[name])

    def kernel(q, k, v, *args, **kwargs):
        return v * 1, None

    made["fla.ops.gla"].chunk_gla = lambda q, k, v, g, **kwargs: kernel(q, k, v, g)
    made["fla.ops.simple_gla"].chunk_simple_gla = lambda q, k, v, g=None, **kwargs: kernel(q, k, v, g)
    made["fla.ops.delta_rule"].chunk_delta_rule = lambda q, k, v, beta, **kwargs: kernel(q, k, v, beta)
    made["fla.ops.retention"].chunk_retention = lambda q, k, v, **kwargs: sys.modules[
        "fla.ops.simple_gla"
    ].chunk_simple_gla(q=q, k=k, v=v)
    torch_formulas.register()
    return {name: module for name, module in made.items() if name.count(".") == 2}


def heads(requires_grad=False):
    q, k = (torch.randn(B, L, H, K) for _ in range(2))
    return q, k, torch.randn(B, L, H, V, requires_grad=requires_grad)


@pytest.mark.parametrize(
    ("module", "name", "more", "products"),
    [
        ("gla", "chunk_gla", 1, 3), ("simple_gla", "chunk_simple_gla", 0, 3), ("retention", "chunk_retention", 0, 3),
        ("delta_rule", "chunk_delta_rule", 1, 3),
    ],
)  # fmt: skip
def test_a_recurrence_counts_its_products_a_value_of_the_state(linear_attention, module, name, more, products):
    function = getattr(linear_attention[f"fla.ops.{module}"], name)
    q, k, v = heads()
    assert counted(lambda: function(q, k, v, *[q] * more)) == 2 * products * B * L * H * K * V
    named = {"gla": {"g": q}, "delta_rule": {"beta": q}}.get(module, {})
    assert counted(lambda: function(q=q, k=k, v=v, **named)) == 2 * products * B * L * H * K * V


def test_their_backward_pass_counts_three_times_as_much(linear_attention):
    q, k, v = heads(requires_grad=True)
    forward = 2 * 3 * B * L * H * K * V
    assert counted(lambda: linear_attention["fla.ops.gla"].chunk_gla(q, k, v, q)[0].sum().backward()) == 4 * forward


def test_grouped_values_count_by_the_larger_number_of_heads(linear_attention):
    q, k, _ = heads()
    v = torch.randn(B, L, 2 * H, V)
    assert counted(lambda: linear_attention["fla.ops.gla"].chunk_gla(q, k, v, q)) == 2 * 3 * B * L * 2 * H * K * V


def test_nothing_is_added_where_nobody_counts(linear_attention):
    q, k, v = heads(requires_grad=True)
    out, _ = linear_attention["fla.ops.gla"].chunk_gla(q, k, v, q)
    assert "_Work" not in type(out.grad_fn).__name__


def test_work_is_attributed_to_the_module_that_calls_the_kernel(linear_attention):
    class Layer(nn.Module):
        def forward(self, x):
            return sys.modules["fla.ops.gla"].chunk_gla(x, x, x, x)[0]

    model = nn.Sequential(Layer())
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(B, L, H, K))
    assert sum(counter.get_flop_counts()["Sequential.0"].values()) == 2 * 3 * B * L * H * K * K


@pytest.fixture
def convolution_operators():
    """causal-conv1d's operator of version 1.5, with the same signature."""
    library = torch.library.Library("DaoAILab", "FRAGMENT")
    library.define(
        "_causal_conv1d_fwd_cpp(Tensor x, Tensor weight, Tensor? bias, Tensor? seq_idx, Tensor? initial_states, "
        "Tensor(a!) out, Tensor(b!)? final_states_out, bool silu_activation) -> ()"
    )
    library.impl("_causal_conv1d_fwd_cpp", lambda x, weight, *rest: None, "CPU")
    yield torch.ops.DaoAILab._causal_conv1d_fwd_cpp
    library._destroy()


def test_an_operator_of_theirs_gets_a_formula(convolution_operators):
    assert "DaoAILab::_causal_conv1d_fwd_cpp" in torch_formulas.register()
    x, weight = torch.randn(B, E, L), torch.randn(E, 4)
    absent = dict.fromkeys(("bias", "seq_idx", "initial_states", "final_states_out"))
    given = {"x": x, "weight": weight, "out": torch.empty_like(x), "silu_activation": True}
    assert counted(lambda: convolution_operators(**given, **absent)) == 2 * B * E * L * 4


def test_the_real_mamba_ssm_is_counted_where_it_is_installed():
    mamba_ssm = pytest.importorskip("mamba_ssm", reason="mamba-ssm needs CUDA to build", exc_type=ImportError)
    torch_formulas.register()
    layer = mamba_ssm.Mamba(64).cuda()
    flops = counted(lambda: layer(torch.randn(2, 32, 64, device="cuda")))
    D, E, R, S, K = 64, 128, 4, 16, 4
    assert flops == 2 * 2 * 32 * (3 * D * E + E * (R + 2 * S) + R * E + 4 * E * S + E * K)


def test_the_real_fla_is_counted_where_it_is_installed():
    pytest.importorskip("fla.ops.gla", reason="flash-linear-attention needs a GPU", exc_type=ImportError)
    if not torch.cuda.is_available():
        pytest.skip("its kernels need a GPU")
    torch_formulas.register()
    from fla.ops.gla import chunk_gla

    q, k, v = (torch.randn(1, 64, 2, 32, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    assert counted(lambda: chunk_gla(q, k, v, torch.zeros_like(q))) == 2 * 3 * 64 * 2 * 32 * 32
