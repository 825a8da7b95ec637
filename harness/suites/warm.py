"""Workers for many short commands: each begins in a copy of a process that has imported torch and its like already.

What a command does is the same; of seconds that it takes to begin, most are saved. A command is run as in a job of
Slurm (harness.suites.batch), by the module's own `__main__`.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path

from harness.suites.batch import be
from harness.suites.execution import Child, Workers
from harness.suites.launch import Launch
from harness.suites.plan import Command

IMPORTED = (
    "torch", "diffusers.models.autoencoders.autoencoder_kl", "torch_fidelity.feature_extractor_inceptionv3",
    "numba", "scipy.linalg", "matplotlib.pyplot", "pandas", "harness.diffusion.training", "harness.metrics.evaluation",
    "harness.report",
)  # fmt: skip
"""What commands import that takes long; commands themselves are read anew."""
EXIT_CODES = threading.Lock()
"""Held where exit codes may be read: whoever starts a process also reads those of all that have ended.

Each is read from a pipe, once: of two threads that read the same, one would find nothing, and report a failure.
"""


@dataclass(eq=False)
class WarmChild:
    """A command, with the methods of a subprocess.Popen that Workers use."""

    process: multiprocessing.process.BaseProcess

    def wait(self) -> int:
        """The exit code, once it has ended."""
        connection.wait([self.process.sentinel])
        with EXIT_CODES:
            self.process.join()
        return self.process.exitcode or 0

    def terminate(self) -> None:
        self.process.terminate()

    def kill(self) -> None:
        self.process.kill()


@dataclass
class WarmWorkers(Workers):
    """Workers of one process a command."""

    def start(self, command: Command, log: Path, lock: int | None, home: Path, launch: Launch) -> Child:
        """Begin a command, as one process. It holds no lock: whoever started it is waited for."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(IMPORTED))
        process = context.Process(target=_be, args=(command[1:], str(log), self.environment(home)))
        with EXIT_CODES:
            process.start()
        return WarmChild(process)


def _be(arguments: list[str], log: str, environment: dict[str, str]) -> None:
    """Be `python -m ARGUMENTS` with this environment, and what it prints in a file."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    import torch

    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))  # which was read when torch was imported
    be(arguments)
