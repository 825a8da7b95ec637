"""CD-FVD's network: its features are those of cd-fvd 0.1.1, of its state dict, its resize and its positions."""

import json
from argparse import Namespace

import numpy as np
import pytest
import torch
from torch import nn

from harness import eval as command
from harness.metrics.features import space, videomae_network
from harness.metrics.features.videomae import VIDEOMAE
from harness.metrics.features.videomae_network import Architecture, VideoMAE, extractor, prepared
from harness.metrics.features.weights import load_weights
from harness.metrics.recipes import parse

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = Architecture(width=24, depth=2, heads=2, mlp_ratio=48 / 11, patch=2, side=32)
HIDDEN = 104


def authors_names(classes=5):
    """The names and shapes of the authors' state dict, of an encoder of those sizes."""
    width = SMALL.width
    shapes = {"patch_embed.proj.weight": (width, 3, 2, 2, 2), "patch_embed.proj.bias": (width,)}
    for number in range(SMALL.depth):
        block = f"blocks.{number}"
        shapes |= {f"{block}.attn.qkv.weight": (3 * width, width), f"{block}.attn.proj.weight": (width, width)}
        shapes |= {f"{block}.attn.{name}": (width,) for name in ("q_bias", "v_bias", "proj.bias")}
        shapes |= {f"{block}.{norm}.{name}": (width,) for norm in ("norm1", "norm2") for name in ("weight", "bias")}
        shapes |= {f"{block}.mlp.fc1.weight": (HIDDEN, width), f"{block}.mlp.fc1.bias": (HIDDEN,)}
        shapes |= {f"{block}.mlp.fc2.weight": (width, HIDDEN), f"{block}.mlp.fc2.bias": (width,)}
    shapes |= {"fc_norm.weight": (width,), "fc_norm.bias": (width,)}
    return shapes | {"head.weight": (classes, width), "head.bias": (classes,)}


@pytest.fixture(scope="module")
def state():
    generator = np.random.default_rng(0)
    shapes = sorted(authors_names().items())
    return {name: torch.from_numpy(generator.normal(0, 0.2, shape).astype("float32")) for name, shape in shapes}


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    """A file as the authors publish theirs."""
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    torch.save({"module": state, "args": Namespace(model="vit_giant_patch14_224")}, path)
    return path


@pytest.fixture(scope="module")
def clips():
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 16, 20, 26, 3), dtype=np.uint8))


def opened(path):
    return extractor(load_weights(VIDEOMAE.weights, path=path), "cpu", SMALL)


@pytest.mark.parametrize(
    # of cd-fvd 0.1.1 on these weights and clips: its VisionTransformer of SMALL's sizes (tubelets of 2, 16 frames, mean
    # pooling, biases of q and v, eps 1e-6), its to_normalized_float_tensor, its resize to (32, 32)
    ("frames", "expected"),
    [
        (16, [[0.68329108, -0.18062048, -0.45079419], [0.68485832, -0.17666940, -0.44902194]]),
        (6, [[0.67961425, -0.18866678, -0.45278734], [0.68021566, -0.18601297, -0.44658118]]),
    ],
)
def test_features_are_those_of_cd_fvd_on_the_same_weights(file, clips, frames, expected):
    found = opened(file).extract(clips[:, :frames])["pool"]
    assert found.shape == (2, 24)
    assert found[:, :3].numpy() == pytest.approx(np.array(expected), abs=1e-6)


