"""How fast the metrics are on this machine, beside what they stand in for. Not part of the normal test run:

    python -m pytest tests/test_metrics_bench.py --benchmark-only

takes some eight minutes and, if every case has run, writes results/benchmarks/metrics.md and metrics.json. Both sides
of a comparison get the same operands and one thread in one process, in turn, and agree before they are timed. What is
measured is CPU time, which with one thread is the time that it would take alone on the machine.
"""

import json
import os
import platform
import statistics
import sys
import time
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from networks import random_inception
from threadpoolctl import threadpool_limits

from harness.core.distributed import Ranks
from harness.core.provenance import Provenance
from harness.data.sources import ArraySource
from harness.metrics.distances.frechet import frechet_distance
from harness.metrics.distances.neighbours import precision_recall
from harness.metrics.features.inception import WEIGHTS
from harness.metrics.features.inception_network import inception
from harness.metrics.features.weights import load_weights
from harness.metrics.moments import Gaussian, of_block, stream
from harness.metrics.statistics import Needs, gather

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"
COMMAND = "python -m pytest tests/test_metrics_bench.py --benchmark-only"
FEATURES = 2048
THREADS = 1
ROUNDS = 3


@cache
def features(count: int, seed: int) -> np.ndarray:
    """(N, 2048) float32, non-negative and correlated, as pooled ReLU features are."""
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((64, FEATURES), dtype=np.float32) / 8
    rows = generator.standard_normal((count, 64), dtype=np.float32) @ mixing
    return np.maximum(rows + generator.standard_normal((count, FEATURES), dtype=np.float32), 0)


# ---- What is compared ------------------------------------------------------------------------------------------------


@cache
def gaussians() -> tuple[Gaussian, Gaussian]:
    return of_block(features(10_000, 0)).gaussian(), of_block(features(10_000, 1) * np.float32(1.1)).gaussian()


def frechet_ours() -> float:
    return frechet_distance(*gaussians()).value


def frechet_scipy() -> float:
    """As ADM, pytorch-fid and clean-fid compute it."""
    a, b = gaussians()
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    return float(((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root))


def frechet_torch_fidelity() -> float:
    """By the eigenvalues of the product, which is not symmetric."""
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    a, b = gaussians()
    theirs = [{"mu": g.mean, "sigma": g.covariance} for g in (a, b)]
    return fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]


def moments_ours() -> float:
    rows = features(20_000, 0)
    batches = (rows[start : start + 64] for start in range(0, len(rows), 64))
    return float(np.trace(stream(batches).gaussian().covariance))


def moments_numpy() -> float:
    """On the whole array, as ADM computes it; its mean is a second pass."""
    rows = features(20_000, 0)
    rows.mean(axis=0)
    return float(np.trace(np.cov(rows, rowvar=False)))


def neighbours_ours() -> float:
    return precision_recall(reference=features(10_000, 0), samples=features(10_000, 1)).precision


def neighbours_products() -> float:
    """The three products of which every distance is made, and nothing else."""
    r, s = (torch.from_numpy(features(10_000, seed)) for seed in (0, 1))
    for u, v in ((r, r), (s, s), (r, s)):
        torch.mm(u, v.T)
    return float("nan")


@cache
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 256, 256, 3), dtype=np.uint8)


@cache
def inception_file() -> Path:
    import tempfile

    return random_inception(Path(tempfile.mkdtemp()) / "inception.pth")


@cache
def our_inception():
    return inception(load_weights(WEIGHTS, path=inception_file()))


@cache
def their_inception():
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    return FeatureExtractorInceptionV3(
        "bench", ["2048", "logits_unbiased"], feature_extractor_weights_path=inception_file()
    )


def extraction_ours() -> float:
    """All three streams, hashed and written to shards."""
    import tempfile

    source = ArraySource("bench", images(), {"kind": "bench"})
    with tempfile.TemporaryDirectory() as where:
        here = Ranks(0, 1, torch.device("cpu"))
        whole = (0, len(images()))
        found = gather(source, our_inception(), {whole: Needs(rows=frozenset(["pool"]))}, Path(where), here)
        return float(found[whole].rows["pool"].mean())


