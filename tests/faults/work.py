"""The works that are disturbed: each a command, the files that it reads, and a digest of what it leaves."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from forks import run
from PIL import Image

from harness.core import store

TRAIN = ["--batch", "16", "--checkpoint-every", "3", "--workers", "1", "--device", "cpu"]
DIGITS = ["--preset", "digits", "--model", "DiT-P/2", "--steps", "9", *TRAIN]
MAMBA = ["--preset", "digits", "--model", "DiM-P/2", "--steps", "6", *TRAIN]
CLIPS = ["--preset", "moving-digits", "--model", "DiT-P/4-video", "--steps", "6", *TRAIN]
TREE = ["--preset", "digits", "--data", "tree", "--num-classes", "2", "--resolution", "16", "--model", "DiT-P/2"]
METRICS = ["--metric", "fd32@digits", "is32@digits", "pr32@digits", "--bootstrap", "2", "--device", "cpu"]
DRAW = ["--num-samples", "16", "--steps", "3", "--device", "cpu"]


@dataclass(frozen=True)
class Work:
    """`needs` are fixtures that are copied into the folder of a trial; `reads` are files there that may be damaged."""

    name: str
    command: tuple[str, ...]
    digest: Callable[[Path], str]
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


def weights(folder: Path) -> str:
    """Of the newest checkpoint's weights and average, and of the losses."""
    newest = sorted((folder / "run" / "checkpoints").glob("*.pt"), key=lambda path: path.name.split("-")[-1])[-1]
    state = torch.load(newest, map_location="cpu", weights_only=True)
    total = hashlib.sha256((folder / "run" / "losses.jsonl").read_bytes())
    for part in ("model", "ema"):
        for name, value in state[part].items():
            total.update(name.encode() + value.numpy().tobytes())
    return total.hexdigest()


def pictures(folder: Path) -> str:
    """Of the pixels of all samples, and of the arrays of their npz."""
    total = hashlib.sha256()
    for path in sorted((folder / "samples").rglob("*.png")):
        if path.name != "grid.png":
            with Image.open(path) as image:
                total.update(f"{path.relative_to(folder)} {image.info.get('class')}".encode() + image.tobytes())
    arrays(total, folder / "samples" / "samples.npz")
    return total.hexdigest()


def arrays(total: hashlib._Hash, path: Path) -> None:
    if path.exists():
        with np.load(path) as file:
            for name in sorted(file.files):
                total.update(name.encode() + file[name].tobytes())


def scores(folder: Path) -> str:
    """Of the last value of every quantity."""
    found = {(one.get("metric"), one.quantity): one.value for one in store.load(folder / "records.jsonl")}
    return json.dumps(sorted((*key, value) for key, value in found.items()))


def counts(folder: Path) -> str:
    """Of all records: none lost, none twice."""
    found = [(one.key(), one.value) for one in store.load(folder / "records.jsonl")]
    return hashlib.sha256(repr(found).encode()).hexdigest()


def reference(folder: Path) -> str:
    total = hashlib.sha256()
    arrays(total, folder / "reference.npz")
    return total.hexdigest()


def whole(pattern: str) -> Callable[[Path], str]:
    """Of the bytes of all files of a pattern."""

    def digest(folder: Path) -> str:
        total = hashlib.sha256()
        for path in sorted(folder.glob(pattern)):
            total.update(path.name.encode() + path.read_bytes())
        return total.hexdigest()

    return digest