def test_the_network_is_a_transformer_whose_attention_has_no_bias_of_keys(state, file, clips):
    """Written out with torch's own layers; positions are a sinusoid of the token's number."""
    width, x = SMALL.width, prepared(clips, 32)
    tokens = nn.functional.conv3d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=2)
    tokens = tokens.flatten(2).transpose(1, 2).double()
    number = np.arange(tokens.shape[1])[:, None]
    for column in range(width):
        angle = number[:, 0] / 10_000 ** (2 * (column // 2) / width)
        tokens[..., column] += torch.from_numpy(np.cos(angle) if column % 2 else np.sin(angle))
    for block in range(SMALL.depth):
        part = {name.split(".", 2)[2]: t.double() for name, t in state.items() if name.startswith(f"blocks.{block}.")}
        layer = nn.TransformerEncoderLayer(width, 2, HIDDEN, 0, "gelu", 1e-6, batch_first=True, norm_first=True)
        none = torch.zeros(width)
        layer.load_state_dict(
            {
                "self_attn.in_proj_weight": part["attn.qkv.weight"],
                "self_attn.in_proj_bias": torch.cat([part["attn.q_bias"], none, part["attn.v_bias"]]),
                "self_attn.out_proj.weight": part["attn.proj.weight"],
                "self_attn.out_proj.bias": part["attn.proj.bias"],
                "linear1.weight": part["mlp.fc1.weight"], "linear1.bias": part["mlp.fc1.bias"],
                "linear2.weight": part["mlp.fc2.weight"], "linear2.bias": part["mlp.fc2.bias"],
                **{name: tensor for name, tensor in part.items() if name.startswith("norm")},
            }
        )  # fmt: skip
        with torch.no_grad():
            tokens = layer.double().eval()(tokens)
    weight, bias = state["fc_norm.weight"].double(), state["fc_norm.bias"].double()
    expected = nn.functional.layer_norm(tokens.mean(1), (width,), weight, bias, 1e-6)
    assert torch.allclose(opened(file).extract(clips)["pool"].double(), expected, atol=1e-6)


def test_the_published_network_has_the_sizes_that_its_authors_print():
    with torch.device("meta"):
        network = VideoMAE(videomae_network.GIANT)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(1011e6, rel=1e-3)  # "1B"
    assert network.blocks[0].mlp.fc1.out_features == 6144  # Zhai et al., ViT-g/14
    assert network.grid == 16


def test_clips_are_squashed_to_a_square_without_antialiasing():
    clip = torch.zeros(1, 2, 4, 8, 1, dtype=torch.uint8)
    clip[:, :, :, 4:] = 255
    x = prepared(clip, 4)
    assert x.shape == (1, 3, 2, 4, 4)
    assert torch.equal(x[0, 0, 0, 0], torch.tensor([0.0, 0.0, 1.0, 1.0]))  # the edge stays sharp
    assert torch.equal(prepared(clip[:, :, :, ::2], 4)[0, 2, 1], x[0, 0, 0])


def test_clips_of_an_odd_number_of_frames_are_refused(file, clips):
    with pytest.raises(ValueError, match="VideoMAE needs clips of an even number of frames, not 15"):
        opened(file).extract(clips[:, :15])


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {name: t for name, t in state.items() if name != "blocks.1.attn.v_bias"},
        lambda state: {name: t for name, t in state.items() if name != "fc_norm.bias"},
        lambda state: state | {"blocks.2.norm1.weight": torch.ones(24)},
        lambda state: state | {"patch_embed.proj.weight": torch.ones(24, 3, 2, 4, 4)},
        lambda state: {"module": [1, 2]},
    ],
)
def test_weights_of_another_network_are_refused(state, tmp_path, change):
    torch.save(change(dict(state)), tmp_path / "other.pth")
    with pytest.raises(ValueError, match="is not weights of VideoMAE"):
        opened(tmp_path / "other.pth")


def test_a_file_that_runs_something_when_it_is_read_is_refused(tmp_path):
    class Command:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"module": Command()}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="is not weights of VideoMAE"):
        opened(tmp_path / "bad.pth")


def test_its_metric_states_frames_like_an_fvd_on_i3d():
    (recipe,) = parse(["cdfvd2048_128f_subsample8f"])
    assert (recipe.distance.name, recipe.space, recipe.frames, recipe.stride) == ("cdfvd", VIDEOMAE, 16, 8)
    assert space("videomae") is VIDEOMAE
    with pytest.raises(ValueError, match="state frames, as fvd2048_16f"):
        parse(["cdfvd2048"])
    with pytest.raises(ValueError, match="videomae needs clips of at least 2 frames, a multiple of 2, not 15"):
        parse(["cdfvd2048_15f"])
    with pytest.raises(ValueError, match="i3d needs clips of at least 10 frames, not 8"):
        parse(["fvd2048_64f_subsample8f"])
    with pytest.raises(ValueError, match="cdfvd is defined on videomae features"):
        parse(["cdfvd2048_16f@i3d"])


def test_the_command_scores_clips_and_says_first_where_missing_weights_are_had(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(videomae_network, "GIANT", SMALL)
    generator = np.random.default_rng(2)
    for name in ("fake", "real"):
        np.savez(tmp_path / f"{name}.npz", arr_0=generator.integers(0, 256, (32, 16, 8, 8, 3), dtype=np.uint8))
    arguments = ["--samples", str(tmp_path / "fake.npz"), "--ref", str(tmp_path / "real.npz"), "--bootstrap", "0"]
    arguments += ["--metric", "cdfvd32_16f", "--work-dir", str(tmp_path / "work"), "--weights-dir", str(tmp_path)]
    arguments += ["--records", str(tmp_path / "records.jsonl")]
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "put https://pjlab-gvm-data.oss-cn-shanghai.aliyuncs.com/internvideo/videomaev2/vit_g" in message
    assert f"at {tmp_path / 'vit_g_hybrid_pt_1200e_ssv2_ft.pth'} " in message
    assert "or the file by --videomae-weights" in message
    command.main([*arguments, "--videomae-weights", str(file)])
    record = json.loads((tmp_path / "records.jsonl").read_text())
    assert (record["quantity"], record["workload"]["covariance"]) == ("cdfvd", "population")
    assert record["workload"]["extractor"]["network"] == "VideoMAE V2 ViT-g/14 by OpenGVLab"

    clips = [torch.from_numpy(np.load(tmp_path / f"{name}.npz")["arr_0"]) for name in ("fake", "real")]
    fake, real = (opened(file).extract(each)["pool"].double().numpy() for each in clips)
    roots = np.linalg.eigvals(np.cov(fake.T, ddof=0) @ np.cov(real.T, ddof=0))
    spread = sum(np.trace(np.cov(rows.T, ddof=0)) for rows in (fake, real))
    expected = ((fake.mean(0) - real.mean(0)) ** 2).sum() + spread - 2 * np.sqrt(np.clip(roots.real, 0, None)).sum()
    assert record["value"] == pytest.approx(expected, rel=1e-4)
