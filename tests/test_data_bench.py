"""How fast latents are read, in which format, beside what a card's training step needs. Apart from the other tests:

    python -m pytest tests/test_data_bench.py --benchmark-only

takes some minutes on an idle machine and, if every case has run, writes results/benchmarks/data.md and data.json.
Formats are read in turn, in one process, so that whatever else the machine does falls on all of them. Files are in the
page cache: what is measured is the work of reading, not a disk.
"""

import dataclasses
import io
import json
import statistics
import tarfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.core.cards import card
from harness.core.provenance import Provenance
from harness.cost.training import training_macs
from harness.data import latents
from harness.data.ahead import ahead
from harness.data.datasets import order
from harness.data.latents import LatentCache
from harness.diffusion.batches import draw_batch
from harness.diffusion.config import PRESETS
from models import spec

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"
COMMAND = "python -m pytest tests/test_data_bench.py --benchmark-only"
CARD, ARITHMETIC, MFU = "H100", "tf32", 0.4
MODELS = ("DiT-S/4", "DiT-B/4", "DiM-B/4", "DiT-XL/2", "DiM-XL/2")
ITEMS, SIDE, BATCH, ROUNDS, THREADS = 4096, 32, 256, 5, 2
MOMENTS = (2, 8, SIDE, SIDE)
"""Of an image of 256 pixels and of its mirror image."""


def needed(model: str) -> float:
    """Images a second that one card trains at, if it achieves MFU of its peak: two operations a multiply-add."""
    return MFU * card(CARD).flop_per_s[ARITHMETIC] / (2 * training_macs(spec(model), 256))


class Pictures:
    """An image folder of numbers."""

    resolution, classes = 8 * SIDE, ["all"]
    names = tuple(f"{n}" for n in range(ITEMS))
    labels = (0,) * ITEMS

    def __len__(self):
        return ITEMS

    def read_or_skip(self, index):
        return torch.full((1,), float(index))


class Random:
    name, downsample = "random", 8

    def moments(self, images):
        return torch.rand(len(images), *MOMENTS[1:])


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The same moments in each format."""
    root = tmp_path_factory.mktemp("formats")
    latents.SHARD_IMAGES, before = 1024, latents.SHARD_IMAGES
    list(latents.encode(Pictures(), Random(), root / "shards", BATCH))
    latents.SHARD_IMAGES = before
    cache = LatentCache(root / "shards")
    whole = np.lib.format.open_memmap(root / "array.npy", "w+", np.float32, (ITEMS, *MOMENTS))
    (root / "files").mkdir()
    with tarfile.open(root / "items.tar", "w") as tar:
        for index in range(ITEMS):
            both = torch.cat([cache.load([index], [flip])[0] for flip in (False, True)]).numpy()
            whole[index] = both
            np.save(root / "files" / f"{index:08d}.npy", both)
            content = (root / "files" / f"{index:08d}.npy").read_bytes()
            member = tarfile.TarInfo(f"{index:08d}.npy")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    whole.flush()
    return root


def readers(root):
    """By format: a function of indices and flips that gives moments (B, 8, h, w); of the tar, of the next ones."""
    cache, array = LatentCache(root / "shards"), np.load(root / "array.npy", mmap_mode="r")

    def from_array(indices, flips):
        return torch.from_numpy(np.stack([array[i, int(flip)] for i, flip in zip(indices, flips, strict=True)]))

    def from_files(indices, flips):
        found = [np.load(root / "files" / f"{i:08d}.npy")[int(flip)] for i, flip in zip(indices, flips, strict=True)]
        return torch.from_numpy(np.stack(found))

    def members():
        while True:
            with tarfile.open(root / "items.tar", "r|") as tar:
                for member in tar:
                    yield np.load(io.BytesIO(tar.extractfile(member).read()))

    stream = members()

    def from_tar(indices, flips):
        return torch.from_numpy(np.stack([both[int(flip)] for both, flip in zip(stream, flips, strict=False)]))

    return {
        "shards of safetensors, at random (ours)": lambda indices, flips: cache.load(indices, flips)[0],
        "one array of npy, memory-mapped, at random": from_array,
        "a file of npy an item, at random": from_files,
        "a tar of npy (WebDataset), in its order": from_tar,
    }


def rates(sides, count, rounds=ROUNDS):
    """Items a second of each side, in turn; `sides` take `count` items when they are called."""
    taken = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            taken[name].append(count / (time.perf_counter() - began))
    return taken


def draws(count):
    positions = order(ITEMS, 0, range(count))
    return positions, [bool(index % 2) for index in positions]


def test_the_formats_hold_the_same(stored):
    """Part of the normal run of this file's readers: a benchmark of other things would say nothing."""
    found = {name: read(range(64), [False, True] * 32) for name, read in readers(stored).items()}
    first, *rest = found.values()
    assert first.shape == (64, *MOMENTS[1:])
    assert all(torch.equal(first, other) for other in rest)


