"""Where a number comes from: commit, command, versions, device and time."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

from harness.core.paths import CHECKOUT

PACKAGES = (
    "torch", "timm", "thop", "fvcore", "numpy", "numba", "triton", "mamba-ssm",
    "scikit-learn", "scipy", "torch-fidelity", "diffusers",
)  # fmt: skip


@dataclass(frozen=True)
class Provenance:
    """Who computed a number: commit and dirty mark of this package, the command, versions, device, time (UTC)."""

    commit: str | None
    dirty: bool | None
    command: str
    python: str
    versions: dict[str, str]
    device: str
    time: str

    @staticmethod
    def here(device: str = "cpu") -> Provenance:
        """The provenance of this process, now."""
        commit, dirty = _commit()
        return Provenance(
            commit=commit,
            dirty=dirty,
            command=command_line(),
            python=platform.python_version(),
            versions=_versions(),
            device=f"{device}: {processor()}" if device == "cpu" else device,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )


@cache
def _commit() -> tuple[str | None, bool | None]:
    """The commit of this package's own checkout, whatever the working directory, and whether it has been edited."""
    try:
        if Path(_git("rev-parse", "--show-toplevel")) != CHECKOUT:
            return None, None
        commit = _git("rev-parse", "--short=12", "HEAD")
        dirty = bool(_git("status", "--porcelain", "--", "models", "harness", "pyproject.toml"))
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit, dirty


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(CHECKOUT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def command_line() -> str:
    """The command line as it would be typed."""
    main = sys.modules["__main__"]
    module = getattr(getattr(main, "__spec__", None), "name", None)
    program = f"python -m {module.removesuffix('.__main__')}" if module else "python " + Path(sys.argv[0]).name
    return f"{program} {shlex.join(sys.argv[1:])}".strip()


@cache
def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def processor() -> str:
    """The CPU's model name and how many cores this machine has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"
