"""Published numbers, reproduced where the published files are. Each test is skipped by name where they are not.

Weights: as for `python -m harness.eval` (DIM_VS_DIT_WEIGHTS, or the user's cache). Sample and reference sets of
github.com/openai/guided-diffusion/tree/main/evaluations: in the folder that DIM_VS_DIT_GOLDEN names.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from harness import eval as command
from harness.metrics.distances.frechet import frechet_distance
from harness.metrics.features import SPACES
from harness.metrics.features.i3d import i3d
from harness.metrics.features.weights import Weights, load_weights, weights_directory
from harness.metrics.moments import stream

TOLERANCE = {"fid": 0.005, "sfid": 0.005, "inception_score": 0.2, "precision": 0.003, "recall": 0.003}
ADM = {  # by OpenAI's TensorFlow evaluator: guided-diffusion's README; the second as reported in its issues
    ("VIRTUAL_imagenet256_labeled.npz", "admnet_guided_upsampled_imagenet256.npz"): {
        "inception_score": 215.8370361328125,
        "fid": 3.9425574129223264,
        "sfid": 6.140433703346162,
        "precision": 0.8265,
        "recall": 0.5309,
    },
    ("VIRTUAL_imagenet128_labeled.npz", "admnet_guided_imagenet128.npz"): {
        "inception_score": 141.4766845703125,
        "fid": 2.9732886821580564,
        "sfid": 5.094563920911128,
        "precision": 0.78138,
        "recall": 0.5929,
    },
}


def weights(space: str) -> Weights:
    entry = SPACES[space].weights
    place = weights_directory() / entry.file
    if not place.is_file():
        pytest.skip(f"no {place}")
    return load_weights(entry, offline=True)


@pytest.mark.parametrize(("reference", "samples"), ADM)
@pytest.mark.parametrize("arithmetic", ["fp32", "adm_fp16"])
def test_adms_own_numbers(reference, samples, arithmetic, tmp_path):
    folder = Path(os.environ.get("DIM_VS_DIT_GOLDEN", "golden"))
    for name in (reference, samples):
        if not (folder / name).is_file():
            pytest.skip(f"no {folder / name}")
    weights("inception")
    pytest.importorskip("torch_fidelity", reason="pip install torch-fidelity")
    records = tmp_path / "records.jsonl"
    what = ["--samples", folder / samples, "--ref", folder / reference, "--metric", "adm50k", "--bootstrap", 0]
    where = ["--records", records, "--work-dir", folder / "features", "--arithmetic", arithmetic]
    assert command.main([str(argument) for argument in (*what, *where)]) == 0
    found = {record["quantity"]: record["value"] for record in map(json.loads, records.read_text().splitlines())}
    for quantity, expected in ADM[reference, samples].items():
        assert found[quantity] == pytest.approx(expected, abs=TOLERANCE[quantity]), quantity


def test_the_video_distance_of_uniform_noise_is_tf_hubs():
    """fvd-comparison: 10.138085 for two sets of 128 clips; fewer clips than features, hence the tolerance."""
    network = torch.jit.load(weights("i3d").open()).eval()

    def features(seed):
        clips = np.random.RandomState(seed).rand(128, 16, 224, 224, 3).astype(np.float32)
        with torch.inference_mode():
            for few in np.split(clips, 32):
                x = torch.from_numpy(few).permute(0, 4, 1, 2, 3)
                yield network(x, rescale=False, resize=False, return_features=True).numpy()

    with pytest.warns(UserWarning, match="128 samples for 400 features"):
        distance = frechet_distance(stream(features(1)).gaussian(), stream(features(2)).gaussian()).value
    assert distance == pytest.approx(10.138085, abs=0.01)


def test_the_video_distance_of_black_from_white():
    """common_metrics_on_video_quality: 151.2565, TF-Hub's 151.392; eight clips of one colour have no covariance."""
    extractor = i3d(weights("i3d"))
    black, white = (
        extractor.extract(torch.full((1, 30, 64, 64, 3), level, dtype=torch.uint8))["pool"].double()
        for level in (0, 255)
    )
    assert ((black - white) ** 2).sum().item() == pytest.approx(151.2565, abs=0.02)
