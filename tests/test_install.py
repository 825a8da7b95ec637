"""A plain install works anywhere: from a folder of the user's, beside a `models.py` of theirs, without the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
THEIRS = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 30 * 30, 10))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling", reason="pip install hatchling")
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out)]
    subprocess.run([*build, str(ROOT)], check=True, cwd=out)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    site = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True)
    return site


@pytest.fixture
def their_folder(tmp_path) -> Path:
    (tmp_path / "models.py").write_text(THEIRS)
    return tmp_path


def command(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "DIM_VS_DIT_HOME"}
    environment |= {"PYTHONPATH": str(installed), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


def test_the_wheel_has_the_published_tables_the_records_and_the_networks(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in ("published/table4_gflops_by_resolution.csv", "measurements/digits.jsonl"):
        assert f"harness/results/{name}" in names
    assert "harness/metrics/features/digits.safetensors" in names
    assert not any(name.startswith(("tests/", "notebooks/")) for name in names)


COMMANDS = {
    "flops": ["harness.flops", "--model", "DiT-S/4", "DiM-S/4", "--res", "256"],
    "flops of their own": ["harness.flops", "--model", "models:net", "--input", "1x3x32x32"],
    "bench": ["harness.bench", "--predict", "--model", "DiT-P/2", "--res", "64"],
    "tables": ["harness.tables", "--table", "5", "7"],
    "plots": ["harness.plots", "--figure", "guidance"],
    "reproduce": ["harness.reproduce", "--suite", "smoke", "--plan"],
    "list": ["harness"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_works_installed(installed, their_folder, name):
    done = command(installed, their_folder, *COMMANDS[name])
    assert done.returncode == 0, done.stderr
    assert str(ROOT) not in done.stdout + done.stderr
    assert {path.name for path in their_folder.iterdir()} <= {"models.py", "output", "__pycache__"}


def test_it_trains_samples_and_scores_installed(installed, their_folder):
    steps = [
        ["harness.train", "--model", "DiT-P/2", "--steps", "4", "--batch", "16", "--out", "run", "--device", "cpu"],
        ["harness.sample", "--ckpt", "run", "--num-samples", "32", "--steps", "2", "--npz", "--device", "cpu"],
        ["harness.eval", "--samples", "run/samples/samples.npz", "--metric", "is32@digits", "--device", "cpu"],
    ]
    for arguments in steps:
        done = command(installed, their_folder, *arguments)
        assert done.returncode == 0, done.stderr
    assert (their_folder / "output" / "measurements" / "eval.jsonl").is_file()
