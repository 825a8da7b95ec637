"""What is measured: families of denoisers in one skeleton and one size table.

`spec`, `catalogue`, `counterpart` and `register` need no torch; `create_model` and `load_weights` import it when
called.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.families import named, register
from models.spec import ModelSpec, catalogue, counterpart, spec

if TYPE_CHECKING:
    import torch

    from models.denoiser import Denoiser

__all__ = ["ModelSpec", "catalogue", "counterpart", "create_model", "load_weights", "register", "spec"]


def create_model(
    name: str | ModelSpec,
    resolution: int = 256,
    *,
    device: torch.device | str | None = None,
    **overrides: object,
) -> Denoiser:
    """Build a denoiser by its public name, with fields of its ModelSpec overridden: a VideoDenoiser if it has frames.

    `create_model("DiM-XL/2", resolution=512, num_classes=1000, device="meta")`. Raises ValueError for an unknown
    name (with the nearest ones), an unknown field, or a resolution that does not divide into patches.
    """
    import dataclasses

    import torch

    if isinstance(name, str):
        chosen = spec(name, **overrides)
    else:
        chosen = dataclasses.replace(name, **overrides) if overrides else name  # type: ignore[arg-type]
    family = named(chosen.family)
    with torch.device(device or torch.get_default_device()):
        if chosen.frames:
            assert family.skeleton.video_denoiser, chosen  # which a ModelSpec with frames has seen to
            assert family.video_block, chosen
            return family.skeleton.video_denoiser()(chosen, family.video_block(), resolution)
        return family.skeleton.denoiser()(chosen, family.block(), resolution)


def load_weights(
    model: torch.nn.Module, source: str | Path | Mapping[str, torch.Tensor], from_images: bool = False
) -> None:
    """Load a state dict, strictly, from a mapping or a `.pt`, `.pth` or `.safetensors` file.

    With `from_images` a model of video takes those of a model of images: only its table of frame positions, which is
    not learned, stays its own.
    A dict that holds the weights under "ema" (preferred) or "model", as DiT's training script saves it, is unpacked.
    Raises ValueError that names the keys and shapes that differ, or the file that cannot be read.
    """
    state = _read(Path(source)) if isinstance(source, str | Path) else dict(source)
    for key in ("ema", "model"):
        if isinstance(state.get(key), Mapping):
            state = dict(state[key])
            break
    expected = model.state_dict()
    if from_images and "temp_embed" in expected:
        state.setdefault("temp_embed", expected["temp_embed"])
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    reshaped = [
        f"{key} {tuple(state[key].shape)} for {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    if missing or unexpected or reshaped:
        found = [("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped)]
        what = "; ".join(f"{len(keys)} {kind}: {', '.join(map(str, keys[:3]))}" for kind, keys in found if keys)
        raise ValueError(f"these weights are not of this model: {what}")
    model.load_state_dict(state, strict=True)


def _read(path: Path) -> dict[str, Any]:
    import argparse
    import pickle

    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        # DiT's training script keeps its command line in the checkpoint: a plain Namespace, harmless to load.
        with torch.serialization.safe_globals([argparse.Namespace]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"cannot read weights from {path}: {reason}") from error
    if not isinstance(state, dict):
        raise ValueError(f"cannot read weights from {path}: it holds a {type(state).__name__}, not a state dict")
    return state
