"""Draw samples from a trained denoiser: the door to harness.diffusion.generate.

    python -m harness.sample --ckpt results/runs/digits-DiM-T-2-seed0 --num-samples 100
    python -m harness.sample --ckpt results/runs/moving-digits-DiM-U-4-video-seed0 --num-samples 20 --npz
    torchrun --nproc-per-node 8 -m harness.sample --ckpt DiT-XL-2-256x256.pt --model DiT-XL/2 --num-samples 50000 --npz

Sample i depends on the seed and i alone. The same command, run again, draws only what is missing or damaged.
Exit codes: 0 done; 1 the run failed (disk full); 2 bad input.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from harness.core.command import Parser, positive
from harness.core.distributed import barrier, choose_device, ranks
from harness.core.provenance import Provenance
from harness.diffusion import sheets
from harness.diffusion.album import Album
from harness.diffusion.fit import scan_backend
from harness.diffusion.flags import add_sampling_flags, open_sampling
from harness.diffusion.generate import CPU_SLOTS, QUANTISER


def parser() -> Parser:
    door = Parser(prog="python -m harness.sample", description="Draw samples; the same command resumes.")
    door.add_argument("--ckpt", type=Path, required=True, help="a checkpoint, a run directory, or a bare state dict")
    door.add_argument("--num-samples", type=positive, default=100, help="default: %(default)s")
    add_sampling_flags(door)
    door.add_argument("--batch", type=positive, default=CPU_SLOTS, help="samples at once (default: %(default)s)")
    door.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    door.add_argument("--npz", action="store_true", help="also pack samples.npz for the ADM evaluation suite")
    door.add_argument("--out", type=Path, help="the samples' folder (default: samples, beside the checkpoints)")
    return door


def default_out(ckpt: Path) -> Path:
    if ckpt.is_dir():
        return ckpt / "samples"
    run = ckpt.parent.parent if ckpt.parent.name == "checkpoints" else ckpt.parent
    return run / f"samples-{ckpt.stem}"


def main(arguments: Sequence[str] | None = None) -> int:
    door = parser()
    asked = door.parse_args(arguments)
    try:
        with ranks(choose_device(asked.device)) as here:
            trained, config = open_sampling(asked, here)
            album = Album.of(trained, asked.out or default_out(asked.ckpt))
            settings = {**trained.origin, **dataclasses.asdict(config), "quantiser": QUANTISER}
            settings["provenance"] = dataclasses.asdict(Provenance.here(str(here.device)))
            scan = scan_backend(trained.model.spec, here.device)
            settings["provenance"] |= {"threads": torch.get_num_threads(), "scan": scan}
            if here.first:
                album.claim(settings)
            barrier()
            album.fill(trained, config, asked.num_samples, asked.batch, here)
            if here.first:
                if asked.npz:
                    print(album.pack_npz(asked.num_samples))
                print(sheets.write_grid(album, asked.num_samples, trained.classes))
                if album.frames:
                    print(sheets.write_animation(album, asked.num_samples, trained.classes))
    except ValueError as error:
        door.error(str(error))
    except OSError as error:
        print(f"{door.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
