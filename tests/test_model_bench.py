"""How fast a block of each family and the counters are on this machine, beside a reference timed in the same run.

    python -m pytest tests/test_model_bench.py --benchmark-only

takes about two minutes and, if every case has run, writes results/benchmarks/model.md and model.json. Not part of the
normal test run. The two sides of a row take turns in one process.
"""

import json
import statistics
import time
from pathlib import Path

import pytest
import torch
from timm.layers import Attention, Mlp
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from harness.core.provenance import Provenance
from harness.cost import analytic, count
from harness.cost.inputs import inputs_of
from models import create_model, spec

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"
COMMAND = "python -m pytest tests/test_model_bench.py --benchmark-only"
TOKENS, WIDTH, ROUNDS = 1024, 1152, 7  # XL at 512 px, patch 2


class PlainBlock(nn.Module):
    """Attention and MLP with residuals and nothing else: what the conditioning of a DiT block is measured against."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn, self.mlp = Attention(WIDTH, 16, qkv_bias=True), Mlp(WIDTH, 4 * WIDTH)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def block(family: str, scan: str = "auto"):
    chosen = create_model(f"{family}-XL/2", depth=1).blocks[0].eval()
    if family == "DiM":
        chosen.mixer.scan_backend = scan
    return chosen


def forward(module, *inputs):
    def call():
        with torch.no_grad():
            module(*inputs)

    return call


def blocks(ours, reference):
    x, c = torch.randn(1, TOKENS, WIDTH), torch.randn(1, WIDTH)
    return forward(ours, x, c), forward(reference, *((x,) if isinstance(reference, PlainBlock) else (x, c)))


def counters():
    model = create_model("DiM-XL/2", device="meta").eval()
    inputs = inputs_of(model.spec, 256, 1, "meta")

    def reference():
        with FlopCounterMode(display=False), torch.no_grad():
            model(*inputs)

    return lambda: count(model, *inputs), reference


CASES = {
    "a DiT block beside attention and MLP alone": lambda: blocks(block("DiT"), PlainBlock().eval()),
    "a DiM block beside the same with the naive scan": lambda: blocks(block("DiM"), block("DiM", "naive")),
    "a DiM block beside a DiT block": lambda: blocks(block("DiM"), block("DiT")),
    "the traced count of DiM-XL/2 beside FlopCounterMode": counters,
    "the closed form of DiM-XL/2 beside the traced count": lambda: (
        lambda: analytic(spec("DiM-XL/2"), 256),
        counters()[0],
    ),
}


@pytest.fixture(scope="module")
def report():
    rows: dict[str, tuple[list[float], list[float]]] = {}
    yield rows
    if len(rows) == len(CASES):
        write(rows)


@pytest.mark.parametrize("what", CASES)
def test_speed(benchmark, report, what):
    torch.manual_seed(0)
    ours, reference = CASES[what]()
    beside: list[float] = []

    def timed_reference():
        start = time.perf_counter()
        reference()
        beside.append(time.perf_counter() - start)

    ours(), reference()
    benchmark.pedantic(ours, setup=timed_reference, rounds=ROUNDS)
    report[what] = list(benchmark.stats.stats.data), beside


def write(rows) -> None:
    here = Provenance.here()
    record = {"command": COMMAND, "commit": here.commit, "device": here.device}
    record |= {"threads": torch.get_num_threads(), "versions": here.versions}
    seconds = [{"what": what, "seconds": ours, "beside": beside} for what, (ours, beside) in rows.items()]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "model.json").write_text(json.dumps({**record, "rounds": seconds}, indent=1) + "\n")
    lines = [
        "# Blocks and counters on a CPU",
        "",
        f"Made by `{COMMAND}` on {here.device}, {torch.get_num_threads()} threads, torch {here.versions['torch']}.",
        f"Blocks are of XL at {TOKENS} tokens, batch 1, forward, fp32. Medians of {ROUNDS} rounds in which the two",
        "sides took turns; model.json has every round. Above 1 the first is the faster.",
        "",
        "| what | ms | ms beside | beside / first |",
        "| --- | ---: | ---: | ---: |",
    ]
    for what, (ours, beside) in rows.items():
        ratio = statistics.median(b / a for a, b in zip(ours, beside, strict=True))
        lines.append(
            f"| {what} | {1e3 * statistics.median(ours):.2f} | {1e3 * statistics.median(beside):.2f} | {ratio:.2f} |"
        )
    (RESULTS / "model.md").write_text("\n".join(lines) + "\n")
