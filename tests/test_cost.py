"""Costs: two counts that agree, tools that agree with their rules, and the published figures to the printed digit."""

import dataclasses
import gc
import itertools
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.core.workload import Workload
from harness.cost import (
    CONVENTIONS,
    FORMULAS,
    Cost,
    Op,
    analytic,
    count,
    crossover,
    equal_macs_depth,
    extension,
    tools,
)
from harness.cost.analytic import at_tokens
from harness.cost.conventions import thop_params
from harness.cost.extension import Counts, Extension, extension_of
from harness.cost.inputs import inputs_of
from harness.cost.operations import differences
from harness.cost.records import crossovers, measure
from harness.report import agrees, published_costs
from models import catalogue, counterpart, create_model, spec
from models.families import FAMILIES
from models.families.dim.block import DiMBlock

RESOLUTIONS = (256, 512, 1024, 2048)
TINY = [name for name in catalogue() if "-N/" in name]
TINY_VIDEO = [name for name in catalogue(video=True) if "-N/" in name]


@pytest.fixture(autouse=True)
def _no_collector():
    """Building models by the thousand sets the collector walking all of torch."""
    gc.disable()
    yield
    gc.enable()


def traced(name: str, resolution: int, batch: int = 1, **overrides):
    s = spec(name, **overrides)
    model = create_model(s, resolution, device="meta").eval()
    return count(model, *inputs_of(s, resolution, batch, "meta"))


# ------------------------------------------------------------------------------------------------- the two counts agree


@pytest.mark.parametrize("name", catalogue())
def test_closed_form_and_traced_count_agree_to_the_last_multiply_add(name):
    """Traced on few blocks; that they give what all give is tested below."""
    counts = Counts()
    for resolution in RESOLUTIONS:
        assert differences(analytic(spec(name), resolution), counts.trace(spec(name), resolution, 1).cost) == []


@pytest.mark.parametrize("name", ["DiT-XL/2", "DiM-XL/2", "DiG-XL/2", "DiS-L/2", "DiffuSSM-XL/1"])
def test_they_agree_on_the_whole_model_too(name):
    assert differences(analytic(spec(name), 256), traced(name, 256)) == []


@pytest.mark.parametrize(
    "overrides",
    [
        {"merge": "sum"}, {"mlp": False}, {"mlp_ratio": 3}, {"depth": 5}, {"depth": 1},
        {"state": 8, "expand": 3, "conv": 2}, {"learn_sigma": False},
    ],
)  # fmt: skip
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_counts_agree_for_departures_from_the_catalogue(family, overrides):
    name = f"{family.name}-N/{family.patches[-1] if family.patches[-1] < 8 else 4}"
    s = spec(name, **overrides)
    assert differences(analytic(s, 64, batch=3), traced(name, 64, 3, **overrides)) == []


@pytest.mark.parametrize("name", TINY_VIDEO)
def test_the_counts_agree_for_clips(name):
    for frames, resolution, batch, overrides in ((16, 64, 1, {}), (5, 128, 3, {"depth": 4}), (2, 64, 2, {"depth": 1})):
        s = spec(name, frames=frames, **overrides)
        closed, seen = analytic(s, resolution, batch), traced(name, resolution, batch, frames=frames, **overrides)
        assert seen.by_module() == closed.by_module()
        assert seen.elementwise_by_kind() == closed.elementwise_by_kind()
        assert seen.params == closed.params
        assert not seen.uncounted


def test_counts_that_differ_are_named_by_operation_and_module():
    one = Cost((Op("linear", 8, 0, "blocks.*.fc"), Op("scan", 4, 1, "blocks.*.mixer"), Op("norm", 0, 6, "")), 5, "ours")
    other = Cost(
        (Op("linear", 6, 0, "blocks.*.fc"), Op("linear", 2, 0, "blocks.*.fc"), Op("gate", 0, 1000, "")),
        7,
        "theirs",
        {"aten::_fft_r2c": 3},
    )
    assert differences(one, one) == []
    assert differences(one, other) == [
        "multiply-adds of scan in blocks.*.mixer: 4 ours, 0 theirs (-4)",
        "elementwise results of scan in blocks.*.mixer: 1 ours, 0 theirs (-1)",
        "elementwise results of norm in no module: 6 ours, 0 theirs (-6)",
        "elementwise results of gate in no module: 0 ours, 1,000 theirs (+1,000)",
        "parameters: 5 ours, 7 theirs (+2)",
        "aten::_fft_r2c: no rule counts it (3 calls)",
    ]


