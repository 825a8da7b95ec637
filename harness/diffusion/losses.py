"""Loss and gradient norm of every step: a line each in a run's `losses.jsonl`, and all of them in its checkpoints.

What a checkpoint holds is what the log is made of when a run continues: lines that a killed run wrote beyond it are
dropped, and damaged ones restored.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from harness.core.files import write_atomically


class DivergenceError(FloatingPointError):
    """A loss or a gradient that is not finite."""


class LossLog:
    """The log of one run: loss and gradient norm in turn, from the first step on where these are known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: array[float] | None = array("d")

    def restore(self, step: int, saved: Tensor | None) -> None:
        """Begin at a checkpoint that has done so many steps and holds these losses (step, 2).

        A checkpoint that is older than this log holds none; then the file is believed, whose lines it keeps up to here.
        """
        if saved is not None:
            self.values = array("d", saved.flatten().tolist())
            lines = _lines(self.values, 1)
        else:
            lines, values = self._believed(step)
            self.values = values if len(values) == 2 * step else None
        if lines or self.path.exists():
            write_atomically(self.path, lambda file: file.write("".join(lines).encode()))

    def add(self, losses: Sequence[Sequence[float]], first: int) -> None:
        """Steps from number `first` on: (loss, norm) each."""
        new = array("d", [value for pair in losses for value in pair])
        if self.values is not None:
            self.values += new
        with open(self.path, "a") as file:
            file.writelines(_lines(new, first))

    def saved(self) -> dict[str, Tensor]:
        """What goes into a checkpoint."""
        return {} if self.values is None else {"losses": torch.tensor(self.values, dtype=torch.float64).view(-1, 2)}

    def _believed(self, step: int) -> tuple[list[str], array[float]]:
        """The whole lines of the file up to a step, and their values, as far as no step is missing."""
        lines, values = [], array("d")
        for line in self.path.read_bytes().splitlines() if step and self.path.is_file() else []:
            try:
                entry = json.loads(line)
                number, pair = int(entry["step"]), [float(entry["loss"]), float(entry["gradient_norm"])]
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
            if number <= step:
                lines.append(line.decode() + "\n")
                if number == len(values) // 2 + 1:
                    values.extend(pair)
        return lines, values


def _lines(values: array[float], first: int) -> list[str]:
    pairs = zip(values[::2], values[1::2], strict=True)
    return [
        json.dumps({"step": number, "loss": loss, "gradient_norm": norm}, allow_nan=False) + "\n"
        for number, (loss, norm) in enumerate(pairs, start=first)
    ]
