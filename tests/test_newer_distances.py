"""CMMD, MIND, FDr and FDr6: by their formulas in float64, by hand, and in the order that damage has."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from harness.data.digits import Digits
from harness.metrics import evaluate, panel
from harness.metrics.distances.cmmd import cmmd
from harness.metrics.distances.frechet import frechet_distance
from harness.metrics.distances.mind import mind
from harness.metrics.distances.ratio import VALIDATION_FD
from harness.metrics.features import backbones_network, inception_network
from harness.metrics.features.backbones import PANEL
from harness.metrics.features.extractor import Extractor
from harness.metrics.moments import stream
from harness.metrics.recipes import parse
from harness.metrics.results import Result
from harness.metrics.settings import Extraction, Settings


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


# CMMD


def test_cmmd_is_the_sum_over_all_pairs_written_out(generator):
    x, y = unit(generator.standard_normal((7, 5))), unit(generator.standard_normal((9, 5)))

    def kernel(u, v):
        return math.exp(-sum((float(p) - float(q)) ** 2 for p, q in zip(u, v, strict=True)) / (2 * 10**2))

    def mean(a, b):
        return math.fsum(kernel(u, v) for u in a for v in b) / (len(a) * len(b))

    expected = 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))
    assert cmmd(samples=x, reference=y) == pytest.approx([expected], rel=1e-9)
    assert cmmd(samples=x, reference=x[::-1].copy()) == pytest.approx([0], abs=1e-9)


def test_cmmd_of_two_opposite_points_by_hand():
    x = np.array([[1, 0]], dtype=np.float32)
    assert cmmd(samples=x, reference=-x) == pytest.approx([1000 * (2 - 2 * math.exp(-4 / 200))], rel=1e-12)


def test_a_weighted_cmmd_is_that_of_rows_as_often_and_tiles_change_nothing(generator, monkeypatch):
    x, y = unit(generator.standard_normal((7, 5))), unit(generator.standard_normal((9, 5)))
    often = np.array([2, 0, 1, 1, 0, 3, 0])
    expected = cmmd(samples=np.repeat(x, often, axis=0), reference=y)
    monkeypatch.setattr("harness.metrics.distances.cmmd.TILE", 4)
    weighted = cmmd(samples=x, reference=y, weights=np.stack([often / 7, np.full(7, 1 / 7)]))
    assert weighted == pytest.approx([expected[0], cmmd(samples=x, reference=y)[0]], rel=1e-9)


# MIND


def directions(count, features, seed=2020):
    drawn = torch.randn(count, features, generator=torch.Generator().manual_seed(seed)).double().numpy()
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_mind_is_three_d_times_the_mean_squared_step_between_sorted_projections(generator):
    x, y = (generator.standard_normal((40, 6)).astype(np.float32) + shift for shift in (0, 0.3))
    total = 0.0
    for direction in directions(1000, 6):
        ours, theirs = (sorted(float(np.dot(row, direction)) for row in rows.astype(np.float64)) for rows in (x, y))
        total += sum((p - q) ** 2 for p, q in zip(ours, theirs, strict=True)) / 40
    assert mind(samples=x, reference=y) == pytest.approx([3 * 6 * total / 1000], rel=1e-5)


def test_mind_of_a_shift_is_three_times_its_squared_length(generator):
    """Along a random direction a shift s is (u.s)^2, whose mean is |s|^2 / D: the constant 3 D makes it 3 |s|^2."""
    x, shift = generator.standard_normal((50, 64)).astype(np.float32), generator.standard_normal(64).astype(np.float32)
    (found,) = mind(samples=x + shift, reference=x, directions=4000)
    assert found == pytest.approx(3 * float(shift @ shift), rel=0.05)


def test_of_sets_of_two_sizes_mind_compares_as_many_rows_of_the_larger(generator):
    x, y = generator.standard_normal((30, 4)).astype(np.float32), generator.standard_normal((20, 4)).astype(np.float32)
    chosen = torch.randperm(30, generator=(drawn := torch.Generator().manual_seed(2020)))[:20].numpy()
    u = torch.randn(1000, 4, generator=drawn).double().numpy()
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    steps = np.sort(x[chosen].astype(np.float64) @ u.T, axis=0) - np.sort(y.astype(np.float64) @ u.T, axis=0)
    assert mind(samples=x, reference=y) == pytest.approx([12 * (steps**2).mean()], rel=1e-5)
    value, again, twice = mind(samples=y, reference=x[:20], resamples=[np.arange(20), np.zeros(20, dtype=np.int64)])
    assert (again, twice > value) == (value, True)
    with pytest.raises(ValueError, match="the samples have 4 features, the reference 3"):
        mind(samples=x, reference=y[:, :3])


# On features


def damaged(images, deviation):
    noise = np.random.default_rng(1).normal(0, deviation, images.shape)
    return (images + noise).round().clip(0, 255).astype(np.uint8)


def test_mind_of_real_digits_is_the_floor_and_rises_with_noise_and_lost_classes(tmp_path):
    data = Digits()
    pixels, labels = data.pixels.permute(0, 2, 3, 1).numpy(), data.labels.numpy()
    order = np.random.default_rng(0).permutation(len(labels))
    real, rest = pixels[order[:500]], order[500:]
    kinds = {
        "noise": [damaged(pixels[rest[:500]], deviation) for deviation in (0, 20, 60)],
        "classes": [np.resize(pixels[rest][labels[rest] < classes], (500, 8, 8, 1)) for classes in (10, 6, 2)],
    }
    for kind, sets in kinds.items():
        values = [
            evaluate(
                images, real, ["mind500@digits"], settings=Settings(bootstrap=0, max_duplicates=1),
                extraction=Extraction(work_dir=tmp_path), device="cpu",
            )[0].value
            for images in sets
        ]  # fmt: skip
        assert values == sorted(values), (kind, values)
        assert values[0] < 0.2 * values[-1]


def test_a_paired_distance_reads_as_many_of_the_reference_and_others_what_they_read_without_it(tmp_path, monkeypatch):
    """Precision and recall do not change because MIND is asked for, too."""
    monkeypatch.setattr("harness.metrics.recipes.REFERENCE_ROWS", 300)
    digits = Digits().pixels.permute(0, 2, 3, 1).numpy()
    score = partial(
        evaluate, damaged(digits[:600], 10), digits, settings=Settings(bootstrap=0),
        extraction=Extraction(work_dir=tmp_path), device="cpu",
    )  # fmt: skip
    together = score(["mind600@digits", "pr600@digits", "mind200@digits"])
    alone = [record for name in ("mind600@digits", "pr600@digits", "mind200@digits") for record in score([name])]
    assert [(one.quantity, one.value) for one in together] == [(one.quantity, one.value) for one in alone]
    assert [one.workload["n_reference"] for one in together] == [600, 300, 300, 200]


# The panel


def fake(network, channels, features=24):
    """An extractor whose features are random projections of the pixels, another for each network."""
    seed = sum(map(ord, network))
    weights = torch.randn(channels, features, generator=torch.Generator().manual_seed(seed))

    def extract(images):
        return {"pool": images.flatten(1).float() / 255 @ weights}

    identity = {"network": network, "weights_sha256": f"{seed:064x}", "published_weights": False, "resize": "none"}
    return Extractor(identity | {"dtype": "float32"}, extract)


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """Small stand-ins of the panel's six networks, whose files are there."""
    for name in [*(protocol.network for protocol in PANEL.values()), "inception"]:
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    monkeypatch.setattr(backbones_network, "extractor", lambda protocol, *_: fake(protocol.network, 192))
    monkeypatch.setattr(inception_network, "inception", lambda *_: fake("inception", 192))
    return Extraction(
        weights_dir=tmp_path, inception_weights=tmp_path / "inception.safetensors", work_dir=tmp_path / "work"
    )


