"""A command in a forked child: all that it imports is there already, so that a trial takes a fraction of a second."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

TRACEBACK = 70  # exit code of a child that an exception ended
MODULES = {"data": "harness.data.__main__"}
OUT_OF_TIME = -999


@dataclass(frozen=True)
class Outcome:
    """How a child ended: exit code (negative: the signal), what it wrote, and how long it took."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def crashed(self) -> bool:
        return self.code == TRACEBACK or "Traceback (most recent call last)" in self.err

    @property
    def refusal(self) -> str:
        """The last line of a refusal; empty where this is none."""
        lines = [line for line in self.err.strip().splitlines() if line.strip()]
        return lines[-1] if self.code in (1, 2, 75) and lines and not self.crashed else ""


def run(arguments: list[str], directory: Path, kill_after_s: float | None = None, limit_s: float = 120) -> Outcome:
    """Run `harness.<arguments[0]>` on the other arguments, in a folder, as a process of its own.

    The child, and whatever it started, is killed after `kill_after_s`, or when `limit_s` is over.
    """
    out, err = directory / ".out", directory / ".err"
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _be(arguments, directory, out, err)
    code, killed = None, False
    while code is None:
        done, status = os.waitpid(child, os.WNOHANG)
        elapsed = time.monotonic() - start
        if done:
            code = os.waitstatus_to_exitcode(status)
        elif elapsed > (limit_s if kill_after_s is None else kill_after_s) and not killed:
            os.kill(child, signal.SIGKILL)
            killed = True
        else:
            time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it started
    if killed and kill_after_s is None:
        code = OUT_OF_TIME
    texts = [path.read_text(errors="replace") if path.exists() else "" for path in (out, err)]
    for path in (out, err):
        path.unlink(missing_ok=True)
    return Outcome(code, *texts, time.monotonic() - start)


def _be(arguments: list[str], directory: Path, out: Path, err: Path) -> None:
    """What the child does; it never returns."""
    code = TRACEBACK
    try:
        os.setsid()
        os.chdir(directory)
        os.environ["DIM_VS_DIT_HOME"] = str(directory / "home")
        for stream, path in ((sys.stdout, out), (sys.stderr, err)):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(descriptor, stream.fileno())
            os.close(descriptor)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        name, *flags = arguments
        sys.argv = [f"harness.{name}", *flags]
        code = int(importlib.import_module(MODULES.get(name, f"harness.{name}")).main(flags) or 0)
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code & 0xFF)


def warm() -> None:
    """Import what children need. Nothing is computed: a thread pool would not survive the fork."""
    import torch

    torch.set_num_threads(1)
    for name in ("matplotlib.figure", "numba", "pandas", "scipy.stats"):
        importlib.import_module(name)
    for name in ("flops", "bench", "train", "sample", "eval", "tables", "plots", "reproduce", "data"):
        importlib.import_module(MODULES.get(name, f"harness.{name}"))
    for module in (
        "harness.diffusion.fit", "harness.diffusion.generate", "harness.diffusion.album", "harness.cost.extension",
        "harness.cost.memory", "models.families.dim.block", "models.video",
    ):  # fmt: skip
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            continue
