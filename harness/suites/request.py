"""What harness.reproduce is given: which part of which suite, and on what it is carried out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from harness.core.options import check, option
from harness.suites.catalogue import SUITES, suite
from harness.suites.launch import Launch
from harness.suites.plan import CARD_GIB, STAGES, Plan
from harness.suites.rows import PARTS


@dataclass(frozen=True, kw_only=True)
class Request:
    """The fields are the flags. Raises ValueError, naming the field, for impossible values."""

    suite: str = option("digits", "which comparison", choices=SUITES)
    only: tuple[str, ...] = option(PARTS, "parts of the comparison", choices=PARTS)
    run: tuple[str, ...] = option((), "only these runs, by the names of their folders", metavar="NAME")
    stage: tuple[str, ...] = option(STAGES, "stages of the work that are done", choices=STAGES)
    submit: str = option("local", "where the runs are executed", choices=("local", "slurm"))
    max_jobs: int | None = option(None, "runs at a time (default: 1 locally; Slurm's own limit)", least=1)
    nodes: int = option(1, "machines that share a run, in a job of Slurm", least=1, most=100_000)
    gpus_per_node: int = option(0, "GPUs per machine, from Slurm; one process each", least=0, most=1024)
    nproc_per_node: int | None = option(None, "torchrun processes per machine (default: one per GPU, or 1)", least=1)
    card_gib: float = option(CARD_GIB, "memory of a GPU in GiB; a run that needs more recomputes activations, splits "
                             "its batch, then shards the model", least=1)  # fmt: skip
    rehearse: bool = option(False, "run the smallest version of everything on synthetic data, then remove it")
    printed: bool = option(False, "print the commands and what they cost; run nothing", flag="--plan")

    def __post_init__(self) -> None:
        check(self)
        if self.gpus_per_node and self.submit != "slurm" and not self.printed:
            raise ValueError("--gpus-per-node is what Slurm gives: --submit slurm (here, --nproc-per-node)")
        if self.rehearse and (self.printed or self.submit != "local"):
            raise ValueError("--rehearse runs on this machine: without --plan and --submit")

    def plan(self, **places: Any) -> Plan:
        """What it comes to, with the places of a Plan, and as its records have it. Raises ValueError as a plan does."""
        processes = self.nproc_per_node or max(1, self.gpus_per_node)
        whole = Plan(
            suite=suite(self.suite), parts=self.only, stages=self.stage, card_gib=self.card_gib,
            launch=Launch(self.nodes, processes, self.gpus_per_node), **places,
        )  # fmt: skip
        return replace(whole.renewed(), names=self.run)  # runs may be there that a choice has brought
