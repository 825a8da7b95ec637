"""The results store: append-only JSON lines, one Measurement a line, with where it came from.

Schema history (every column is explained in results/README.md):
  1  first.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
VERDICTS = ("ok", "oom", "unsupported", "estimated", "error")
ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
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
            command=_command(),
            python=platform.python_version(),
            versions=_versions(),
            device=f"{device}: {_processor()}" if device == "cpu" else device,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number with its unit, method and origin. `value` is None where there is none to give; `verdict` says why.

    `workload` keys what was asked; `parts` splits the value; `omitted` names what the method
    left out, as shares of the whole.
    """

    quantity: str
    value: float | int | None
    unit: str
    method: str
    workload: dict[str, object]
    provenance: Provenance
    verdict: str = "ok"
    parts: dict[str, float] = field(default_factory=dict)
    omitted: dict[str, float] = field(default_factory=dict)
    samples: list[float] = field(default_factory=list)
    warmups: list[float] = field(default_factory=list)
    seed: int | None = None
    note: str = ""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"unknown verdict {self.verdict!r}; choose from {', '.join(VERDICTS)}")

    def claim(self) -> str:
        """What it says, apart from who said it and when: two runs that agree make the same claim."""
        fields = dataclasses.asdict(self)
        fields["provenance"] = fields["provenance"]["versions"]
        return json.dumps(fields, sort_keys=True)


def append(path: Path, measurements: Iterable[Measurement], *, repeat: bool = True) -> int:
    """Add measurements to a file, each as one line; returns how many were written.

    Safe against a second writer (the file is locked) and against a writer killed in mid-line (the torn line is ended
    before the next begins). With `repeat=False` a claim that the file already holds is not written again: for counts,
    which do not vary. Raises OSError when the file cannot be written; then nothing is.
    """
    measurements = list(measurements)
    if not measurements:
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        known = set() if repeat else {_claim(record) for record in _records(file, path)}
        lines = [json.dumps(dataclasses.asdict(m), ensure_ascii=False) for m in measurements if m.claim() not in known]
        if lines:
            text = "\n".join(lines) + "\n"
            if file.seek(0, os.SEEK_END) and not _ends_with_newline(file):
                text = "\n" + text
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    return len(lines)


def load(*paths: Path) -> pd.DataFrame:
    """All records of the files, or of every *.jsonl of a folder (default: results/measurements), one row each.

    A file's are in the order of writing. The fields of `workload` become columns of their own. A line that is not a
    whole record is skipped with a warning.
    """
    records = []
    for given in paths or (RESULTS / "measurements",):
        for path in sorted(given.glob("*.jsonl")) if given.is_dir() else [given]:
            with path.open("rb") as file:
                records += _records(file, path)
    return _frame(records)


def frame(measurements: Iterable[Measurement]) -> pd.DataFrame:
    """Measurements as `load` would give them back."""
    return _frame([dataclasses.asdict(m) for m in measurements])


def _frame(records: list[dict]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([{**record.pop("workload"), **record} for record in records])


def _records(file, path: Path) -> list[dict]:
    file.seek(0)
    records = []
    for number, line in enumerate(file, start=1):
        try:
            record = json.loads(line)
            record["workload"], record["schema"]
            records.append(record)
        except (ValueError, KeyError, TypeError):
            if line.strip():
                warnings.warn(f"{path}:{number} is not a whole record; skipped", stacklevel=3)
    return records


def _claim(record: dict) -> str:
    return json.dumps({**record, "provenance": record["provenance"]["versions"]}, sort_keys=True)


def _ends_with_newline(file) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


@cache
def _commit() -> tuple[str | None, bool | None]:
    """The commit of this package's own checkout, whatever the working directory, and whether it has been edited."""
    try:
        if Path(_git("rev-parse", "--show-toplevel")) != ROOT:
            return None, None
        commit = _git("rev-parse", "--short=12", "HEAD")
        dirty = bool(_git("status", "--porcelain", "--", "models", "harness", "pyproject.toml"))
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit, dirty


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def _command() -> str:
    main = sys.modules["__main__"]
    module = getattr(getattr(main, "__spec__", None), "name", None)
    program = f"python -m {module}" if module else "python " + Path(sys.argv[0]).name
    return " ".join([program, *sys.argv[1:]])


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
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"
