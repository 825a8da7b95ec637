"""What the whole default command of harness.flops costs beside the import of what it needs, in processor seconds.

    python -m pytest tests/test_flops_bench.py --benchmark-only

takes about a minute. Not part of the normal test run. The two sides take turns, each in a process of its own.
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
REFERENCE = ["-c", "import torch, timm.layers, thop, fvcore.nn"]
ROUNDS = 5
AT_MOST = 1.6  # times the reference's processor seconds
AT_MOST_MORE_MB = 100  # of peak memory, than the reference's


def child(*arguments: str) -> tuple[float, float]:
    """Processor seconds (user and system) and peak memory in MB of a Python process."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def test_the_default_command_costs_little_more_than_its_imports(benchmark, tmp_path):
    command = ["-m", "harness.flops", "--records", str(tmp_path / "records.jsonl")]
    ours: list[tuple[float, float]] = []
    reference: list[tuple[float, float]] = []
    child(*command), child(*REFERENCE)  # files are read once

    benchmark.pedantic(
        lambda: ours.append(child(*command)), setup=lambda: reference.append(child(*REFERENCE)), rounds=ROUNDS
    )
    seconds, megabytes = zip(*ours, strict=True)
    beside, megabytes_beside = zip(*reference, strict=True)
    ratio = statistics.median(a / b for a, b in zip(seconds, beside, strict=True))
    print(f"{statistics.median(seconds):.2f} s of processor, {ratio:.2f} times the imports; {max(megabytes):.0f} MB")
    assert ratio <= AT_MOST
    assert max(megabytes) <= max(megabytes_beside) + AT_MOST_MORE_MB


def test_help_is_there_at_once(benchmark):
    seconds, _ = benchmark.pedantic(lambda: child("-m", "harness.flops", "--help"), rounds=3)
    assert seconds < 0.5
