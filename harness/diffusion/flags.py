"""The flags that say what to sample from and how, shared by every command that draws samples. Imports no torch."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING

from harness.core.options import add_options, from_arguments
from harness.diffusion.sample_config import SampleConfig, WeightsConfig

if TYPE_CHECKING:
    from harness.core.distributed import Ranks
    from harness.diffusion.trained import Trained


def add_sampling_flags(parser: argparse._ActionsContainer) -> None:
    """The fields of WeightsConfig and SampleConfig."""
    add_options(parser, WeightsConfig)
    parser.add_argument(
        "--classes",
        nargs="+",
        default=["uniform"],
        metavar="CLASS",
        help="uniform, balanced, or class numbers in turn (default: uniform)",
    )
    add_options(parser, SampleConfig)


def sampling(given: argparse.Namespace) -> tuple[WeightsConfig, SampleConfig]:
    """What those flags say. Raises ValueError for what is impossible."""
    classes: str | tuple[int, ...] = " ".join(given.classes)
    with suppress(ValueError):
        classes = tuple(int(text) for text in given.classes)
    rest = argparse.Namespace(**{name: value for name, value in vars(given).items() if name != "classes"})
    return from_arguments(WeightsConfig, rest), from_arguments(SampleConfig, rest, classes=classes)


def open_sampling(given: argparse.Namespace, here: Ranks) -> tuple[Trained, SampleConfig]:
    """What the flags and `given.ckpt` name, loaded, with nothing left open. Raises ValueError as both do."""
    weights, config = sampling(given)  # before the slow part, what is impossible
    from harness.diffusion.trained import load_trained

    trained = load_trained(given.ckpt, here.device, weights)
    return trained, trained.resolve(config)