EVAL = ("--work-dir", "work", "--records", "records.jsonl")
WORKS = [
    Work("train a DiT", ("train", *DIGITS, "--out", "run"), weights, ("half:run",),
         ("run/checkpoints/*.pt", "run/losses.jsonl", "run/config.json")),
    Work("train a DiM", ("train", *MAMBA, "--out", "run"), weights),
    Work("train on clips", ("train", *CLIPS, "--out", "run"), weights),
    Work("train on a tree", ("train", *TREE, "--steps", "4", *TRAIN, "--out", "run"), weights, ("tree",),
         ("tree/*/*.png",)),
    Work("sample images", ("sample", "--ckpt", "run", *DRAW, "--npz", "--out", "samples"), pictures,
         ("run", "samples"), ("run/checkpoints/*.pt", "samples/*.png", "samples/settings.json")),
    Work("sample clips", ("sample", "--ckpt", "clips", "--num-samples", "3", "--steps", "2", "--out", "samples"),
         pictures, ("clips",), ("clips/checkpoints/*.pt",)),
    Work("score an npz", ("eval", "--samples", "samples.npz", *METRICS, *EVAL), scores, ("samples.npz", "work"),
         ("samples.npz", "work/*/*.safetensors", "work/*/key.json")),
    Work("score a folder", ("eval", "--samples", "samples", *[m.replace("32", "16") for m in METRICS], *EVAL), scores,
         ("samples",), ("samples/*.png",)),
    Work("score a checkpoint", ("eval", "--ckpt", "run", "--metric", "fd16@digits", "accuracy16@digits", "--steps", "2",
                                "--bootstrap", "2", *EVAL), scores, ("run",), ("run/checkpoints/*.pt",)),
    Work("score against a reference", ("eval", "--samples", "samples.npz", "--ref", "reference.npz", *METRICS, *EVAL),
         scores, ("samples.npz", "reference.npz"), ("reference.npz",)),
    Work("build a reference", ("eval", "reference", "--data", "digits", "--features", "digits", "--out",
                               "reference.npz", "--work-dir", "work"), reference),
    Work("count", ("flops", "--model", "DiT-P/2", "DiM-P/2", "--res", "64", "--convention", "exact", "thop",
                   "--records", "records.jsonl"), counts),
    Work("predict", ("bench", "--predict", "--model", "DiT-P/2", "--res", "64", "--records", "records.jsonl"), counts),
    Work("tabulate", ("tables", "--table", "7", "--output", "tables"), whole("tables/*")),
    Work("draw", ("plots", "--figure", "guidance", "--output", "figures"), whole("figures/*.svg")),
]  # fmt: skip
BY_NAME = {work.name: work for work in WORKS}


def fixtures(base: Path) -> None:
    """What works read, made once: two runs, one of them stopped half way, samples, an npz, features, a tree."""
    base.mkdir(parents=True, exist_ok=True)
    steps = [
        ("train", *DIGITS, "--out", "run"),
        ("train", *[flag if flag != "9" else "6" for flag in DIGITS], "--out", "half"),
        ("train", *CLIPS, "--out", "clips"),
        ("sample", "--ckpt", "run", *DRAW, "--npz", "--out", "samples"),
        ("sample", "--ckpt", "run", "--num-samples", "32", "--steps", "2", "--npz", "--out", "more", "--device", "cpu"),
        ("eval", "reference", "--data", "digits", "--features", "digits", "--out", "reference.npz", "--work-dir", "w"),
    ]
    for command in steps:
        outcome = run(list(command), base)
        assert outcome.code == 0, f"{' '.join(command)}: {outcome.err}"
    shutil.copy(base / "more" / "samples.npz", base / "samples.npz")
    outcome = run(["eval", "--samples", "samples.npz", *METRICS, *EVAL], base)
    assert outcome.code == 0, outcome.err
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (base / "tree" / name).mkdir(parents=True)
        for number in range(6):
            pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(base / "tree" / name / f"{number}.png")


def prepare(work: Work, base: Path, folder: Path) -> None:
    """A fresh folder of a trial with the fixtures that the work needs; `half:run` is the fixture `half` as `run`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for need in work.needs:
        source, _, name = need.partition(":")
        target = folder / (name or source)
        (shutil.copytree if (base / source).is_dir() else shutil.copy)(base / source, target)


def oracle(base: Path, folder: Path, names: Collection[str]) -> Iterator[tuple[Work, str, float]]:
    """Each of these works undisturbed: its digest, and how long it takes in seconds."""
    for work in [work for work in WORKS if work.name in names]:
        prepare(work, base, folder)
        outcome = run(list(work.command), folder)
        assert outcome.code == 0, f"{work.name}: {outcome.err}"
        yield work, work.digest(folder), outcome.seconds