@pytest.mark.parametrize("name", TINY + TINY_VIDEO)
def test_no_module_differs_between_the_two_counts(name):
    assert differences(analytic(spec(name), 64, 2), traced(name, 64, 2)) == []


@pytest.mark.parametrize(
    ("name", "gmacs", "millions"),
    [
        ("DiT-XL/2-video", 1862.8, 674.8), ("DiT-XL/2-video-flat", 2909.2, 674.8), ("DiM-XL/2-video", 2906.0, 994.5),
        ("DiM-XL/2-video-flat", 2906.0, 994.5), ("DiM-XL/2-video-both", 4245.9, 1314.1),
    ],
)  # fmt: skip
def test_exact_costs_of_sixteen_frames_are_those_of_hand_arithmetic(name, gmacs, millions):
    s = spec(name)
    D, N, L, T = s.width, s.depth, 256, 16
    E, R, S, K = 2 * D, s.dt_rank, 16, 4
    mamba = 6 * D * D + 2 * E * (K + 2 * R + 2 * S) + 8 * E * S
    seen = {"alternating": (L + T) / 2, "flat": T * L}.get(s.arrangement, 0)  # tokens that attention meets, on average
    mixer = 4 * D * D + 2 * seen * D if s.family == "DiT" else mamba * (2 if s.arrangement == "both" else 1)
    by_hand = N * (T * L * (8 * D * D + mixer) + 6 * D * D) + T * L * 12 * 4 * D + 256 * D + 3 * D * D
    cost = analytic(s, 256)
    assert cost.macs == by_hand
    assert round(cost.gmacs, 1) == gmacs
    assert round(cost.params / 1e6, 1) == millions


def test_a_condition_for_every_row_would_cost_thirty_gmacs_more():
    """What Latte spends: adaLN on 16 rows in 14 blocks over space and the final layer, on 256 in 14 over time."""
    D = 1152
    wasted = 14 * (15 + 255) * 6 * D * D + 15 * 2 * D * D
    assert round((analytic(spec("DiT-XL/2-video"), 256).macs + wasted) / 1e9, 1) == 1893.0


