"""The committed samples are what they are declared to be: digits of the requested class."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data.digits import Digits
from harness.metrics.features import classifier, digits_network

SAMPLES = Path(__file__).resolve().parents[1] / "results" / "samples"


@pytest.fixture(scope="module")
def network():
    return digits_network.train()


def accuracy(network, images, labels):
    with torch.inference_mode():
        return (network(classifier.prepare(images, digits_network.SIDE))[1].argmax(1) == labels).float().mean().item()


def test_the_classifier_knows_digits_that_it_has_not_seen(network):
    data, (_, held_out) = Digits(), Digits.split()
    images = data.pixels[held_out].permute(0, 2, 3, 1)
    assert accuracy(network, images, data.labels[held_out]) >= 0.97


@pytest.mark.parametrize("model", ["DiT-T/2", "DiM-T/2"])
def test_the_classifier_sees_the_class_that_was_asked_for_in_95_of_100_samples(network, model):
    folder = SAMPLES / f"digits-{model.replace('/', '-')}"
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["model"] == model
    with np.load(folder / "samples.npz") as archive:
        images, labels = torch.from_numpy(archive["arr_0"]), torch.from_numpy(archive["arr_1"])
    assert len(images) == 500
    assert labels.bincount(minlength=10).min() >= 30
    assert len(images.flatten(1).unique(dim=0)) == 500, "no two samples are the same"
    assert accuracy(network, images, labels) >= 0.95
