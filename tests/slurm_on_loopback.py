"""A whole Slurm on this machine alone: one controller, several nodes, all on the loopback interface.

    python tests/slurm_on_loopback.py FOLDER --nodes 2      # until Ctrl-C; export SLURM_CONF=FOLDER/slurm.conf

Debian and Ubuntu have it: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge. Nothing of the
machine's own configuration is read or changed, and no account but the caller's is needed.
"""

from __future__ import annotations

import argparse
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")
SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
CORES = 4
CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1,sched_min_interval=0
DefMemPerNode=100
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=60
NodeName=n[1-{nodes}] NodeAddr=127.0.0.1 NodeHostname={host} Port=[{ports[1]}-{ports[2]}] CPUs={cores} RealMemory=1000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
"""A job that was put back waits for cred_expire. CPUs are claimed, not had: one job of four fills a node."""


def missing() -> str:
    """Why there can be no Slurm here, or nothing."""
    absent = [program for program in PROGRAMS if not shutil.which(program, path=SEARCHED)]
    return f"no {', '.join(absent)}: apt-get install slurmctld slurmd slurm-client munge" if absent else ""


class Slurm:
    """Its daemons, with all that they write in `folder`. `environment` lets Slurm's commands find it."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self.folder, self.names = folder, [f"n{number}" for number in range(1, nodes + 1)]
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """All daemons; returns when every node waits for work. Raises TimeoutError when that does not come about."""
        (self.folder / "state").mkdir(parents=True)
        first = _free_ports(len(self.names) + 1)
        filled = CONFIGURATION.format(
            host=socket.gethostname(), user=getpass.getuser(), folder=self.folder, cores=CORES, nodes=len(self.names),
            ports=(first, first + 1, first + len(self.names)),
        )  # fmt: skip
        (self.folder / "slurm.conf").write_text(filled)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        places = {"key-file": key.name, "socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log",
                  "seed-file": "munge.seed"}  # fmt: skip
        flags = [f"--{flag}={self.folder / name}" for flag, name in places.items()]
        self._start("munged", "--foreground", "--force", *flags)
        self.start_controller()
        for name in self.names:
            (self.folder / f"spool-{name}").mkdir()
            self._start("slurmd", "-D", "-N", name)
        self.until(
            lambda: self.ask("sinfo", "--noheader", "--Node", "--format", "%T").split().count("idle") == len(self.names)
        )

    def start_controller(self) -> None:
        """slurmctld, from what it saved."""
        self._start("slurmctld", "-D")

    def kill_controller(self, since: float) -> None:
        """As a machine that loses its power, once it has saved its jobs and its nodes after this time.

        It does so within five seconds of a change; what it has not saved is forgotten.
        """
        for saved in (self.folder / "state" / name for name in ("job_state", "node_state")):
            self.until(lambda saved=saved: saved.exists() and saved.stat().st_mtime > since)
        self.daemons["slurmctld"].kill()
        self.daemons["slurmctld"].wait()

    def stop(self) -> None:
        """All jobs and daemons."""
        for how in (["--signal", "KILL", "--full"], []):
            self.ask("scancel", "--user", getpass.getuser(), *how)
        with suppress(TimeoutError):
            self.until(lambda: not self.ask("squeue", "--noheader"), seconds=20)
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()

    def ask(self, *command: str) -> str:
        """What one of Slurm's commands prints; nothing where it fails."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False).stdout

    def until(self, true: Callable[[], object], seconds: float = 300) -> None:
        """Wait until `true()`. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds} s; {self.folder} has the logs")
            time.sleep(0.1)

    def _start(self, program: str, *arguments: str) -> None:
        command = [shutil.which(program, path=SEARCHED) or program, *arguments]
        with (self.folder / f"{program}.out").open("ab") as out:
            self.daemons[" ".join([program, *arguments[2:3]]) if program == "slurmd" else program] = subprocess.Popen(
                command, env=self.environment, stdout=out, stderr=out, start_new_session=True
            )


def _free_ports(count: int) -> int:
    """The first of so many neighbouring ports that nobody listens on."""
    for first in range(30_000, 32_000, count):
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(closing(socket.socket())).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise OSError("no free ports")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nodes", type=int, default=2)
    given = parser.parse_args()
    if missing():
        sys.exit(missing())
    slurm = Slurm(given.folder.absolute(), given.nodes)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        slurm.start()
        print(f"export SLURM_CONF={slurm.environment['SLURM_CONF']}", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        slurm.stop()


if __name__ == "__main__":
    main()
