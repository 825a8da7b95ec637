"""Commands as child processes: run, logged, ended on request, and one to a directory even when a parent is killed."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from harness.core.paths import CHECKOUT


@dataclass
class Workers:
    """Runs commands as children, and ends them when asked to stop. One directory is worked on by one process."""

    processes: int
    threads: int
    stopped: threading.Event = field(default_factory=threading.Event)
    children: set[subprocess.Popen] = field(default_factory=set)

    def stop(self, *_: object) -> None:
        self.stopped.set()
        for child in list(self.children):
            child.terminate()

    def run(self, command: list[str], log: Path, lock: int) -> str:
        """One command; what it says goes to `log`. Returns "" or why it failed. The child keeps the lock if we die."""
        launcher = [sys.executable]
        if self.processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.processes)]
        count = str(self.threads)
        environment = {"OMP_NUM_THREADS": count, "NUMBA_NUM_THREADS": count, **os.environ}
        with log.open("ab") as file:
            child = subprocess.Popen(
                [*launcher, *command], stdout=file, stderr=subprocess.STDOUT, env=environment, pass_fds=[lock],
                start_new_session=True, cwd=CHECKOUT,
            )  # fmt: skip
            self.children.add(child)
            if self.stopped.is_set():
                child.terminate()
            code = child.wait()
            self.children.discard(child)
        if code == 0 or self.stopped.is_set():
            return ""
        lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
        return f"{shlex.join(command)} ended with {code}: {lines[-1].split(chr(13))[-1]} ({log})"


@contextmanager
def locked(directory: Path, said: str) -> Iterator[int]:
    """The right to work in a directory; waits for a child that an earlier call left behind."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tqdm.write(f"waiting for the process that works on {said}", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
