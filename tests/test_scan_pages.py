"""Large pages of the CPU backend's tensors: what range is requested, and that a system that has them gives them."""

import subprocess
import sys
from pathlib import Path

import pytest

from models.scan.cpu.pages import empty, large_page_bytes, whole_pages

MIB = 1 << 20
POLICY = Path("/sys/kernel/mm/transparent_hugepage/enabled")

OF_TENSOR = """
import re
from models.scan.cpu.pages import empty
tensor = empty(64, 1 << 18).fill_(1.0)
mapped = 0
for line in open("/proc/self/smaps"):
    if span := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
        inside = int(span[1], 16) <= tensor.data_ptr() + (8 << 20) < int(span[2], 16)
    elif inside and line.startswith("AnonHugePages:"):
        mapped = int(line.split()[1]) >> 10
print(mapped)
"""


@pytest.mark.parametrize(
    ("address", "length", "expected"),
    [
        (0, 4 * MIB, (0, 4 * MIB)),
        (MIB, 4 * MIB, (2 * MIB, 2 * MIB)),  # the half page at either end is left out
        (2 * MIB + 64, 4 * MIB, (4 * MIB, 2 * MIB)),
        (2 * MIB + 64, 2 * MIB, (4 * MIB, 0)),
        (64, 100, (2 * MIB, 0)),
    ],
)
def test_advice_covers_the_large_pages_that_lie_wholly_within_a_tensor(address, length, expected):
    assert whole_pages(address, length, 2 * MIB) == expected


def test_a_tensor_of_any_size_can_be_written_and_read():
    for shape in ((0,), (3,), (2, 5, 7), (1, 1024, 2304)):
        assert empty(*shape).fill_(2.0).eq(2.0).all()


@pytest.mark.skipif(
    not POLICY.exists() or "[never]" in POLICY.read_text() or not large_page_bytes(), reason="no large pages here"
)
def test_a_large_tensor_lies_on_large_pages():
    run = subprocess.run([sys.executable, "-c", OF_TENSOR], capture_output=True, text=True, check=True)
    assert int(run.stdout) > 0  # MiB of 64: how many depends on what the machine has free
