"""How fast a training step is on this machine, beside what it stands in for. Not part of the normal test run:

    python -m pytest tests/test_train_bench.py --benchmark-only

takes some five minutes on an idle machine and, if every case has run, writes train.md and train.json in
results/benchmarks.
Both sides of a comparison run in one process, in turn, so that whatever else the machine does falls on both.
"""

import dataclasses
import json
import statistics
import time
from pathlib import Path

import pytest
import torch
from reference_dit import ReferenceDiT

from harness.core.distributed import Ranks
from harness.core.provenance import Provenance
from harness.data.autoencoder import Identity
from harness.data.digits import Digits
from harness.diffusion.batches import Batch, draw_batch, prefetch
from harness.diffusion.config import PRESETS, Execution
from harness.diffusion.learner import make_step, new_learner
from harness.diffusion.process import linear_schedule, training_loss
from models import create_model

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"
COMMAND = "python -m pytest tests/test_train_bench.py --benchmark-only"
COMPILED = ("DiT-B/4", "DiM-B/4")
CASES = 2 + len(COMPILED)
CPU = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def seconds():
    """Every case's times, by side; written down when all cases have run."""
    taken: dict[str, dict[str, list[float]]] = {}
    yield taken
    if len(taken) == CASES:
        RESULTS.mkdir(parents=True, exist_ok=True)
        here = dataclasses.asdict(Provenance.here())
        record = {**here, "command": COMMAND, "threads": torch.get_num_threads(), "seconds": taken}
        (RESULTS / "train.json").write_text(json.dumps(record, indent=1) + "\n")
        lines = ["| a training step | ours, ms | reference, ms | reference / ours | first, s |", "| --- " * 5 + "|"]
        for case, sides in taken.items():
            ours, reference = (1e3 * statistics.median(sides[side]) for side in ("ours", "reference"))
            cells = (f"{ours:.1f}", f"{reference:.1f}", f"{reference / ours:.3f}", f"{sides['first'][0]:.1f}")
            lines.append(f"| {' | '.join((case, *cells))} |")
        machine = (
            f"Medians, and the first step of ours, of {torch.get_num_threads()} threads on {here['device']}, "
            f"torch {torch.__version__}: `{COMMAND}`"
        )
        (RESULTS / "train.md").write_text("\n".join([machine, "", *lines]) + "\n")


def alternate(benchmark, seconds, case, rounds, **sides):
    """Time `ours` and `reference` in turn; returns the reference's median time over ours: above 1, ours is faster."""
    taken = {name: [] for name in sides}
    first = {name: _seconds(step) for name, step in sides.items()}
    for _ in range(rounds):
        for name, step in sides.items():
            taken[name].append(_seconds(step))
    seconds[case] = {**taken, "first": [first["ours"]]}
    benchmark.pedantic(sides["ours"], rounds=1)
    return statistics.median(taken["reference"]) / statistics.median(taken["ours"])


def _seconds(step):
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def test_the_trainer_s_step_is_as_fast_as_a_loop_by_hand(benchmark, seconds):
    """The whole step, batches included, against the loop that one would write: foreach AdamW, EMA by parameter."""
    config = dataclasses.replace(PRESETS["digits"], model="DiT-T/2", batch=128)
    digits = Digits(8)
    torch.manual_seed(0)
    model = create_model("DiT-T/2", 8, channels=1, downsample=1, num_classes=10)
    twin = create_model("DiT-T/2", 8, channels=1, downsample=1, num_classes=10)
    twin.load_state_dict(model.state_dict())

    execution = Execution()
    learner = new_learner(model, config)
    train_step = make_step(learner, Identity(), config, execution, CPU)
    parts = ((step, range(128)) for step in range(10**6))
    batches = prefetch(lambda s, rows: draw_batch(digits, config, (1, 8, 8), False, s, rows), parts, 2)

    images, labels = digits.load(range(len(digits)), [False] * len(digits))
    schedule = linear_schedule()
    optimizer = torch.optim.AdamW(twin.parameters(), lr=config.learning_rate, weight_decay=0)
    ema = {name: value.detach().clone() for name, value in twin.named_parameters()}
    twin.train()

    def by_hand():
        rows = torch.randint(len(images), (128,))
        x0, y, t = images[rows], labels[rows], torch.randint(1000, (128,))
        loss = training_loss(schedule, lambda x, s: twin(x, s, y), x0, t, torch.randn_like(x0)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for name, value in twin.named_parameters():
                ema[name].mul_(config.ema_decay).add_(value, alpha=1 - config.ema_decay)
        return loss.item()

    ours = lambda: train_step(batches, 0)[0].item()  # noqa: E731
    case = "DiT-T/2 on digits, batch 128, against a loop by hand"
    ratio = alternate(benchmark, seconds, case, 40, ours=ours, reference=by_hand)
    batches.close()
    assert ratio >= 0.97


def test_dit_b4_trains_as_fast_as_the_reference_arrangement(benchmark, seconds):
    model = create_model("DiT-B/4", 256).train()
    reference = ReferenceDiT(model.spec, 256)
    reference.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(0)
    x, t, y = torch.randn(2, 4, 32, 32, generator=generator), torch.tensor([10, 500]), torch.tensor([1, 2])
    noise, schedule = torch.randn(x.shape, generator=generator), linear_schedule()

    def step_of(network):
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0, fused=True)

        def step():
            training_loss(schedule, lambda x, s: network(x, s, y), x, t, noise).mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    with torch.no_grad():
        model.eval(), reference.eval()
        torch.testing.assert_close(model(x, t, y), reference(x, t, y))
        model.train(), reference.train()
    case = "DiT-B/4 at 256, batch 2, against timm's blocks in the reference arrangement"
    ratio = alternate(benchmark, seconds, case, 10, ours=step_of(model), reference=step_of(reference))
    assert ratio >= 0.97, "equal, within the noise of a shared machine"


@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_network_trains_no_slower(benchmark, seconds, name):
    """`--compile` against the same step without; the first step, in which the compiler runs, is stated apart."""
    config = dataclasses.replace(PRESETS["imagenet256"], precision="fp32")
    x, y, t = torch.randn(2, 4, 32, 32), torch.tensor([1, 2]), torch.tensor([10, 500])
    batch = Batch(x, y, torch.zeros(2, dtype=torch.bool), t, torch.randn_like(x), torch.empty(0))

    def step_of(execution):
        torch.manual_seed(0)
        learner = new_learner(create_model(name, 256), config)
        train_step = make_step(learner, Identity(), config, execution, CPU)
        return lambda: train_step(iter([batch]), 0)

    sides = {"ours": step_of(Execution(compile=True)), "reference": step_of(Execution())}
    ratio = alternate(benchmark, seconds, f"{name} at 256, batch 2, `--compile` against eager", 10, **sides)
    assert ratio >= 0.97