def test_reading_latents_keeps_up_with_a_card(benchmark, stored):
    indices, flips = draws(BATCH)
    sides = {name: lambda read=read: read(indices, flips) for name, read in readers(stored).items()}
    for side in sides.values():
        side()  # into the page cache
    taken = rates(sides, BATCH)
    cache = LatentCache(stored / "shards")
    config = dataclasses.replace(PRESETS["imagenet256"], batch=BATCH)

    def batch(step):
        return draw_batch(cache, config, (4, SIDE, SIDE), True, step, range(BATCH))

    def batches(workers, count=4):
        for _ in islice(ahead(batch, range(count), workers), count):
            pass

    whole = {f"whole training batches, {n} thread{'s' * (n > 1)}": lambda n=n: batches(n) for n in (1, THREADS)}
    batches(THREADS)
    taken |= rates(whole, 4 * BATCH)
    benchmark.pedantic(batches, args=(THREADS,), rounds=1)

    RESULTS.mkdir(parents=True, exist_ok=True)
    here = dataclasses.asdict(Provenance.here())
    wants = {model: needed(model) for model in MODELS}
    record = {**here, "command": COMMAND, "items_per_s": taken, "needed_items_per_s": wants, "mfu": MFU, "card": CARD}
    (RESULTS / "data.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "data.md").write_text(report(taken, wants, here["device"]))
    best = statistics.median(taken[f"whole training batches, {THREADS} threads"])
    assert best > needed("DiT-XL/2"), "the paper's largest model does not wait for its data, even at two threads"


def report(taken, wants, device):
    lines = [
        f"Latents of images of 256 pixels, 32 KiB each, in batches of {BATCH} from the page cache; medians of {ROUNDS} "
        f"rounds on {device}: `{COMMAND}`",
        "",
        "| read by one thread, but for the last row | items/s | MiB/s |",
        "| --- | --- | --- |",
    ]
    nbytes = 4 * np.prod(MOMENTS[1:])
    for name, values in taken.items():
        rate = statistics.median(values)
        lines.append(f"| {name} | {rate:,.0f} | {rate * nbytes / 2**20:,.0f} |")
    lines += [
        "",
        f"What a card needs that achieves {100 * MFU:.0f} % of an {CARD}'s {ARITHMETIC} peak "
        f"({card(CARD).flop_per_s[ARITHMETIC] / 1e12:.0f} TFLOP/s), from the exact operations of a training step:",
        "",
        "| model at 256 pixels | GFLOP an image | images/s | MiB/s |",
        "| --- | --- | --- | --- |",
    ]
    for model, rate in wants.items():
        gflop = 2 * training_macs(spec(model), 256) / 1e9
        lines.append(f"| {model} | {gflop:,.1f} | {rate:,.0f} | {rate * nbytes / 2**20:,.0f} |")
    return "\n".join(lines) + "\n"


def test_the_need_of_a_card_is_what_hand_arithmetic_says():
    """DiT-XL/2: 118.6 GMACs an image (DiT's Table 4), three times that in training; 0.4 of H100's tf32 peak."""
    assert needed("DiT-XL/2") == pytest.approx(0.4 * 494.7e12 / (2 * 3 * 118.62e9), rel=1e-2)
