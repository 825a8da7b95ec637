"""Closed forms of published models: what the tools themselves say of papers' own modules, and hand arithmetic."""

import pytest

from harness.cost import analytic
from harness.cost.observatory.outlines import lamamba, outline
from harness.cost.observatory.readings import RULES
from models import spec


def by_rule(rule, model, pixels, hidden=()):
    ops = outline(model, pixels).cost.ops
    return sum(RULES[rule](op) for op in ops if f"{op.kind} in {op.where}" not in hidden)


# -------------------------------------------------------------------------- what tools say of the repositories' modules


@pytest.mark.parametrize(
    ("size", "counted"), [("S", 4292497408), ("B", 17062825984), ("L", 61629272064), ("XL", 89366155264)]
)
def test_digs_closed_form_is_what_fvcore_says_of_digs_own_module(size, counted):
    """fvcore 0.1.5 on github.com/hustvl/DiG at e3ac0ba, its kernels as functions of autograd."""
    unpatchify = 256 * 32 // 2  # fvcore counts an einsum of one tensor as half of a product a value
    assert by_rule("fvcore", f"DiG-{size}/2", 256, ["linear in blocks.*.mlp"]) + unpatchify == counted


def test_lightning_dits_closed_form_is_what_torchprofile_says_of_its_own_module():
    """torchprofile 0.1.0 on github.com/hustvl/LightningDiT, its attention as two products of tensors."""
    assert by_rule("torchprofile", "LightningDiT-XL/1", 256) == 118756416000


@pytest.mark.parametrize(("size", "counted"), [("S", 4248541568), ("B", 16879923200)])
def test_dicos_closed_form_is_what_torchprofile_says_of_dicos_own_module(size, counted):
    """torchprofile 0.1.0 on github.com/shallowdream204/DiCo."""
    assert by_rule("torchprofile", f"DiCo-{size}", 256) == counted


def test_dimsums_closed_form_is_what_calflops_says_of_dimsums_own_module():
    """calflops 0.3.2 on github.com/VinAIResearch/DiMSUM at 8743e63, its kernels as functions of autograd."""
    unseen = ["linear in blocks.*.*_mamba.mixer.in_proj", "linear in blocks.*.*_mamba.mixer.dt_proj",
              "conv in blocks.*.freq_mamba.idwt"]  # fmt: skip
    bias, unpatchify = 256 * 1024, 4097
    assert 2 * by_rule("calflops", "DiMSUM-L/2", 256, unseen) + bias + unpatchify == 168984111105
    assert outline("DiMSUM-L/2", 256).cost.params == 458892304 + 1001 * 1024 - 1024  # a table of one label there


def test_dimsums_exact_cost_is_what_torch_says_of_dimsums_own_module():
    """torch 2.14's FlopCounterMode on the same, which sees all but what runs in Mamba's kernels."""
    ops = outline("DiMSUM-L/2", 256).cost.ops
    assert sum(op.macs for op in ops if op.via != "kernel") == 96036192256


@pytest.mark.parametrize(
    ("pixels", "counted", "unpatchify", "params"),
    [(256, 210728781824, 2048, 862407184), (512, 708165115902, 8190, 863586832)],
)
def test_tengs_closed_form_is_what_fvcore_says_of_his_own_module(pixels, counted, unpatchify, params):
    """fvcore 0.1.5 on github.com/tyshiwo1/DiM-DiffusionMamba at 292b228, extended from 3 and 5 of its 49 blocks."""
    unseen = [f"{kind} in transformer_blocks.*.attn1.{layer}" for kind, layer in
              (("linear", "x_proj"), ("linear", "dt_proj"), ("linear", "out_proj"), ("conv", "conv1d"))]  # fmt: skip
    assert by_rule("fvcore", "Teng's DiM-H", pixels, unseen) + unpatchify == counted
    assert outline("Teng's DiM-H", pixels).cost.params == params


@pytest.mark.parametrize(
    ("model", "pixels", "macs", "params"),
    [
        ("H/2", 256, 133196719104, 500832016),
        ("L/4", 512, 76481929216, 286861524),
        ("H/4", 512, 133225141248, 500942656),
    ],
)
def test_u_vits_exact_cost_is_what_torch_says_of_its_own_module(model, pixels, macs, params):
    """torch 2.14's FlopCounterMode on github.com/baofff/U-ViT at ce55170, by its configurations."""
    cost = outline(f"U-ViT-{model}", pixels).cost
    assert (cost.macs, cost.params) == (macs, params)


