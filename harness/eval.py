"""Score samples: FID, sFID, IS, precision, recall (the ADM protocol), KID, and FVD; the same command resumes.

    python -m harness.eval --ckpt results/runs/digits-DiM-T-2-seed0 --metric fd1k@digits pr1k@digits is1k@digits
    python -m harness.eval --samples samples.npz --ref VIRTUAL_imagenet256_labeled.npz --metric adm50k
    python -m harness.eval --ckpt results/runs/moving-digits-DiM-U-4-video-seed0 --metric fvd1k@moving-digits
    python -m harness.eval --samples clips/ --ref ucf101/ --split train+test --metric fvd2048_16f
    python -m harness.eval reference --data imagenet/train --ref-resolution 256 --out imagenet256.npz

Under torchrun the same command gives the same numbers. Exit codes: 0 done; 1 the run failed (disk full); 2 bad input.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from harness.core import paths, store
from harness.core.command import Parser, positive
from harness.core.distributed import Ranks, barrier, choose_device, ranks
from harness.core.records import ScoreRecord
from harness.data.clips import ClipProtocol, open_clips
from harness.data.sources import DATASETS, Source, open_images
from harness.diffusion.album import Album
from harness.diffusion.flags import add_sampling_flags, open_sampling
from harness.diffusion.generate import QUANTISER, draw_labels, generate, slots_of
from harness.diffusion.numerics import scan_backend
from harness.diffusion.sample_config import SampleConfig
from harness.diffusion.trained import Trained
from harness.metrics import recipes, references
from harness.metrics.distances.precision_recall import ARITHMETICS
from harness.metrics.evaluation import Settings
from harness.metrics.features.weights import VARIABLE
from harness.metrics.recipes import MAX_DUPLICATES, Recipe
from harness.metrics.records import record
from harness.metrics.shards import extract
from harness.metrics.suite import Scored, Setup, open_extractor, score_clips, score_items
from harness.report.scores import FORMATS, show

RECORDS = paths.measurements() / "eval.jsonl"
WORK = paths.runs() / "eval"


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    building = given[:1] == ["reference"]
    door = reference_parser() if building else parser()
    asked = door.parse_args(given[1:] if building else given)
    try:
        if asked.threads:
            torch.set_num_threads(asked.threads)
        with threadpool_limits(asked.threads), ranks(choose_device(asked.device)) as here:
            if building:
                build(asked, here)
            else:
                score_all(asked, here)
    except ValueError as error:
        door.error(str(error))
    except OSError as error:
        print(f"{door.prog}: {error}", file=sys.stderr)
        return 1
    return 0


def parser() -> Parser:
    door = Parser(prog="python -m harness.eval", description="Score samples; the same command resumes.")
    door.add_argument("--metric", nargs="+", required=True, metavar="NAME", help=f"such as {recipes.EXAMPLES}")
    what = door.add_mutually_exclusive_group(required=True)
    what.add_argument("--ckpt", type=Path, nargs="+", help="sample from each: checkpoint, run directory, state dict")
    what.add_argument("--samples", metavar="WHERE", help="an .npz, or a folder of images, frame folders or videos")
    door.add_argument("--ref", metavar="WHERE", help="an .npz, a folder, a data set (default: what @ names)")
    door.add_argument("--ref-resolution", type=positive, metavar="PX", help="crop and resize a reference folder")
    door.add_argument("--format", choices=FORMATS, default="table")
    door.add_argument("--records", type=Path, default=RECORDS, metavar="FILE", help="default: in results/")
    _add_extraction_flags(door)
    values = door.add_argument_group("how values are computed")
    values.add_argument("--repeats", type=positive, default=1, help="disjoint sets of samples (default: %(default)s)")
    values.add_argument("--bootstrap", type=int, default=20, help="resamples; 0 for none (default: %(default)s)")
    values.add_argument("--metric-seed", type=int, default=0, help="of resampling (default: %(default)s)")
    values.add_argument("--extrapolate", action="store_true", help="also give Fréchet distances at infinite N")
    values.add_argument("--arithmetic", choices=ARITHMETICS, default="fp32", help="of precision and recall")
    values.add_argument("--permute-seed", type=int, help="shuffle before the Inception Score")
    values.add_argument(
        "--max-duplicates", type=float, default=MAX_DUPLICATES, help="share refused above (default: %(default)s)"
    )
    video = door.add_argument_group("video")
    video.add_argument("--split", default="unstated", help="which videos the reference is, for the record")
    video.add_argument("--stride-real", type=positive, help="in frames (default: the metric's)")
    video.add_argument("--stride-fake", type=positive, help="in frames (default: the metric's)")
    video.add_argument("--offset-seed", type=int, default=0, help="of where real clips begin (default: %(default)s)")
    video.add_argument("--covariance", choices=("population", "sample"), default="population", help="of an FVD")
    sampling = door.add_argument_group("sampling, as in harness.sample")
    sampling.add_argument("--save-samples", type=Path, metavar="DIR", help="keep the images, as PNG")
    add_sampling_flags(sampling)
    return door


def reference_parser() -> Parser:
    door = Parser(prog="python -m harness.eval reference", description="Build a reference that ADM's evaluator reads.")
    door.add_argument("--data", required=True, metavar="WHERE", help="a folder, an .npz of images, or a data set")
    door.add_argument("--ref-resolution", type=positive, metavar="PX", help="crop and resize, as ADM does")
    door.add_argument("--features", choices=("inception", "digits"), default="inception")
    door.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    _add_extraction_flags(door)
    return door


def _add_extraction_flags(door: Parser) -> None:
    work = door.add_argument_group("extraction")
    work.add_argument("--inception-weights", type=Path, metavar="FILE", help="instead of the published file")
    work.add_argument("--i3d-weights", type=Path, metavar="FILE", help="instead of the published file")
    work.add_argument("--weights-dir", type=Path, metavar="DIR", help=f"of weights (default: {VARIABLE}, ~/.cache)")
    work.add_argument("--offline", action="store_true", help="never download")
    work.add_argument("--work-dir", type=Path, default=WORK, metavar="DIR", help="of features (default: in results/)")
    work.add_argument("--batch", type=positive, help="items through the network at once (default: the protocol's)")
    work.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    work.add_argument("--threads", type=positive, help="CPU threads a process (default: torch's)")


@dataclass(frozen=True)
class Sampler:
    """A checkpoint as a source of `count` samples: item i is sample i. Those in an `album` are read from there."""

    name: str
    trained: Trained
    config: SampleConfig
    device: torch.device
    album: Album | None
    batch: int
    count: int

    @cached_property
    def labels(self) -> NDArray:
        return draw_labels(self.config, self.count, self.trained.model.spec.num_classes)

    @cached_property
    def identity(self) -> dict[str, object]:
        return {"kind": "samples", **self.settings, "batch": slots_of(self.trained, self.batch, self.device)}

    @property
    def settings(self) -> dict[str, object]:
        """As harness.sample writes them down, so that its folders can be scored and continued."""
        return {**self.trained.origin, **dataclasses.asdict(self.config), "quantiser": QUANTISER}

    @property
    def origin(self) -> dict[str, object]:
        """What the weights and the samples follow from, for the record: settings, where hashes say which bytes."""
        return {
            "step": self.trained.origin.get("step"),
            "training": self.trained.training,
            "sampling": dataclasses.asdict(self.config) | {"weights": self.trained.origin.get("weights")},
            "scan": scan_backend(self.trained.model.spec, self.device),
        }

    @property
    def shape(self) -> tuple[int, ...]:
        return Album.of(self.trained, Path()).shape

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        if self.album is not None:
            return np.stack([self.album.read(index)[0] for index in range(start, stop)])
        alone = Ranks(0, 1, self.device)
        made = generate(self.trained, self.config, range(start, stop), self.batch, alone)
        return np.concatenate([samples.images for samples in made])

    def keep(self, here: Ranks) -> None:
        """Fill the album, this process its share; wait for all."""
        assert self.album is not None
        if here.first:
            self.album.begin(self.settings)
        barrier()
        self.album.fill(self.trained, self.config, self.count, self.batch, here)


def score_all(asked: argparse.Namespace, here: Ranks) -> None:
    """Each checkpoint, or the one set of samples; the first process prints and records."""
    wanted = recipes.parse(asked.metric)
    check(asked, wanted)
    everything: list[ScoreRecord] = []
    for ckpt in asked.ckpt or [None]:
        records = score(argparse.Namespace(**{**vars(asked), "ckpt": ckpt}), wanted, here)
        everything += records
        if here.first and asked.format == "table":
            print(*([ckpt] if ckpt else []), show(records, "table"), sep="\n")
    if here.first and asked.format != "table":
        print(show(everything, asked.format))


def score(asked: argparse.Namespace, wanted: list[Recipe], here: Ranks) -> list[ScoreRecord]:
    """Every recipe, recorded; only the first process gets an answer. Raises ValueError for bad input."""
    on_i3d = [recipe for recipe in wanted if recipe.features == "i3d"]
    others = [recipe for recipe in wanted if recipe.features != "i3d"]
    chosen = setup(asked, here, "sample")
    sampler = open_sampler(asked, wanted, here) if asked.ckpt else None
    scored: list[Scored] = []
    if others:
        source = sampler or open_samples(asked, others)
        for space in dict.fromkeys(recipe.features for recipe in others):
            group = [recipe for recipe in others if recipe.features == space]
            scored += score_items(group, source, asked.ref, chosen, here)
    for recipe in on_i3d:
        protocol = ClipProtocol(
            stride_real=asked.stride_real or recipe.stride,
            stride_fake=asked.stride_fake or recipe.stride,
            split=asked.split,
            offset_seed=asked.offset_seed,
            covariance=asked.covariance,
        )
        samples = sampler or open_clips(asked.samples, recipe.frames, recipe.count, stride=protocol.stride_fake)
        scored += score_clips(recipe, samples, asked.ref, protocol, setup(asked, here, asked.covariance), here)
    records: list[ScoreRecord] = []
    if here.first:
        seed = asked.seed if asked.ckpt else None
        origin = sampler.origin if sampler else {}
        records = [record(result, one.about | origin, chosen, here, seed) for one in scored for result in one.results]
        asked.records.parent.mkdir(parents=True, exist_ok=True)
        store.append(asked.records, records)
    return records


def check(asked: argparse.Namespace, wanted: list[Recipe]) -> None:
    """Raise ValueError for flags that do not fit together, before any work."""
    for recipe in wanted:
        if recipe.needs_reference and not asked.ref and recipe.features not in DATASETS:
            raise ValueError(f"{recipe.name} compares with a reference: give --ref")
    if len({recipe.of_clips for recipe in wanted}) > 1:
        raise ValueError("image and video metrics score different samples: ask for them one at a time")
    if asked.save_samples and not asked.ckpt:
        raise ValueError("--save-samples keeps what --ckpt draws: there is nothing to draw")
    if asked.save_samples and len(asked.ckpt) > 1:
        raise ValueError("--save-samples keeps the samples of one checkpoint: give one --ckpt")
    if asked.bootstrap < 0 or asked.bootstrap == 1:
        raise ValueError(f"--bootstrap must be 0 or at least 2, not {asked.bootstrap}")
    if not 0 <= asked.max_duplicates <= 1:
        raise ValueError(f"--max-duplicates must lie in [0, 1], not {asked.max_duplicates}")


def open_sampler(asked: argparse.Namespace, wanted: list[Recipe], here: Ranks) -> Sampler:
    """The checkpoint, with as many samples as the recipes score. Raises ValueError for images where they score clips.

    Repeats of an FVD on I3D are other real clips, not other samples.
    """
    trained, config = open_sampling(asked, here)
    spec = trained.model.spec
    for recipe in wanted:
        if recipe.of_clips != bool(spec.frames):
            drawn, scored = ("clips", "images") if spec.frames else ("images", "clips")
            raise ValueError(f"{recipe.name} scores {scored}, and {spec.name} draws {drawn}")
        if recipe.frames and (recipe.frames != spec.frames or (asked.stride_fake or recipe.stride) != 1):
            raise ValueError(f"{recipe.name} scores {recipe.frames} frames, and {spec.name} draws {spec.frames}")
    count = max(recipe.count * (1 if recipe.frames else asked.repeats) for recipe in wanted)
    album = Album.of(trained, asked.save_samples) if asked.save_samples else None
    sampler = Sampler(str(asked.ckpt), trained, config, here.device, album, 64, count)
    if album:
        sampler.keep(here)
    return sampler


def open_samples(asked: argparse.Namespace, wanted: list[Recipe]) -> Source:
    """Of `--samples`, images, or clips in their whole length."""
    if not wanted[0].of_clips or asked.samples in DATASETS:
        return open_images(asked.samples)
    return open_clips(asked.samples, None, asked.repeats * max(recipe.count for recipe in wanted))


def setup(asked: argparse.Namespace, here: Ranks, covariance: str) -> Setup:
    settings = Settings(
        bootstrap=asked.bootstrap,
        seed=asked.metric_seed,
        arithmetic=asked.arithmetic,
        permute_seed=asked.permute_seed,
        extrapolate=asked.extrapolate,
        covariance=covariance,
        device=str(here.device),
    )
    return Setup(
        **extraction(asked),
        ref_resolution=asked.ref_resolution,
        repeats=asked.repeats,
        max_duplicates=asked.max_duplicates,
        settings=settings,
    )


def extraction(asked: argparse.Namespace) -> dict[str, Any]:
    files = {"inception": asked.inception_weights, "i3d": asked.i3d_weights}
    return {
        "work_dir": asked.work_dir,
        "weights_dir": asked.weights_dir,
        "weight_files": files,
        "offline": asked.offline,
        "batch": asked.batch,
    }


def build(asked: argparse.Namespace, here: Ranks) -> None:
    """The `reference` verb. Raises ValueError for bad input."""
    if asked.out.suffix != ".npz":
        raise ValueError(f"--out must end in .npz, not {asked.out.name!r}")
    source = open_images(asked.data, asked.ref_resolution)
    assert source.count is not None
    extractor = open_extractor(asked.features, Setup(**extraction(asked)), here)
    features = extract(source, extractor, 0, source.count, asked.work_dir, here, "reference")
    if here.first:
        digest = references.build(source, extractor, features, asked.out)
        print(f"{asked.out}: {source.count} images, sha256 {digest}")


if __name__ == "__main__":
    sys.exit(main())