def test_the_panel_is_six_ratios_their_mean_and_six_minds_of_one_pass(networks, generator):
    samples, real = (generator.integers(0, high, (200, 8, 8, 3), dtype=np.uint8) for high in (200, 256))
    records = evaluate(samples, real, ["panel200"], settings=Settings(bootstrap=4), extraction=networks, device="cpu")
    found = {record.quantity: record for record in records}
    assert len(found) == 13
    names = {"inception": "inception"} | {name: protocol.network for name, protocol in PANEL.items()}
    published = {"inception": 1.68, "panel-convnextv2": 56.87, "panel-dinov2": 14.19, "panel-mae": 0.04,
                 "panel-siglip2": 0.60, "panel-clip": 5.60}  # fmt: skip
    ratios = []
    for name, network in names.items():
        x, y = (fake(network, 192).extract(torch.from_numpy(images))["pool"].numpy() for images in (samples, real))
        distance = frechet_distance(stream([x]).gaussian(), stream([y]).gaussian()).value
        label = name.replace("-", "_")
        one = found[f"fdr_{label}"]
        assert one.value == pytest.approx(distance / published[name], rel=1e-6)
        assert (one.parts["fd"], one.parts["validation_fd"]) == (pytest.approx(distance, rel=1e-6), published[name])
        minds = found["mind" if name == "inception" else f"mind_{label}"]
        assert minds.value == pytest.approx(mind(samples=x, reference=y)[0], rel=1e-6)
        ratios.append(one)
    whole = found["fdr6"]
    assert whole.value == pytest.approx(sum(one.value for one in ratios) / 6)
    assert (whole.workload["metric"], whole.workload["n_samples"]) == ("panel200", 200)
    assert whole.parts["standard_error"] == pytest.approx(sum(one.parts["standard_error"] for one in ratios) / 6)
    assert "bounds its own" in whole.note
    identities = whole.workload["extractor"]["networks"]
    assert [one["network"] for one in identities] == list(names.values())


