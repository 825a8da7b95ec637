"""Samples from a checkpoint, as a function of its options: what `python -m harness.sample` calls."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from harness.core.command import require_folder
from harness.core.distributed import Ranks, barrier, choose_device, device_name, exclusively, ranks
from harness.core.provenance import Provenance
from harness.diffusion import sheets
from harness.diffusion.album import Album
from harness.diffusion.generate import QUANTISER
from harness.diffusion.numerics import scan_backend
from harness.diffusion.sample_config import Drawing, SampleConfig, WeightsConfig, check_count
from harness.diffusion.trained import Trained, load_trained


def sample(
    source: Path | str | Trained,
    config: SampleConfig | None = None,
    count: int = 100,
    out: Path | str | None = None,
    *,
    weights: WeightsConfig | None = None,
    drawing: Drawing | None = None,
) -> Album:
    """Draw the first `count` samples of `source` into the folder `out`, with a contact sheet; returns the album.

    `source` is a checkpoint, a run directory, a bare state dict that `weights` describes, or what `load_trained`
    returned. `out` is by default `samples`, beside the checkpoints. Samples that the folder has already, whole, are
    kept, so the same call continues. Under torchrun each process draws its share. Raises ValueError for bad input and
    for a folder of other samples, OSError where nothing can be written.
    """
    config, drawing = config or SampleConfig(), drawing or Drawing()
    loaded = isinstance(source, Trained)
    if loaded and out is None:
        raise ValueError("samples of weights that are in memory have no folder of their own: give out")
    folder = require_folder(Path(out) if out is not None else default_out(Path(str(source))))
    check_count(count)
    with ranks(choose_device(drawing.device)) as here:
        trained = source if isinstance(source, Trained) else load_trained(Path(source), here.device, weights)
        config = trained.resolve(config)
        if drawing.compile:
            trained.model.compile()
        album = Album.of(trained, folder)
        with exclusively(folder, here):
            if here.first:
                made = {**_provenance(trained, here), "compiled": drawing.compile}
                album.begin({**settings_of(trained, config), "provenance": made})
            barrier()
            album.fill(trained, config, count, drawing.batch, here)
            if here.first:
                if drawing.npz:
                    album.pack_npz(count)
                sheets.write_all(album, count, trained.classes)
            barrier()
    return album


def settings_of(trained: Trained, config: SampleConfig) -> dict[str, Any]:
    """What the pixels of samples follow from, as their folder states it."""
    return {**trained.origin, **asdict(config), "quantiser": QUANTISER}


def default_out(ckpt: Path) -> Path:
    """The samples' folder beside the checkpoints."""
    if ckpt.is_dir():
        return ckpt / "samples"
    run = ckpt.parent.parent if ckpt.parent.name == "checkpoints" else ckpt.parent
    return run / f"samples-{ckpt.stem}"


def _provenance(trained: Trained, here: Ranks) -> dict[str, Any]:
    scan = scan_backend(trained.model.spec, here.device)
    return {**asdict(Provenance.here(device_name(here.device))), "threads": torch.get_num_threads(), "scan": scan}
