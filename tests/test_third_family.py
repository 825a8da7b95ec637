"""A family that the project does not know: one value and one line, and it is counted, timed, trained, scored and shown.

gMLP (Liu et al., arXiv 2105.08050) mixes tokens by a learned matrix along the sequence, whose size is the number of
tokens: no family of the catalogue has parameters that depend on it.
"""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness import bench, eval, flops, report, sample, train
from harness.core import store
from harness.core.workload import Workload
from harness.cost import analytic, count, measure
from harness.cost.clock import time_here
from harness.cost.inputs import inputs_of
from harness.cost.memory import predict_memory
from harness.cost.operations import differences
from harness.diffusion import checkpoint
from harness.report.figures import style
from models import catalogue, counterpart, create_model, register, spec
from models.block import AdaLNZeroBlock, Block
from models.families import FAMILIES, Family, reference
from models.families.adaln_zero import adaln_zero
from models.operations import elementwise, linear
from models.video import VideoBlock


class SpatialGating(nn.Module):
    """One half of the channels, mixed along the sequence, multiplies the other."""

    def __init__(self, width: int, tokens: int):
        super().__init__()
        self.project, self.out = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.along = nn.Linear(tokens, tokens)

    def forward(self, x):
        u, v = F.gelu(self.project(x)).chunk(2, dim=-1)  # (B, L, D) each
        v = self.along(self.norm(v).transpose(1, 2).contiguous())  # (B, D, L)
        return self.out(u * v.transpose(1, 2))  # (B, L, D)


class GMLPBlock(AdaLNZeroBlock):
    def __init__(self, spec, tokens):
        super().__init__(spec, tokens)
        self.mixer = self.new_mixer(spec, tokens)

    @staticmethod
    def new_mixer(spec, tokens):
        return SpatialGating(spec.width, tokens)

    def mix(self, x):
        return self.mixer(x)

    def initialize_weights(self):
        super().initialize_weights()
        nn.init.ones_(self.mixer.along.bias)  # the gate begins open


class GMLPVideoBlock(VideoBlock, GMLPBlock):
    pass


def gating(spec, B, L, where):
    D, T = spec.width, B * L
    return [
        linear(f"{where}.project", T, D, 2 * D),
        elementwise("activation", 2 * T * D, where),
        elementwise("norm", T * D, f"{where}.norm", via="module"),
        linear(f"{where}.along", B * D, L, L),
        elementwise("gate", T * D, where),
        linear(f"{where}.out", T, D, D),
    ]


GMLP = Family(
    name="gMLP",
    depths={"": {"P": 2, "N": 3}},
    operations=lambda spec, axes, B, L: adaln_zero(spec, axes, B, L, gating, "mixer"),
    block=lambda: GMLPBlock,
    video_block=lambda: GMLPVideoBlock,
    counterpart="DiT",
)


@pytest.fixture
def listed():
    """Registers a family, and takes it out again."""
    before = list(FAMILIES)
    yield register
    FAMILIES[:] = before


@pytest.fixture(autouse=True)
def _gmlp(listed, monkeypatch):
    register(GMLP)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_it_stands_in_the_catalogue_behind_the_others_and_has_a_counterpart():
    names = [name for name in catalogue() if name.startswith("gMLP")]
    assert names == [f"gMLP-{size}/{patch}" for size in "PN" for patch in (2, 4, 8)]
    of_patch = [name for name in catalogue(("N",)) if "/2" in name]
    assert of_patch[:3] == ["DiT-N/2", "DiM-N/2", "DiM-N/2-matched"]
    assert of_patch[-1] == "gMLP-N/2"
    assert counterpart(spec("gMLP-N/4")) == spec("DiT-N/4")
    assert counterpart(spec("DiT-N/4")) is None
    with pytest.raises(ValueError, match=r"nearest: gMLP-.*\(gMLP-.*/"):
        spec("gMLP-XL/4")


@pytest.mark.parametrize("suffix", ["", "-video", "-video-both", "-video-flat"])
def test_its_closed_form_is_what_is_traced_at_every_length(suffix):
    for name, resolution, frames in (("gMLP-N/4", 64, 3), ("gMLP-P/2", 128, 2)):
        s = spec(f"{name}{suffix}", **({"frames": frames} if suffix else {}))
        traced = count(create_model(s, resolution, device="meta").eval(), *inputs_of(s, resolution, 2, "meta"))
        assert differences(analytic(s, resolution, 2), traced) == []