def test_five_ratios_have_no_mean(networks, generator):
    images = generator.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    five = [f"fdr20@{name}" for name in PANEL]
    records = evaluate(images, images, five, settings=Settings(bootstrap=0), extraction=networks, device="cpu")
    assert "fdr6" not in {record.quantity for record in records}
    records = evaluate(
        images, images, [*five, "fdr20@inception"], settings=Settings(bootstrap=0), extraction=networks, device="cpu"
    )
    assert [record.value for record in records if record.quantity == "fdr6"] == [pytest.approx(0, abs=1e-6)]


def test_repeats_of_the_panel_are_averaged_repeat_by_repeat():
    def one(space, values):
        result = Result(f"fdr10@{space}", "fdr", float(np.mean(values)), "lower", None, 10, 10, repeats=values)
        return [result], {"extractor": {"weights_sha256": "0", "published_weights": True}}

    ((found,), about), = panel.of([one(space, (k, k + 1.0)) for k, space in enumerate(VALIDATION_FD)])  # fmt: skip
    assert (found.value, found.repeats, found.recipe) == (3.0, (2.5, 3.5), "panel10")
    assert found.error.standard_error == pytest.approx(0.5)
    assert about["extractor"]["published_weights"] is True


def test_networks_that_are_pinned_by_hash_make_the_panel_too():
    found = []
    for space in VALIDATION_FD:
        pinned = space if space == "inception" else f"{space}#1a2b3c4d"
        result = Result(f"fdr10@{pinned}", "fdr", 2.0, "lower", None, 10, 10)
        found.append(([result], {"extractor": {"weights_sha256": "0", "published_weights": True}}))
    (((six,), _),) = panel.of(found)
    assert (six.recipe, six.value) == ("panel10", 2.0)


def test_a_panel_that_lacks_a_file_names_it_before_any_work(networks):
    (networks.weights_dir / "vit_large_patch16_224.mae.safetensors").unlink()
    with pytest.raises(ValueError, match=r"the timm:vit_large_patch16_224\.mae weights are missing"):
        evaluate(np.zeros((4, 8, 8, 3), np.uint8), np.zeros((4, 8, 8, 3), np.uint8), ["panel4"], extraction=networks)


def test_names_of_the_newer_metrics_are_recipes():
    clip, monge, dino = parse(["cmmd30k", "mind5k", "fd50k@timm:vit_large_patch14_dinov2.lvd142m"])
    assert (clip.space.name, clip.space.weights.file) == ("cmmd-clip", "vit_large_patch14_clip_quickgelu_336.openai")
    (own,) = parse([f"fd10k@timm:{clip.space.weights.file}"])
    assert own.space is not clip.space, "a network by its name in timm has that network's own preprocessing"
    assert (monge.space.name, monge.reference_rows, clip.reference_rows) == ("inception", 5000, 30_000)
    assert (dino.count, dino.space.label) == (50_000, "dinov2")
    assert [recipe.name for recipe in parse(["panel2k"])][:3] == [
        "fdr2k@inception", "mind2k@inception", "fdr2k@panel-convnextv2",
    ]  # fmt: skip
