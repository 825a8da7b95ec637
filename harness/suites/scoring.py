"""What is scored, by which metrics, and where that is recorded: the options of harness.eval, as a value.

Importing this needs no torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core import paths
from harness.core.command import require_writable
from harness.core.options import check, option
from harness.metrics.recipes import EXAMPLES, Recipe, parse

if TYPE_CHECKING:
    from harness.data.sources import Source
    from harness.metrics.evaluation import Evaluation

FORMATS = ("table", "csv", "json")


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """Metrics, and either checkpoints or samples. Raises ValueError for what does not fit together."""

    metric: tuple[str, ...] = option(help=f"such as {EXAMPLES}", metavar="NAME")
    ckpt: tuple[Path, ...] = option((), "sample from each: checkpoint, run directory, state dict")
    samples: str | None = option(
        None, "an .npz, or a folder of images, frame folders or videos, instead of --ckpt", metavar="WHERE"
    )
    ref: str | None = option(None, "an .npz, a folder, a data set (default: the data after @)", metavar="WHERE")
    save_samples: Path | None = option(None, "keep the samples that --ckpt draws, as PNG", metavar="DIR")
    records: Path | None = option(None, "file to append scores to (default: eval.jsonl, among the measurements)")
    format: str = option("table", "format of the output", choices=FORMATS)

    def __post_init__(self) -> None:
        check(self)
        parse(self.metric)
        if bool(self.ckpt) == (self.samples is not None):
            raise ValueError("give what is scored: either --ckpt or --samples")
        if self.save_samples and not self.ckpt:
            raise ValueError("--save-samples keeps what --ckpt draws: there is nothing to draw")
        if self.save_samples and len(self.ckpt) > 1:
            raise ValueError("--save-samples keeps the samples of one checkpoint: give one --ckpt")
        if self.save_samples and self.save_samples.exists() and not self.save_samples.is_dir():
            raise ValueError(f"--save-samples is a folder, and {self.save_samples} is a file")
        if self.records_file.exists() and not self.records_file.is_file():
            what = "a folder" if self.records_file.is_dir() else "not one that keeps what is written"
            raise ValueError(f"--records is a file, and {self.records_file} is {what}")
        for place in (self.records_file, *([self.save_samples] if self.save_samples else [])):
            try:
                require_writable(place)
            except OSError as error:
                raise ValueError(f"cannot write {place}: {error.strerror}") from error

    @property
    def recipes(self) -> list[Recipe]:
        """What the metrics' names mean."""
        return parse(self.metric)

    @property
    def records_file(self) -> Path:
        """Where scores are added."""
        return self.records or paths.measurements() / "eval.jsonl"

    def sources(self, sampling: argparse.Namespace, evaluation: Evaluation) -> Iterator[Source | str]:
        """The samples, or each checkpoint in turn, drawn from as the flags of `sampling` state."""
        if self.samples is not None:
            yield self.samples
        from harness.suites.checkpoint_source import open_checkpoint

        for ckpt in self.ckpt:
            source = open_checkpoint(ckpt, sampling, evaluation)
            evaluation.require(source)
            if self.save_samples:
                yield source.save(self.save_samples)
            elif evaluation.readings > 1:
                with source.kept(evaluation.extraction.directory) as kept:
                    yield kept
            else:
                yield source