def test_a_block_is_given_the_number_of_tokens_of_the_sequence_that_it_mixes():
    def lengths(name):
        blocks = create_model(name, 64, frames=3).blocks if "video" in name else create_model(name, 64).blocks
        return [module.mixer.along.in_features for module in blocks]

    assert lengths("gMLP-N/4") == [4, 4, 4]  # 64 pixels, 8 a latent position, patch 4
    assert lengths("gMLP-N/4-video") == [4, 3, 4]  # space, time, space
    assert lengths("gMLP-N/4-video-flat") == [12, 12, 12]
    both = create_model("gMLP-N/4-video-both", 64, frames=3).blocks
    assert [(b.mixer.along.in_features, b.temporal.along.in_features) for b in both] == [(4, 3)] * 3


def test_two_counts_that_differ_are_named_by_operation_and_module(listed):
    def without_the_gate(spec, axes, B, L):
        return [op for op in GMLP.operations(spec, axes, B, L) if not op.where.endswith("along")]

    FAMILIES.remove(GMLP)
    register(dataclasses.replace(GMLP, operations=without_the_gate))
    with pytest.raises(ValueError, match="the two counts of gMLP-N/4 differ") as caught:
        measure([Workload(spec=spec("gMLP-N/4"), resolution=64)], [])
    wrong = 3 * 64 * 4 * 4, 3 * (4 * 4 + 4)  # blocks, width, tokens squared; its weight and bias
    assert f"multiply-adds of linear in blocks.*.mixer.along: 0 analytic, {wrong[0]:,} traced (+{wrong[0]:,})" in str(
        caught.value
    )
    assert f"(+{wrong[1]})" in str(caught.value)
    assert "attn" not in str(caught.value)
    assert "project" not in str(caught.value)


def test_its_cost_is_recorded_and_shown_beside_its_counterparts(capsys, tmp_path):
    path = tmp_path / "flops.jsonl"
    flops.main(["--model", "DiT-N/4", "gMLP-N/4", "--res", "64", "128", "--convention", "thop", "--records", str(path)])
    shown = capsys.readouterr().out
    assert "gMLP-N/4 costs less than DiT-N/4 everywhere" in shown
    assert "gMLP-N/4 has 3 blocks; it would cost what DiT-N/4 does with" in shown
    rows = {(row["model"], row.get("resolution")): row for row in report.costs(store.load(path))}
    row = rows["gMLP-N/4", 64]
    assert row["exact_gmacs"] == analytic(spec("gMLP-N/4"), 64).gmacs
    assert row["thop_omits"] == ""  # thop sees every submodule that is called


def test_its_memory_is_predicted():
    workload = Workload(spec=spec("gMLP-N/4"), resolution=128, batch=64, action="train")
    assert workload.settings() == {
        "model": "gMLP-N/4", "resolution": 128, "batch": 64, "action": "train", "dtype": "float32",
        "checkpointing": False,
    }  # fmt: skip
    assert predict_memory(workload).nbytes == pytest.approx(
        time_here(workload, "cpu", rounds=1, warmup=1).peak_bytes, rel=0.05
    )
    with pytest.raises(ValueError, match="gMLP has one implementation only, not 'sdpa'"):
        dataclasses.replace(workload, implementation="sdpa")


@pytest.mark.slow
def test_it_is_timed_in_a_fresh_process_and_drawn_in_a_look_of_its_own(capsys, tmp_path):
    path = tmp_path / "bench.jsonl"
    sweep = ["--model", "gMLP-N/4", "--res", "64", "--rounds", "1", "--warmup", "1", "--records", str(path)]
    bench.main(sweep)
    assert "forward, float32  " in capsys.readouterr().out  # no implementation behind it
    records = store.load(path)
    assert [record.verdict for record in records] == ["ok"], records
    table = report.latency_table(records).markdown()
    assert "| gMLP-N/4 | 1 | forward | float32 |  |" in table
    (axes,) = [axes for axes in report.figure("latency", records).axes if axes.lines]
    assert [line.get_label() for line in axes.lines] == ["gMLP-N/4"]
    known = [style.look(*kind) for kind in (*style.KINDS, ("DiM", "equal-macs"))]
    look = style.look_of("gMLP-N/4")
    assert look["color"] not in {other["color"] for other in known}
    assert look["marker"] not in {other["marker"] for other in known}