def test_diffusion_rwkvs_closed_form_is_what_thop_says_of_its_own_module():
    """thop 0.1.1 on github.com/feizc/Diffusion-RWKV at d1b43f2, its kernel as a function of autograd."""
    assert by_rule("thop", "DRWKV-H/2", 256) == 139110121472
    assert outline("DRWKV-H/2", 256).cost.params == 780313632


def test_lamambas_closed_form_is_what_fvcore_says_of_lamambas_own_module():
    """fvcore 0.1.5 on github.com/yunxiangfu2001/LaMamba-Diff at 27b3c1d, with its rule for a scan, of a state of 1.

    fvcore takes the cost of an einsum from a text of numpy's, which has four digits.
    """
    ops, _ = lamamba.operations(lamamba.WIDTH, 1, 256, 1)
    counted = {name: sum(RULES["fvcore-scan9"](op) for op in ops if seen(op)) for name, seen in {
        "einsum": lambda op: op.where.endswith((".x_proj", ".dt_proj")),
        "conv": lambda op: op.kind == "conv", "layer_norm": lambda op: op.kind == "norm",
        "matmul": lambda op: op.kind == "attention",
        "scan": lambda op: op.kind == "scan" or op.where.endswith(".product"),
    }.items()}  # fmt: skip
    assert counted.pop("einsum") == pytest.approx(2.3624e9, rel=5e-4)
    assert counted == {"conv": 63242240, "layer_norm": 95518720, "matmul": 440401920, "scan": 275251200}
    everything = sum(RULES["fvcore-scan9"](op) for op in ops)
    assert everything == pytest.approx(45.9253056e9, rel=2e-5)
    assert sum(op.params for op in ops) == 652484648


def test_with_the_state_of_the_public_configuration_lamamba_would_save_more_than_is_printed():
    for pixels, theirs, printed in ((256, 118.64, 57.6), (512, 524.60, 61.6)):
        ops, _ = lamamba.operations(lamamba.WIDTH, 1, pixels, 1)
        assert 100 * (1 - sum(RULES["fvcore-scan9"](op) for op in ops) / 1e9 / theirs) > printed + 3


@pytest.mark.parametrize(
    ("size", "gflop"), [("S", 0.431639), ("B", 1.86419), ("M", 3.70444), ("L", 6.57923), ("H", 14.78876)]
)
def test_dis_costs_what_hand_arithmetic_gives_thop(size, gflop):
    D, depth = {"S": (368, 24), "B": (768, 24), "M": (768, 48), "L": (1024, 48), "H": (1536, 48)}[size]
    T = (32 // 4) ** 2 + 1
    macs = 64 * D * 3 * 16 + 8 * D * D + depth // 2 * T * 2 * D * D + 2 * T * D + T * D * 16 * 6
    assert 2 * by_rule("thop", f"DiS-{size}/4 on pixels", 32) == 2 * macs
    assert 2 * macs / 1e9 == pytest.approx(gflop, rel=2e-6)


@pytest.mark.parametrize(
    ("model", "pixels", "millions"),
    [
        ("DiT-XL/2 in-context", 256, 449), ("DiT-XL/2 cross-attention", 256, 598), ("DiT-XL/2 adaLN", 256, 600),
        ("DiG-XL/2", 256, 676), ("DiS-H/4 on pixels", 32, 900), ("DiMSUM-L/2", 256, 460),
    ],
)  # fmt: skip
def test_outlines_have_the_parameters_that_are_printed(model, pixels, millions):
    assert round(outline(model, pixels).cost.params / 1e6) == millions


def test_what_is_known_of_the_catalogue_is_its_own_closed_form():
    assert outline("DiM-XL/2", 512).cost == analytic(spec("DiM-XL/2"), 512)
    assert outline("SiT-XL/2", 256).cost == analytic(spec("DiT-XL/2"), 256)
    assert outline("DRWKV-H/8", 256) is None
