"""How a command is started: as one process, or as one a card by torchrun, over the nodes of a Slurm job."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

NODE, JOB, FIRST_NODE = "SLURM_NODEID", "SLURM_JOB_ID", "SLURM_LAUNCH_NODE_IPADDR"
"""What Slurm gives a task: which node of its job this is, the job, and the address of the first node."""
PORTS = range(15_000, 30_000)
"""Where the first node listens, by the job's number: below what a kernel gives away by itself."""


@dataclass(frozen=True)
class Launch:
    """`nodes` machines with `processes` each, and as many cards as are to be requested from Slurm."""

    nodes: int = 1
    processes: int = 1
    gpus: int = 0

    @property
    def world(self) -> int:
        """Processes in all."""
        return self.nodes * self.processes

    @property
    def words(self) -> str:
        """As one would type it, on each node."""
        if self.world == 1:
            return "python"
        nodes = f"--nnodes {self.nodes} --node-rank ${NODE} --master-addr ${FIRST_NODE} " if self.nodes > 1 else ""
        return f"torchrun {nodes}--nproc-per-node {self.processes}"

    def command(self, environment: Mapping[str, str] = os.environ) -> list[str]:
        """What stands before a command on this node. Raises ValueError for many nodes outside of a Slurm job."""
        if self.world == 1:
            return [sys.executable]
        where = ["--standalone"]
        if self.nodes > 1:
            missing = [name for name in (NODE, JOB, FIRST_NODE) if name not in environment]
            if missing:
                raise ValueError(f"--nodes {self.nodes} takes a Slurm job (no {missing[0]} here): --submit slurm")
            port = PORTS[int(environment[JOB]) % len(PORTS)]
            where = ["--nnodes", str(self.nodes), "--node-rank", environment[NODE]]
            where += ["--master-addr", environment[FIRST_NODE], "--master-port", str(port)]
        return [sys.executable, "-m", "torch.distributed.run", *where, "--nproc-per-node", str(self.processes)]


def first_node(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is the only machine, or the first of a Slurm job: the one that claims, draws and reports."""
    return environment.get(NODE, "0") == "0"


def cores(environment: Mapping[str, str] = os.environ) -> int:
    """How many this process may use: those that it is bound to, and no more than Slurm gives its job here."""
    bound = len(os.sched_getaffinity(0))
    return max(1, min(bound, int(environment.get("SLURM_CPUS_ON_NODE", bound))))
