"""Checkpoints: written whole or not at all, verified before they are used, the last good one never touched.

`step-0001000.pt` are kept two at a time, `milestone-0001000.pt` for good. Each holds plain tensors and containers:
`format`, `config`, `step`, `model`, `ema`, `optimizer`, `losses` and `spent` (seconds), and where a run keeps several
averages `further_ema`, by decay; random state needs none, being a function of seed and step (harness.core.seeds). The
last line of the file is the digest of its content (harness.diffusion.integrity).
"""

from __future__ import annotations

import re
import warnings
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from harness.core.files import write_atomically
from harness.diffusion.integrity import Sealed, verified
from models import ModelSpec

FORMAT = 1
KEPT = 2
FOR_SAMPLING = ("config", "step", "model", "ema")
FOR_TRAINING = (*FOR_SAMPLING, "optimizer")
FURTHER = "further_ema"


def save(directory: Path, state: dict[str, Any], milestone: bool = False) -> Path:
    """Write a checkpoint, then drop all but the last two rolling ones up to its step.

    Those of later steps stay: they are damaged, or the run would have continued from them. Raises OSError, naming what
    is left.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{'milestone' if milestone else 'step'}-{state['step']:07d}.pt"

    def write(file: Any) -> None:
        sealed = Sealed(file)
        torch.save({"format": FORMAT, **state}, sealed)  # type: ignore[arg-type]
        sealed.seal()

    try:
        write_atomically(path, write)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a failed write into a RuntimeError
        cause = error if isinstance(error, OSError) else error.__context__ or error
        left = find(directory)
        good = f"the last good checkpoint is {left[-1]}" if left else "there is no earlier checkpoint"
        raise OSError(f"cannot write {path}: {cause}; {good}") from error
    rolling = [old for step, old in _numbered(directory, "step") if step <= state["step"]]
    for old in rolling[:-KEPT]:
        old.unlink()
    return path


def find(directory: Path) -> list[Path]:
    """The checkpoints of a run, oldest first, readable or not."""
    return [path for _, path in _numbered(directory, "step|milestone")]


def milestone_of(directory: Path, step: int) -> Path:
    """Where the checkpoint of a step is that is kept for good."""
    return directory / f"milestone-{step:07d}.pt"


def _numbered(directory: Path, kinds: str) -> list[tuple[int, Path]]:
    """The checkpoints whose names begin so, with their steps, in order."""
    named = [(re.fullmatch(rf"(?:{kinds})-(\d+)\.pt", path.name), path) for path in directory.glob("*.pt")]
    return sorted((int(match[1]), path) for match, path in named if match)


def read(path: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """One checkpoint, on the CPU, that holds at least the `needed` entries.

    Raises ValueError, naming the file, when it is damaged, or not one of these.
    """
    verified(path)
    return open_verified(path, needed)


def open_verified(path: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """`read` for a file that has been verified already."""
    state = load(path)
    if state.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of this trainer; for a bare state dict say which --model it is")
    missing = [name for name in needed if name not in state]
    if missing:
        raise ValueError(f"{path} is not a whole checkpoint: it has no {' and no '.join(missing)}")
    if needed:
        _require_config(path, state["config"])
        if not isinstance(state["step"], int):
            raise ValueError(f"{path} is not a whole checkpoint: its step is {state['step']!r}")
        if not isinstance(state.get(FURTHER, {}), dict):
            raise ValueError(f"{path} is not a whole checkpoint: its {FURTHER} are no averages by decay")
    return state


def load(path: Path) -> dict[str, Any]:
    """The dictionary that a file of weights holds, on the CPU. Raises ValueError, naming the file, for any other."""
    try:
        if path.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                return dict(load_file(path))
            except SafetensorError as error:
                raise ValueError(f"it is not a safetensors file ({error})") from error
        # DiT's training script keeps its command line in the checkpoint: a plain Namespace, harmless to load.
        with torch.serialization.safe_globals([Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on foreign files, which are refused in a line
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file can raise anything from inside its reader
        raise ValueError(f"cannot read the checkpoint {path}: {_reason(error)}") from error
    if not isinstance(state, Mapping):
        raise ValueError(f"cannot read the checkpoint {path}: it holds a {type(state).__name__}, not a dictionary")
    return dict(state)


def latest(directory: Path, needed: Sequence[str] = ()) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that is sound, or None where there is none at all.

    Unsound ones are skipped, each named in a warning. Raises ValueError when there are checkpoints and none is sound.
    """
    found = find(directory)
    for path in reversed(found):
        try:
            return path, read(path, needed)
        except ValueError as error:
            warnings.warn(f"skipped: {error}", stacklevel=2)
            reason = error
    if found:
        raise ValueError(f"{reason}; no checkpoint in {directory} is sound: remove them to begin anew") from reason
    return None


def spec_of(config: Mapping[str, Any]) -> ModelSpec:
    """The model of a checkpoint's configuration."""
    return ModelSpec(**config["spec"])


def _require_config(path: Path, config: Any) -> None:
    """Raise ValueError, naming the file, for a configuration that no run writes."""
    try:
        spec_of(config)
        for name in ("resolution", "vae", "classes", "dataset"):
            config[name]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ValueError) and "unknown family" in str(error):
            raise ValueError(
                f"{path}: {_reason(error)}; for a family of yours, start the command from the program that registers it"
            ) from error
        what = f"no {error}" if isinstance(error, KeyError) else _reason(error)
        raise ValueError(f"{path} is not a whole checkpoint: its config is not of this trainer ({what})") from error


def _reason(error: BaseException) -> str:
    """One line without torch's advice to switch its protection off."""
    lines = str(error).splitlines() or [type(error).__name__]
    if isinstance(error, EOFError | KeyError | IndexError):  # of the unpickler, whose text is a byte
        return "it is not a file that torch.save writes"
    if "weights_only" not in str(error) and "Weights only" not in str(error):
        return lines[0]
    refused = re.search(r"Unsupported (?:global|class|operand)[^\n]*|GLOBAL [\w.]+", str(error))
    return f"it holds more than tensors, numbers and texts ({refused[0] if refused else 'not a checkpoint'})"
