"""The lanes of kills, damage and bad input, in short; `python tests/faults` runs them for as long as you like."""

import subprocess
import sys
from pathlib import Path

import pytest

LANES = Path(__file__).parent / "faults"


@pytest.mark.slow
@pytest.mark.parametrize("lane", [("--kills", "15"), ("--damages", "40"), ("--inputs", "60")], ids=lambda lane: lane[0])
def test_nothing_is_wrong_in_silence(lane):
    others = {"--kills", "--damages", "--inputs"} - {lane[0]}
    command = [sys.executable, str(LANES), *lane, *(part for other in sorted(others) for part in (other, "0"))]
    done = subprocess.run(command, cwd=LANES.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
