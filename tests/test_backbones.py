"""Networks of timm as feature spaces: what they see and give is each source's arithmetic, in float64, by formulas."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from networks import random_backbone
from PIL import Image
from safetensors.numpy import load_file
from torch.nn import functional

from harness.core.distributed import Ranks
from harness.metrics import evaluate
from harness.metrics.features import SPACES, space
from harness.metrics.features.backbones import CMMD, FD_DINOV2, PANEL, Protocol
from harness.metrics.features.backbones_network import extractor, had_at
from harness.metrics.features.extractor import open_extractor
from harness.metrics.features.weights import Weights, load_weights
from harness.metrics.settings import Extraction, Settings

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"depth": 2, "embed_dim": 64, "num_heads": 2}
HERE = Ranks(0, 1, torch.device("cpu"))
PLAIN = "test_vit.r160_in1k"
"""A network of 0.4 M parameters that timm has for tests."""


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 200, 180, 3), dtype=np.uint8)


def opened(protocol, path, **smaller):
    weights = load_weights(space(f"timm:{protocol.network}").weights, path=path)
    return extractor(protocol, weights, "cpu", **smaller)


# The arithmetic of transformers of images, in float64


def layer_norm(x, state, name, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return centred / scale * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def quick_gelu(x):
    return x / (1 + np.exp(-1.702 * x))


def attention(x, state, name, heads):
    images, tokens, width = x.shape
    q, k, v = linear(x, state, f"{name}.qkv").reshape(images, tokens, 3, heads, -1).transpose(2, 0, 3, 1, 4)
    scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(width // heads)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = (weights / weights.sum(-1, keepdims=True)) @ v
    return linear(mixed.transpose(0, 2, 1, 3).reshape(images, tokens, width), state, f"{name}.proj")


def class_token(pixels, state, positions, activation, epsilon):
    """The class token after the last norm: of images (B, 3, H, W), normalised, by a vision transformer (B, D)."""
    kernel = state["patch_embed.proj.weight"]
    patch = kernel.shape[-1]
    images, _, height, width = pixels.shape
    grid = pixels.reshape(images, 3, height // patch, patch, width // patch, patch).transpose(0, 2, 4, 1, 3, 5)
    x = grid.reshape(images, -1, 3 * patch**2) @ kernel.reshape(len(kernel), -1).T
    x = x + state.get("patch_embed.proj.bias", 0)
    x = np.concatenate([np.repeat(state["cls_token"], images, axis=0), x], axis=1) + positions
    if "norm_pre.weight" in state:
        x = layer_norm(x, state, "norm_pre", epsilon)
    for block in (f"blocks.{index}" for index in range(SMALL["depth"])):
        mixed = attention(layer_norm(x, state, f"{block}.norm1", epsilon), state, f"{block}.attn", SMALL["num_heads"])
        x = x + mixed * state.get(f"{block}.ls1.gamma", 1)
        hidden = activation(linear(layer_norm(x, state, f"{block}.norm2", epsilon), state, f"{block}.mlp.fc1"))
        x = x + linear(hidden, state, f"{block}.mlp.fc2") * state.get(f"{block}.ls2.gamma", 1)
    return layer_norm(x, state, "norm", epsilon)[:, 0]


def cubic(places, scale, count):
    """Rows of weights of Keys' cubic, a = -0.75, clamped at the edges: what torch's bicubic is without antialiasing."""
    rows = np.zeros((places, count))
    for place in range(places):
        centre = (place + 0.5) / scale - 0.5
        first = math.floor(centre)
        for tap in range(first - 1, first + 3):
            d, a = abs(centre - tap), -0.75
            near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            rows[place, min(max(tap, 0), count - 1)] += near if d <= 1 else far
    return rows


def float64(path):
    return {name: value.astype(np.float64) for name, value in load_file(path).items()}


def normalised(pictures, mean, std):
    x = np.stack([np.asarray(picture, dtype=np.float64) for picture in pictures]) / 255
    return ((x - mean) / std).transpose(0, 3, 1, 2)


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPENAI = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def test_fd_dinov2_is_the_class_token_at_224_pixels_with_positions_as_dinov2_resizes_them(images, tmp_path):
    """dgm-eval's dinov2.py and DINOv2's interpolate_pos_encoding, by hand."""
    path = random_backbone(tmp_path / "dinov2.safetensors", FD_DINOV2.network, **SMALL)
    found = opened(FD_DINOV2, path, **SMALL).extract(torch.from_numpy(images))["pool"]
    state = float64(path)
    learnt = state["pos_embed"]
    assert learnt.shape == (1, 1 + 37 * 37, 64)
    rows = cubic(16, 16.1 / 37, 37)
    grid = np.einsum("ai,bj,ijd->abd", rows, rows, learnt[0, 1:].reshape(37, 37, 64))
    positions = np.concatenate([learnt[:, :1], grid.reshape(1, 256, 64)], axis=1)
    pictures = [Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC) for image in images]
    expected = class_token(normalised(pictures, *IMAGENET), state, positions, gelu, 1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)
    plain = opened(replace(FD_DINOV2, positions="timm", dynamic=True), path, **SMALL)
    other = plain.extract(torch.from_numpy(images))["pool"]
    assert abs(other.numpy() - expected).max() > 1e-2  # timm's own positions are others


def test_cmmd_reads_clips_projection_at_unit_length_of_the_middle_square_at_336_pixels(images, tmp_path):
    """google-research's io_util.py and embedding.py, and scenic's CLIP, by hand: QuickGELU, no bias of the patches."""
    path = random_backbone(tmp_path / "clip.safetensors", CMMD.network, **SMALL)
    found = opened(CMMD, path, **SMALL).extract(torch.from_numpy(images))["pool"]
    state = float64(path)
    pictures = [
        Image.fromarray(image).crop((0, 10, 180, 190)).resize((336, 336), Image.Resampling.BICUBIC) for image in images
    ]
    token = class_token(normalised(pictures, *OPENAI), state, state["pos_embed"], quick_gelu, 1e-5)
    expected = linear(token, state, "head")
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-6)
    assert found.shape == (2, 768)
    assert timm.get_pretrained_cfg(CMMD.network).input_size == (3, 336, 336)


TRANSFORMERS = {name: SMALL for name in PANEL if name != "panel-convnextv2"}
CONVOLUTIONS = {"panel-convnextv2": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}}


@pytest.mark.parametrize(("name", "smaller"), [*TRANSFORMERS.items(), *CONVOLUTIONS.items()])
def test_the_panel_reads_what_fd_loss_reads(name, smaller, images, tmp_path):
    """FD-loss: antialiased bicubic of [0, 1], padded to patches; class token, attention pool, or plain mean."""
    protocol = PANEL[name]
    path = random_backbone(tmp_path / "x.safetensors", protocol.network, **smaller)
    found = opened(protocol, path, **smaller).extract(torch.from_numpy(images))["pool"]
    sizes = {"panel-convnextv2": 224, "panel-dinov2": 256, "panel-mae": 224, "panel-siglip2": 224, "panel-clip": 256}
    dynamic = {} if name == "panel-convnextv2" else {"dynamic_img_size": True, "dynamic_img_pad": True}
    network = timm.create_model(protocol.network, pretrained=False, num_classes=0, **dynamic, **smaller).eval()
    state = {key: torch.from_numpy(value) for key, value in load_file(path).items()}
    network.load_state_dict({key: value for key, value in state.items() if not key.startswith(("head.fc", "head.w"))
                             and key != "head.bias"})  # fmt: skip
    config = network.pretrained_cfg
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    x = functional.interpolate(x, (sizes[name],) * 2, mode="bicubic", align_corners=False, antialias=True)
    with torch.inference_mode():
        features = network.forward_features((x - mean) / std)
        if features.dim() == 4:
            expected = features.mean(dim=[2, 3])
        else:
            expected = features[:, 0] if network.num_prefix_tokens else network.attn_pool(features)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_any_other_network_sees_what_its_own_configuration_states(images, tmp_path):
    path = random_backbone(tmp_path / f"{PLAIN}.safetensors", PLAIN)
    one = open_extractor(space(f"timm:{PLAIN}"), Extraction(weights_dir=tmp_path), HERE)
    found = one.extract(torch.from_numpy(images))["pool"]
    config = timm.get_pretrained_cfg(PLAIN)
    assert (config.input_size, config.crop_pct, config.interpolation) == ((3, 160, 160), 0.95, "bicubic")
    scaled = [Image.fromarray(i).resize((168, round(168 * 200 / 180 - 0.5)), Image.Resampling.BICUBIC) for i in images]
    top = round((scaled[0].height - 160) / 2)
    pictures = [picture.crop((4, top, 164, top + 160)) for picture in scaled]
    network = timm.create_model(PLAIN, pretrained=False).double().eval()
    network.load_state_dict({name: torch.from_numpy(value) for name, value in float64(path).items()})
    with torch.inference_mode():
        x = torch.from_numpy(normalised(pictures, config.mean, config.std))
        expected = network.forward_features(x)[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert one.identity["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    grey = images[..., :1]
    torch.testing.assert_close(
        one.extract(torch.from_numpy(grey))["pool"], one.extract(torch.from_numpy(grey.repeat(3, -1)))["pool"]
    )


def test_a_state_dict_that_torch_saved_is_the_same_weights(images, tmp_path):
    path = random_backbone(tmp_path / "a.safetensors", PLAIN)
    state = {name: torch.from_numpy(value) for name, value in load_file(path).items()}
    torch.save({"model": state}, tmp_path / "b.pth")
    files = (tmp_path / "a.safetensors", tmp_path / "b.pth")
    first, second = (opened(Protocol(network=PLAIN), file).extract(torch.from_numpy(images)) for file in files)
    assert torch.equal(first["pool"], second["pool"])


# Files of weights


def test_a_missing_file_is_named_with_where_it_is_had_before_any_work(images, tmp_path):
    extraction = Extraction(weights_dir=tmp_path, work_dir=tmp_path / "work")
    with pytest.raises(ValueError, match="are missing") as refused:
        evaluate(images, images, ["fd2@timm:vit_large_patch14_dinov2.lvd142m"], extraction=extraction, device="cpu")
    name = "vit_large_patch14_dinov2.lvd142m"
    assert str(refused.value) == (
        f"the timm:{name} weights are missing: put https://huggingface.co/timm/{name}/resolve/main/model.safetensors "
        f"at {tmp_path}/{name}.safetensors (or name its folder by --weights-dir or DIM_VS_DIT_WEIGHTS, or the file by "
        "--timm-weights)"
    )
    assert not (tmp_path / "work").exists()


def test_every_network_of_a_published_metric_is_one_that_timm_has_weights_of():
    for protocol in (FD_DINOV2, CMMD, *PANEL.values()):
        assert had_at(protocol.network).startswith("https://huggingface.co/timm/")


@pytest.mark.parametrize(
    ("metric", "complaint"),
    [
        (
            "fd2@timm:vit_large_patch14_dinov2",
            r"no network 'vit_large_patch14_dinov2' with weights; nearest: .*\.lvd142m",
        ),
        ("fd2@timm:test_vit.r160_in1k#1a2b", "give 8 to 64 hexadecimal digits"),
        ("fd2@digits#1a2b3c4d", "digits is of one known file: leave out #1a2b3c4d"),
        ("fid2@timm:test_vit.r160_in1k", "is not FID; use fd2@timm:test_vit.r160_in1k"),
        ("cmmd2@timm:test_vit.r160_in1k", "cmmd is defined on cmmd-clip features"),
        ("sfd2@timm:test_vit.r160_in1k", "sfd is defined on efficientnet-lite0 features"),
        ("panel2@digits", "panel is of images, on features of its own, as in panel50k"),
        ("fdr2@efficientnet-lite0", "fdr is defined on panel-convnextv2"),
    ],
)
def test_names_that_mean_nothing_are_refused(metric, complaint, images, tmp_path):
    with pytest.raises(ValueError, match=complaint):
        evaluate(images, images, [metric], extraction=Extraction(weights_dir=tmp_path), device="cpu")


def test_a_file_is_the_one_whose_hash_the_name_states(images, tmp_path):
    path = random_backbone(tmp_path / f"{PLAIN}.safetensors", PLAIN)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    plain, stated = (
        open_extractor(space(f"timm:{PLAIN}{ending}"), Extraction(weights_dir=tmp_path), HERE)
        for ending in ("", f"#{digest[:8]}")
    )
    assert (plain.identity["published_weights"], stated.identity["published_weights"]) == (False, True)
    wrong = space(f"timm:{PLAIN}#{'0' * 8}")
    for extraction in (Extraction(weights_dir=tmp_path), Extraction(timm_weights=path)):
        with pytest.raises(ValueError, match=rf"is not the file of timm:{PLAIN}: its sha256 is {digest}, not 00000000"):
            open_extractor(wrong, extraction, HERE)
    assert space(f"{CLIP}#{digest}").weights.sha256 == digest


CLIP = f"timm:{CMMD.network}"


def test_one_file_is_not_the_weights_of_two_networks(images, tmp_path):
    path = random_backbone(tmp_path / "x.safetensors", PLAIN)
    with pytest.raises(ValueError, match="--timm-weights is the file of one network; these metrics read 2 of timm"):
        evaluate(images, images, [f"fd2@timm:{PLAIN}", "fd2@timm:test_resnet.r160_in1k"],
                 extraction=Extraction(timm_weights=path), device="cpu")  # fmt: skip


class Harm:
    def __reduce__(self):
        return (print, ("unpickled",))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"a": torch.zeros(2)}, "Missing key"),
        ({"a": "text"}, "it holds other things than tensors by name"),
        ([torch.zeros(2)], "it holds other things than tensors by name"),
        (Harm(), "Weights only load failed"),
    ],
)
def test_a_file_of_other_things_is_refused_and_nothing_of_it_is_run(content, reason, capsys):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    weights = Weights(buffer.getvalue(), hashlib.sha256(buffer.getvalue()).hexdigest(), False)
    with pytest.raises(ValueError, match=rf"sha256 {weights.sha256[:8]} is not weights of {PLAIN}: .*({reason})"):
        extractor(Protocol(network=PLAIN), weights, "cpu")
    assert "unpickled" not in capsys.readouterr().out


def test_weights_of_another_network_are_refused(tmp_path):
    path = random_backbone(tmp_path / "x.safetensors", "test_resnet.r160_in1k")
    with pytest.raises(ValueError, match=f"is not weights of {PLAIN}: "):
        opened(Protocol(network=PLAIN), path)


# Scores


def test_scores_are_recorded_with_the_digest_and_do_not_mix_with_those_of_other_weights(tmp_path):
    first, second = (random_backbone(tmp_path / f"{seed}.safetensors", PLAIN, seed) for seed in (0, 1))
    pixels = np.random.default_rng(1).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    values = []
    for path in (first, second, first):
        (record,) = evaluate(
            pixels, pixels[:8], [f"mind8@timm:{PLAIN}"],
            settings=Settings(bootstrap=0), extraction=Extraction(timm_weights=path, work_dir=tmp_path / "work"),
            device="cpu",
        )  # fmt: skip
        assert record.workload["extractor"]["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert record.workload["metric"] == f"mind8@timm:{PLAIN}"
        values.append(record.value)
    assert values[0] == values[2] == pytest.approx(0, abs=1e-6)  # the same eight images


@pytest.mark.filterwarnings("ignore:.*samples for")
def test_distances_rise_with_noise(tmp_path):
    path = random_backbone(tmp_path / "x.safetensors", PLAIN)
    generator = np.random.default_rng(2)
    real, other = (np.kron(generator.integers(40, 216, (60, 4, 4, 3)), np.ones((1, 8, 8, 1))) for _ in range(2))
    found = []
    for deviation in (0, 20, 60):
        noisy = (other + generator.normal(0, deviation, other.shape)).clip(0, 255).astype(np.uint8)
        records = evaluate(
            noisy, real.astype(np.uint8), [f"fd60@timm:{PLAIN}", f"mind60@timm:{PLAIN}"],
            settings=Settings(bootstrap=5), extraction=Extraction(timm_weights=path, work_dir=tmp_path / "work"),
            device="cpu",
        )  # fmt: skip
        assert all(record.parts["standard_error"] > 0 for record in records)
        found.append([record.value for record in records])
    for values in zip(*found, strict=True):
        assert list(values) == sorted(values), values


def test_every_space_by_name_is_the_one_that_is_listed():
    for name, known in SPACES.items():
        assert space(name) is known
    with pytest.raises(ValueError, match="unknown features 'nothing'; choose from inception, cleanfid"):
        space("nothing")