def test_it_is_trained_sampled_and_scored_on_digits(capsys, tmp_path):
    trained, samples, records = tmp_path / "run", tmp_path / "samples", tmp_path / "records.jsonl"
    device = ["--device", "cpu"]
    model = ["--preset", "digits", "--model", "gMLP-P/2", "--batch", "16", *device]
    assert train.main([*model, "--steps", "6", "--out", str(trained)]) == 0
    _, state = checkpoint.latest(trained / "checkpoints")
    along = state["model"]["blocks.0.mixer.along.bias"]
    assert len(along) == 16
    assert not torch.equal(along, torch.ones(16))  # it learns
    drawn = ["--ckpt", str(trained), "--num-samples", "4", "--steps", "2", "--out", str(samples), *device]
    assert sample.main(drawn) == 0
    assert json.loads((samples / "settings.json").read_text())["model"] == "gMLP-P/2"
    scored = ["--ckpt", str(trained), "--metric", "is32@digits", "--steps", "2", "--records", str(records), "--offline"]
    scored += ["--work-dir", str(tmp_path / "work"), "--weights-dir", str(tmp_path), "--max-duplicates", "1", *device]
    assert eval.main(scored) == 0
    (score,) = store.load(records)
    assert (score.get("model"), score.get("metric"), score.verdict) == ("gMLP-P/2", "is32@digits", "ok")
    assert score.value >= 1


# --------------------------------------------------------------------------------------------------- other shapes of it


class Pooling(Block):
    """No adaLN, no MLP: the mean of all tokens through one linear layer."""

    def __init__(self, spec, tokens):
        super().__init__(spec, tokens)
        self.linear = nn.Linear(spec.width, spec.width)

    def forward(self, x, c):
        return x + self.linear(x.mean(dim=1, keepdim=True))


def pooling(spec, axes, B, L):
    D, T = spec.width, B * L
    return [
        elementwise("gate", T * D, "blocks.*"),  # mean
        linear("blocks.*.linear", B, D, D),
        elementwise("gate", T * D, "blocks.*"),  # residual
    ]


POOL = Family(name="Pool", depths={"": {"N": 2}}, operations=pooling, block=lambda: Pooling)


def test_a_family_may_have_a_whole_block_of_its_own(listed):
    register(POOL)
    s = spec("Pool-N/4")
    traced = count(create_model(s, 64, device="meta").eval(), *inputs_of(s, 64, 2, "meta"))
    assert differences(analytic(s, 64, 2), traced) == []


def test_without_a_video_block_there_are_no_names_of_video(listed):
    register(POOL)
    assert not any(name.startswith("Pool") for name in catalogue(video=True))
    with pytest.raises(ValueError, match=r"unknown model 'Pool-N/4-video'; nearest: .* \(Pool-[^,]*\)$"):
        spec("Pool-N/4-video")
    with pytest.raises(ValueError, match=r"Pool-N/4 is a model of images and has no frames$"):
        spec("Pool-N/4", frames=3)
    with pytest.raises(ValueError, match="Pool has models of images only"):
        dataclasses.replace(spec("Pool-N/4"), frames=3)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": "DiT"}, "'DiT': it must be a word other than DiT, DiM"),
        ({"name": "a-b"}, "'a-b': it must be a word"),
        ({"name": "Other", "counterpart": "ViT"}, "unknown counterpart 'ViT' of Other; choose from DiT, DiM"),
        ({"name": "Other", "depths": {"": {"XS": 2}}}, "unknown size 'XS' of Other; choose from P, N"),
    ],
)
def test_a_family_that_cannot_be_is_refused_by_name(listed, change, complaint):
    with pytest.raises(ValueError, match=complaint):
        register(dataclasses.replace(GMLP, **change))


def test_registering_the_same_family_again_changes_nothing():
    before = list(FAMILIES)
    register(GMLP)
    assert before == FAMILIES


def test_a_family_is_found_again_by_its_reference_and_one_without_a_name_is_refused():
    assert reference(GMLP) == f"{__name__}:GMLP"
    with pytest.raises(ValueError, match="another process cannot import gMLP"):
        reference(dataclasses.replace(GMLP))


def test_when_it_is_gone_its_names_are_gone():
    FAMILIES.remove(GMLP)
    with pytest.raises(ValueError, match="unknown model 'gMLP-N/4'"):
        spec("gMLP-N/4")
    with pytest.raises(ValueError, match="unknown family 'gMLP'; choose from DiT, DiM"):
        dataclasses.replace(spec("DiT-N/4"), family="gMLP")
