"""Score samples: FID, sFID, IS, precision, recall (the ADM protocol), KID, and FVD; the same command resumes.

    python -m harness.eval --ckpt output/runs/digits-DiM-T-2-seed0 --metric fd1k@digits pr1k@digits is1k@digits
    python -m harness.eval --samples samples.npz --ref VIRTUAL_imagenet256_labeled.npz --metric adm50k
    python -m harness.eval --samples clips/ --ref ucf101/ --split train+test --metric fvd2048_16f
    python -m harness.eval reference --data imagenet/train --ref-resolution 256 --out imagenet256.npz

Under torchrun the same command gives the same numbers. Exit codes: 0 done; 1 the run failed (disk full); 2 bad input;
75 stopped by SIGINT: the same command continues.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from harness.core.command import Parser, only_with, run, threads, writable
from harness.core.options import add_options, from_arguments
from harness.metrics import ClipProtocol, Extraction, Settings, space
from harness.metrics.distances.inception_score import INCEPTION_SCORE
from harness.metrics.distances.precision_recall import PRECISION_RECALL
from harness.metrics.recipes import Recipe
from harness.suites.scoring import ScoreRequest


def main(arguments: Sequence[str] | None = None) -> int:
    """Score, or with the verb `reference` build a reference; returns the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    building = given[:1] == ["reference"]
    parser = Parser(prog=f"python -m harness.eval{' reference' * building}", description=__doc__)
    (add_reference_flags if building else add_score_flags)(parser)
    add_options(parser.add_argument_group("extraction"), Extraction)
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    parser.add_argument("--threads", type=threads, help="CPU threads a process (default: torch's)")
    flags, flags_given = parser.parse_args(given[building:]), parser.given(given[building:])
    return run(parser, lambda: build(flags) if building else score(flags, flags_given))


def add_score_flags(parser: Parser) -> None:
    """What is scored, by which metrics, and how."""
    from harness.diffusion.flags import add_sampling_flags

    add_options(parser, ScoreRequest)
    add_options(parser.add_argument_group("how values are computed"), Settings)
    add_options(parser.add_argument_group("clips that are cut from videos"), ClipProtocol)
    add_sampling_flags(parser.add_argument_group("sampling, as in harness.sample"))


def sampling_flags() -> set[str]:
    """The flags that say what is drawn from a checkpoint."""
    from harness.diffusion.flags import add_sampling_flags

    sampling = Parser(add_help=False)
    add_sampling_flags(sampling)
    return sampling.flags()


def add_reference_flags(parser: Parser) -> None:
    """What a reference is built of."""
    parser.add_argument("--data", required=True, metavar="WHERE", help="a folder, an .npz of images, or a data set")
    parser.add_argument("--features", default="inception", metavar="SPACE", help="feature space, as after a metric's @")
    parser.add_argument("--out", type=writable, required=True, metavar="FILE.npz")


def refuse_idle(recipes: Sequence[Recipe], given: set[str]) -> None:
    """Raise ValueError for a flag that changes nothing of these metrics."""
    names = {recipe.distance.name for recipe in recipes}
    compares = any(recipe.needs_reference for recipe in recipes)
    moments = any(recipe.distance.reads == "moments" for recipe in recipes)
    for flag, read, what in (
        ("--ref", compares, "that compare with a reference"),
        ("--ref-resolution", compares, "that compare with a reference"),
        ("--arithmetic", PRECISION_RECALL.name in names, "of precision and recall"),
        ("--permute-seed", INCEPTION_SCORE.name in names, "of the Inception Score"),
        ("--extrapolate", moments, "of the Fréchet distance"),
    ):
        if flag in given and not read:
            raise ValueError(f"{flag} is for metrics {what}; {', '.join(recipe.name for recipe in recipes)} is none")


def score(flags: argparse.Namespace, given: set[str]) -> None:
    """Score each set of samples against one reference; the first process records and prints."""
    if flags.samples is not None:
        only_with("--samples", given & sampling_flags(), not_with=True)
    request, settings = from_arguments(ScoreRequest, flags), from_arguments(Settings, flags)
    refuse_idle(request.recipes, given)
    clips, extraction = from_arguments(ClipProtocol, flags), from_arguments(Extraction, flags)
    if extraction.directory.exists() and not extraction.directory.is_dir():
        raise ValueError(f"--work-dir is a folder, and {extraction.directory} is a file")
    from harness.core.distributed import processes
    from harness.metrics.evaluation import Evaluation
    from harness.report.scores import report

    with processes(flags.device, flags.threads) as here:
        evaluation = Evaluation(request.metric, request.ref, here, settings, clips, extraction)
        scored = (evaluation.of(source) for source in request.sources(flags, evaluation))
        report(scored, request.records_file, request.format, quiet=not here.first)


def build(flags: argparse.Namespace) -> None:
    """Build a reference; the first process writes it."""
    from harness.core.distributed import processes
    from harness.metrics.references import build as build_reference

    extraction = from_arguments(Extraction, flags)
    with processes(flags.device, flags.threads) as here:
        print(build_reference(flags.data, space(flags.features), flags.out, extraction, here), end="")


if __name__ == "__main__":
    sys.exit(main())