@pytest.mark.parametrize(
    ("name", "resolution", "gmacs"),
    [
        ("DiT-XL/2", 256, 118.62), ("DiT-XL/2", 512, 524.54), ("DiT-XL/2", 1024, 2909.22), ("DiT-XL/2", 2048, 24624.18),
        ("DiM-XL/2", 256, 181.90), ("DiM-XL/2", 512, 726.71), ("DiM-XL/2", 1024, 2905.96), ("DiM-XL/2", 2048, 11622.98),
        ("DiT-S/2", 256, 6.06), ("DiT-B/4", 256, 5.57), ("DiM-B/4", 256, 9.14), ("DiM-S/8", 256, 0.61),
    ],
)  # fmt: skip
def test_exact_costs_are_those_of_hand_arithmetic(name, resolution, gmacs):
    s = spec(name)
    D, N, p, L = s.width, s.depth, s.patch, (resolution // 8 // s.patch) ** 2
    E, R, S, K = 2 * D, s.dt_rank, 16, 4
    per_token = 4 * D * D + 2 * L * D if s.family == "DiT" else 6 * D * D + 2 * E * (K + 2 * R + 2 * S) + 8 * E * S
    by_hand = N * (L * (8 * D * D + per_token) + 6 * D * D) + L * 12 * p * p * D + 256 * D + 3 * D * D
    assert analytic(s, resolution).macs == by_hand
    assert round(by_hand / 1e9, 2) == gmacs


def test_dit_costs_what_its_authors_print():
    """The README of DiT: 119 and 525 "Gflops" at 256 and 512, which are multiply-adds."""
    assert round(analytic(spec("DiT-XL/2"), 256).gmacs) == 119
    assert round(analytic(spec("DiT-XL/2"), 512).gmacs) == 525


def test_flops_are_two_a_multiply_add_and_a_scan_can_be_nine():
    cost = analytic(spec("DiM-XL/2"), 256)
    scan_cells = 36 * 2 * 256 * 2304 * 16  # layers, directions, tokens, channels, states
    assert cost.by_kind()["scan"] == 4 * scan_cells
    assert CONVENTIONS["flops"].total(cost) == 2 * cost.macs
    assert CONVENTIONS["flops-scan9"].total(cost) == 2 * (cost.macs - 4 * scan_cells) + 9 * scan_cells


# --------------------------------------------------------------------------------------- few blocks stand for the whole


@pytest.mark.parametrize(
    ("name", "depth", "built"),
    [
        ("DiT-XL/2", 28, (1, 2)), ("DiM-XL/2", 3, (1, 2)), ("DiM-XL/2", 2, (2,)), ("DiT-XL/2", 1, (1,)),
        ("DiT-XL/2-video", 28, (2, 4)), ("DiT-XL/2-video", 27, (3, 5)), ("DiM-XL/2-video", 5, (5,)),
        ("DiM-XL/2-video", 1, (1,)), ("DiM-XL/2-video-both", 36, (1, 2)), ("DiT-XL/2-video-flat", 28, (1, 2)),
    ],
)  # fmt: skip
def test_the_smallest_models_that_show_every_kind_of_block_are_built(name, depth, built):
    assert extension_of(spec(name, depth=depth)).built == built
    assert extension_of(spec(name, depth=depth), full=True).built == (depth,)


def test_totals_grow_by_the_same_amount_with_every_period():
    assert Extension(28, (1, 2)).total([10, 17]) == 10 + 27 * 7
    assert Extension(27, (3, 5)).total([10, 17]) == 10 + 12 * 7
    assert Extension(4, (1, 2)).totals([{"a": 5}, {"a": 5, "b": 2}]) == {"a": 5, "b": 6}
    assert Extension(3, (3,)).total([7]) == 7


def of_each_operation(cost):
    sums = {}
    for op in cost.ops:
        macs, elementwise = sums.get((op.where, op.kind), (0, 0))
        sums[op.where, op.kind] = macs + op.macs, elementwise + op.elementwise
    return sums


def both_ways(name: str, resolution: int, readings, **overrides):
    """What few blocks, extended, and the whole model give."""
    s = spec(name, **overrides)
    found = []
    for counts in (Counts(), Counts(full=True)):
        traced = counts.trace(s, resolution, 2)
        read = [counts.read(tool, s, resolution, batch) for tool, batch in readings]
        found.append(
            [of_each_operation(traced.cost), traced.cost.params, traced.buffers, traced.cost.uncounted]
            + [(reading.count, reading.params) for reading in read]
        )
    return found


@pytest.mark.parametrize("name", TINY)
def test_few_blocks_extended_give_what_the_whole_model_gives(name):
    extended, whole = both_ways(name, 64, [("thop", 1), ("thop", 3), ("torch", 2), ("fvcore", 1)], depth=5)
    assert extended == whole


@pytest.mark.parametrize("name", TINY_VIDEO)
def test_few_blocks_extended_give_the_whole_models_of_clips(name):
    readings = [("thop", 3), ("torch", 1), *([("fvcore", 1)] if "N/4" in name else [])]
    for depth in (6, 7) if name.endswith("-video") else (4,):
        extended, whole = both_ways(name, 64, readings, depth=depth, frames=2)
        assert extended == whole


@pytest.mark.parametrize(
    ("name", "tools_of"),
    [("DiM-S/8", ("thop", "torch", "fvcore")), ("DiT-S/4", ("torch",)), ("DiM-XL/8", ("thop", "torch"))],
)
def test_of_the_papers_sizes_too(name, tools_of):
    extended, whole = both_ways(name, 256, [(tool, 1) for tool in tools_of])
    assert extended == whole


def test_records_are_the_same_but_for_the_method_which_says_how():
    workloads = [Workload(spec=spec(name), resolution=64) for name in ("DiM-N/4", "DiT-N/2")]
    extended, whole = (measure(workloads, list(CONVENTIONS.values()), full=full) for full in (False, True))
    plain = [dataclasses.replace(one, method="", provenance=None) for one in whole]
    assert [dataclasses.replace(one, method="", provenance=None) for one in extended] == plain
    methods = {(one.get("convention"), one.method) for one in extended}
    assert ("exact", "analytic = traced on 1 and 2 blocks, extended") in methods
    assert any(name == "fvcore" and method.endswith("on 1 and 2 blocks, extended") for name, method in methods)
    assert {one.method for one in whole if one.get("convention") == "exact"} == {"analytic = traced"}


def test_a_block_unlike_the_others_does_not_go_unnoticed(monkeypatch):
    def with_another_second_block(s, *arguments, **settings):
        model = create_model(s, *arguments, **settings)
        if s.depth > 1:
            model.blocks[1].mlp.fc1 = nn.Linear(64, 256, bias=False, device="meta")
        return model

    monkeypatch.setattr(extension, "create_model", with_another_second_block)
    with pytest.raises(ValueError, match=r"the two counts of DiM-N/8 differ: parameters: .* \(-768\)"):
        measure([Workload(spec=spec("DiM-N/8"), resolution=64)], [CONVENTIONS["exact"]])


def test_only_forward_passes_are_counted():
    with pytest.raises(ValueError, match="not the action 'train'"):
        measure([Workload(spec=spec("DiM-N/8"), resolution=64, action="train")], [CONVENTIONS["exact"]])


# ---------------------------------------------------------------------------------------------------- published figures


@pytest.mark.parametrize("cell", published_costs(), ids=lambda cell: f"{cell[0]}@{cell[1]}")
def test_thop_on_a_batch_of_three_gives_the_published_figure(cell):
    model, resolution = cell
    printed = published_costs()[cell]
    s = spec(model)
    reading = tools.run("thop", create_model(s, resolution, device="meta"), *inputs_of(s, resolution, 3, "meta"))
    assert reading.count == CONVENTIONS["paper"].total(analytic(s, resolution, 3))
    if printed["published_gflops"] == "OOM":
        assert round(reading.count / 1e9, 2) == 21927.07
    else:
        assert agrees(reading.count / 1e9, printed["published_gflops"])
    if "published_params_m" in printed:
        assert agrees(reading.params / 1e6, printed["published_params_m"])


def test_every_efficiency_cell_of_the_paper_is_among_those_checked():
    cells = published_costs()
    assert len(cells) == 8 + 3 + 4 - 1  # Table 4, Table 5, Table 6, which share DiM-B/4
    assert sum(cell["published_gflops"] != "OOM" for cell in cells.values()) == 13
    assert sum("published_params_m" in cell for cell in cells.values()) == 6


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_no_other_batch_gives_the_published_figures(batch):
    for (model, resolution), cell in published_costs().items():
        macs = CONVENTIONS["thop"].total(analytic(spec(model), resolution, batch))
        assert not agrees(macs / 1e9, cell["published_gflops"])


READINGS = {
    "a class token in the sequence": lambda s, L: at_tokens(s, L + 1, 3),
    "no learned variance": lambda s, L: at_tokens(dataclasses.replace(s, learn_sigma=False), L, 3),
    "blocks without an MLP": lambda s, L: at_tokens(dataclasses.replace(s, mlp=False), L, 3),
    "the depth of DiT": lambda s, L: at_tokens(dataclasses.replace(s, depth=counterpart(s).depth), L, 3),
}


@pytest.mark.parametrize("reading", READINGS)
def test_no_other_reading_of_the_architecture_gives_the_published_figures(reading):
    for (model, resolution), cell in published_costs().items():
        if model.startswith("DiM"):
            s = spec(model)
            macs = CONVENTIONS["paper"].total(READINGS[reading](s, s.tokens(resolution)))
            assert not agrees(macs / 1e9, cell["published_gflops"])


def test_a_model_without_any_mixer_gives_the_published_figure_too(monkeypatch):
    monkeypatch.setattr(DiMBlock, "mix", lambda self, x: x)
    s = spec("DiM-XL/2")
    reading = tools.run("thop", create_model(s, 256, device="meta"), *inputs_of(s, 256, 3, "meta"))
    assert round(reading.count / 1e9, 2) == 294.58


def test_thop_sees_nothing_of_the_mixer_and_not_the_attention_core():
    assert set(CONVENTIONS["thop"].omitted(analytic(spec("DiT-XL/2"), 256))) == {"attention in blocks.*.attn"}
    omitted = CONVENTIONS["thop"].omitted(analytic(spec("DiM-XL/2"), 256))
    assert set(omitted) == {f"{kind} in blocks.*.mixer" for kind in ("linear", "conv", "scan")}
    assert sum(omitted.values()) == pytest.approx((81.03 + 2.72) / 181.90, abs=1e-3)


def test_the_published_ratio_is_that_of_the_linear_layers_thop_can_see():
    """12 D² in 28 blocks against 8 D² in 36: Table 4's ratio is 0.857 at every resolution."""
    for resolution in RESOLUTIONS:
        dim, dit = (CONVENTIONS["paper"].total(analytic(spec(f"{f}-XL/2"), resolution, 3)) for f in ("DiM", "DiT"))
        assert dim / dit == pytest.approx(8 * 36 / (12 * 28), abs=2e-3)


# ------------------------------------------------------------------------------------------------------------ the tools


@pytest.mark.parametrize(("tool", "name"), list(itertools.product(tools.TOOLS, TINY)))
def test_each_tool_gives_what_its_rule_makes_of_the_operations(tool, name):
    s = spec(name)
    for resolution, batch in ((64, 1), (128, 3)):
        model = create_model(s, resolution).eval()
        keys = list(model.state_dict())
        reading = tools.run(tool, model, *inputs_of(s, resolution, batch, "cpu"))
        cost = analytic(s, resolution, batch)
        assert reading.count == CONVENTIONS[tool].total(cost)
        assert list(model.state_dict()) == keys
        if tool == "thop":
            assert reading.params == thop_params(cost)


@pytest.mark.parametrize(("tool", "name"), list(itertools.product(tools.TOOLS, [n for n in TINY_VIDEO if "N/4" in n])))
def test_each_tool_follows_its_rule_over_clips(tool, name):
    s = spec(name, frames=3)
    reading = tools.run(tool, create_model(s, 64).eval(), *inputs_of(s, 64, 2, "cpu"))
    assert reading.count == CONVENTIONS[tool].total(analytic(s, 64, 2))


def test_a_figure_that_would_need_a_large_model_to_run_is_marked_as_predicted():
    conventions = [CONVENTIONS["fvcore"]]
    large, small = (Workload(spec=spec(f"DiT-{size}/8"), resolution=256) for size in ("XL", "N"))
    verdicts = [
        next((m.verdict, m.method) for m in measure([w], conventions) if m.quantity == "cost") for w in (large, small)
    ]
    assert verdicts[0][0] == "estimated"
    assert "predicted" in verdicts[0][1]
    assert verdicts[1][0] == "ok"
    assert verdicts[1][1].startswith("fvcore 0.")


# ------------------------------------------------------------------------------------------ crossovers and the formulas


@pytest.mark.parametrize(
    ("size", "pixels"), [("S/2", 655), ("B/2", 888), ("L/2", 1015), ("XL/2", 1022), ("XL/4", 2045), ("XL/8", 4090)]
)
def test_dim_becomes_cheaper_where_its_cost_meets_dits(size, pixels):
    dim, dit = spec(f"DiM-{size}"), spec(f"DiT-{size}")
    met = crossover(dim, dit)
    assert round(met) == pixels
    unit = 8 * dim.patch
    below, above = (int(met // unit) + step for step in (0, 1))
    assert analytic(dim, below * unit).macs > analytic(dit, below * unit).macs
    assert analytic(dim, above * unit).macs < analytic(dit, above * unit).macs


def test_clips_are_held_against_clips():
    dim, dit = spec("DiM-XL/2-video"), spec("DiT-XL/2-video")
    unit, met = 16, crossover(dim, dit)
    below, above = (int(met // unit) * unit + step for step in (0, unit))
    assert analytic(dim, below).macs > analytic(dit, below).macs
    assert analytic(dim, above).macs < analytic(dit, above).macs
    with pytest.raises(ValueError, match="different tokens"):
        crossover(dim, spec("DiT-XL/2"))
    names = "DiM-XL/2-video DiT-XL/2-video DiT-XL/2 DiT-XL/2-video-flat".split()
    assert [m.workload["against"] for m in crossovers(spec(name) for name in names)] == ["DiT-XL/2-video"]


def test_models_that_do_not_meet_have_no_crossover():
    assert crossover(spec("DiT-XL/2"), spec("DiT-B/2")) is None
    assert crossover(spec("DiM-B/2"), spec("DiM-XL/2")) is None


def test_equal_cost_depth_is_the_nearest():
    dim, dit = spec("DiM-XL/2"), spec("DiT-XL/2")
    target = analytic(dit, 512).macs
    gaps = {n: abs(analytic(spec("DiM-XL/2", depth=n), 512).macs - target) for n in range(1, 60)}
    assert equal_macs_depth(dim, dit, 512) == min(gaps, key=gaps.__getitem__)


@pytest.mark.parametrize("resolution", [256, 2048])
def test_equal_cost_depth_is_the_nearest_where_blocks_alternate(resolution):
    dim, dit = spec("DiM-XL/2-video"), spec("DiT-XL/2-video")  # the attention over space costs more than that over time
    target = analytic(dim, resolution).macs
    gaps = {n: abs(analytic(spec("DiT-XL/2-video", depth=n), resolution).macs - target) for n in range(1, 90)}
    assert equal_macs_depth(dit, dim, resolution) == min(gaps, key=gaps.__getitem__)


def test_section_3_4_counts_a_sixtieth_of_the_true_mixer():
    dit, _, dim = FORMULAS
    L, D = 256, 1152
    assert dit.multiply_adds(L, D, 16) == 4 * L * D**2 + 2 * L**2 * D
    mixer = sum(op.macs for op in analytic(spec("DiM-XL/2", depth=1), 256).ops if "mixer" in op.where)
    assert dim.multiply_adds(L, D, 16) / mixer == pytest.approx(0.016, abs=5e-4)


# ------------------------------------------------------------------------------------------------------ any other model


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 16, 10)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))
        return self.fc(F.avg_pool2d(x, 2).flatten(1)).softmax(-1)


def test_any_module_is_counted_and_left_as_it_is():
    model = Small().eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    cost = count(model, torch.zeros(2, 3, 8, 8))
    assert cost.by_kind() == {"conv": 2 * 64 * 8 * 27, "linear": 2 * 128 * 10}
    assert cost.elementwise_by_kind() == {"norm": 2 * 512, "activation": 2 * 512 + 20, "gate": 2 * 512}
    assert cost.params == 3 * 8 * 9 + 8 + 16 + 1280 + 10
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not model.conv.weight.is_meta


def test_attention_that_torch_fuses_is_counted():
    layer = nn.MultiheadAttention(32, 4, batch_first=True).eval()

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x, x, x, need_weights=False)[0]

    assert count(Wrapped(), torch.zeros(2, 10, 32)).by_kind() == {
        "linear": 2 * 10 * 4 * 32 * 32,
        "attention": 2 * 2 * 10 * 10 * 32,
    }


def test_moving_data_is_no_alarm():
    """torchvision prints 4.46 for it; its pooling calls as_strided_."""
    torchvision = pytest.importorskip("torchvision")
    cost = count(torchvision.models.convnext_tiny().eval(), torch.zeros(1, 3, 224, 224))
    assert round(cost.gmacs, 2) == 4.46
    assert not cost.uncounted


def test_what_has_no_rule_is_named():
    class Spectrum(nn.Module):
        def forward(self, x):
            return torch.fft.rfft(x).abs()

    assert any("fft" in name for name in count(Spectrum(), torch.zeros(4, 16)).uncounted)


def test_a_model_that_reads_values_is_refused_in_one_line():
    class Reader(nn.Module):
        def forward(self, x):
            return x * float(x.sum())

    with pytest.raises(ValueError, match="Reader cannot be traced on meta tensors") as caught:
        count(Reader(), torch.zeros(3))
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------ mamba_ssm


@pytest.fixture
def fused_kernels(monkeypatch):
    """A package with mamba_ssm's public kernel functions, which, like the real ones, refuse what is not on a GPU."""

    def refuse(*args, **kwargs):
        raise RuntimeError("expected a CUDA tensor")

    names = ["mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.selective_scan_interface", "causal_conv1d"]
    modules = {name: types.ModuleType(name) for name in names}
    interface = modules["mamba_ssm.ops.selective_scan_interface"]
    for name in ("selective_scan_fn", "mamba_inner_fn", "mamba_inner_fn_no_out_proj", "bimamba_inner_fn"):
        setattr(interface, name, lambda *args, _name=name, **kwargs: refuse())
    modules["causal_conv1d"].causal_conv1d_fn = lambda *args, **kwargs: refuse()
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    user = types.ModuleType("a_users_network")
    user.mamba_inner_fn = interface.mamba_inner_fn  # `from mamba_ssm... import mamba_inner_fn`
    monkeypatch.setitem(sys.modules, "a_users_network", user)
    return interface, user


class FusedMamba(nn.Module):
    """A Mamba layer that calls the fused kernel as mamba_ssm's own module does."""

    def __init__(self, D=24, S=16, K=4):
        super().__init__()
        E, R = 2 * D, -(-D // 16)
        self.in_proj, self.out_proj = nn.Linear(D, 2 * E, bias=False), nn.Linear(E, D, bias=False)
        self.conv1d = nn.Conv1d(E, E, K, groups=E)
        self.x_proj, self.dt_proj = nn.Linear(E, R + 2 * S, bias=False), nn.Linear(R, E)
        self.A_log, self.D = nn.Parameter(torch.zeros(E, S)), nn.Parameter(torch.ones(E))

    def forward(self, x):
        B, L, D = x.shape
        xz = (self.in_proj.weight @ x.reshape(-1, D).T).reshape(-1, B, L).transpose(0, 1)
        return sys.modules["a_users_network"].mamba_inner_fn(
            xz, self.conv1d.weight, self.conv1d.bias, self.x_proj.weight, self.dt_proj.weight, self.out_proj.weight,
            self.out_proj.bias, -torch.exp(self.A_log), None, None, self.D, delta_bias=self.dt_proj.bias,
            delta_softplus=True,
        )  # fmt: skip


def test_mamba_ssms_fused_kernels_are_counted(fused_kernels):
    interface, user = fused_kernels
    layer = FusedMamba()
    B, L, D, E, S, K, R = 2, 10, 24, 48, 16, 4, 2
    kernel = user.mamba_inner_fn
    cost = count(layer, torch.zeros(B, L, D))
    assert cost.by_kind() == {
        "linear": B * L * (3 * D * E + E * (R + 2 * S) + R * E),
        "conv": B * L * E * K,
        "scan": B * L * E * S * 4,
    }
    assert user.mamba_inner_fn is kernel is interface.mamba_inner_fn  # put back
    with pytest.raises(RuntimeError, match="CUDA"):
        layer(torch.zeros(B, L, D))


def test_other_counters_miss_the_fused_kernel(fused_kernels):
    """thop counts nothing of it, not even its parameters (state-spaces/mamba issue 303)."""
    reading = tools.run("thop", FusedMamba(), torch.zeros(2, 10, 24))
    assert (reading.count, reading.params) == (0, 0)


def test_real_mamba_ssm_is_counted_where_it_is_installed():
    mamba_ssm = pytest.importorskip("mamba_ssm", reason="mamba-ssm needs CUDA to build", exc_type=ImportError)
    B, L, D, E, S, K, R = 2, 256, 768, 1536, 16, 4, 48
    cost = count(mamba_ssm.Mamba(D), torch.zeros(B, L, D))
    assert cost.by_kind()["linear"] == B * L * (3 * D * E + E * (R + 2 * S) + R * E)
    assert cost.by_kind()["scan"] == B * L * E * S * 4
    assert cost.by_kind()["conv"] in (B * L * E * K, B * (L + K - 1) * E * K)  # with and without causal-conv1d