def extraction_torch_fidelity() -> float:
    """Its own loop, with pool and logits; it has no spatial stream."""
    from torch_fidelity.utils import get_featuresdict_from_dataset

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return len(images())

        def __getitem__(self, index):
            return torch.from_numpy(images()[index]).permute(2, 0, 1)

    found = get_featuresdict_from_dataset(Images(), their_inception(), 64, cuda=False, save_cpu_ram=True, verbose=False)
    return float(found["2048"].mean())


COMPARISONS = {
    "Fréchet distance, 2048 features": (frechet_ours, frechet_scipy, "scipy's sqrtm"),
    "Fréchet distance, 2048 features again": (frechet_ours, frechet_torch_fidelity, "torch-fidelity's eigenvalues"),
    "moments of 20,000 x 2048 in batches of 64": (moments_ours, moments_numpy, "np.cov of the whole array"),
    "precision and recall, 10,000 x 10,000 x 2048": (neighbours_ours, neighbours_products, "its three products alone"),
    "Inception on 64 images of 256 x 256": (extraction_ours, extraction_torch_fidelity, "torch-fidelity's loop"),
}


# ---- Measuring and reporting -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report():
    seconds: dict[str, list[tuple[float, float]]] = {}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    with threadpool_limits(THREADS):
        yield seconds
    torch.set_num_threads(before)
    if len(seconds) == len(COMPARISONS):
        write(seconds, load)


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("name", COMPARISONS)
def test_speed(benchmark, report, name):
    pytest.importorskip("torch_fidelity", reason="pip install torch-fidelity")
    ours, theirs, _ = COMPARISONS[name]
    expected = theirs()  # both are warm before they are timed, and agree
    tolerance = 1e-6 if theirs is extraction_torch_fidelity else 1e-8  # float32 in another order
    assert ours() == pytest.approx(expected, rel=tolerance) or np.isnan(expected)
    turns: list[float] = []

    def their_turn():
        began = time.process_time()
        theirs()
        turns.append(time.process_time() - began)

    benchmark.pedantic(ours, setup=their_turn, rounds=ROUNDS)
    report[name] = list(zip(benchmark.stats.stats.data, turns, strict=True))


def write(seconds, load) -> None:
    """The table for readers, and every round for whoever wants to see how much they differ."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    machine = {
        "command": COMMAND,
        "commit": Provenance.here().commit,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": cpu_model(),
        "threads": THREADS,
        "load average before": load,
        "python": platform.python_version(),
        **{package: version_of(package) for package in ("torch", "numpy", "scipy", "torch-fidelity")},
    }
    rounds = {name: {"ours": [a for a, _ in data], "theirs": [b for _, b in data]} for name, data in seconds.items()}
    (RESULTS / "metrics.json").write_text(
        json.dumps({**machine, "seconds": rounds}, indent=1, ensure_ascii=False) + "\n"
    )
    (RESULTS / "metrics.md").write_text(table(seconds, machine))


def table(seconds, machine) -> str:
    rows = []
    for name, data in seconds.items():
        mine, theirs = (statistics.median(column) for column in zip(*data, strict=True))
        ratio = statistics.median(b / a for a, b in data)
        rows.append(
            f"| {name.removesuffix(' again')} | {COMPARISONS[name][2]} | {mine:.2f} | {theirs:.2f} | {ratio:.2f} |"
        )
    lines = [
        "# The metrics on a CPU",
        "",
        f"Made by `{COMMAND}`.",
        "",
        *(f"- {key}: {value}" for key, value in machine.items() if key != "command"),
        "",
        "Each row is of one process, in which the two sides took turns; `times faster` is the median of the rounds'",
        "ratios (metrics.json has every round). For precision and recall 0.67 would be 1.5 times its three products.",
        "CPU seconds of one thread: what else ran on the machine does not enter but by way of the caches.",
        "",
        "| what | beside | CPU seconds | CPU seconds beside | times faster |",
        "|---|---|---:|---:|---:|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def cpu_model() -> str:
    if sys.platform.startswith("linux"):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
