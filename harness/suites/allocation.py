"""What Slurm gives a job, as flags."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from harness.core.options import check, option


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """What Slurm gives a job; the fields are flags. Raises ValueError, naming the field, for impossible values."""

    time: str = option("1-00:00:00", "time limit of a job; at its end the job is requeued", metavar="[D-]HH:MM:SS")
    partition: str | None = option(None, "Slurm partition (default: the cluster's)", metavar="NAME")
    sbatch: tuple[str, ...] = option((), "other sbatch options, such as account=vision mem=200G", metavar="KEY=VALUE")
    dry_run: bool = option(False, "print the scripts for sbatch; submit nothing")

    def __post_init__(self) -> None:
        check(self)
        if self.minutes < 1:
            raise ValueError(f"time must be at least a minute, not {self.time}")
        for name in (self.partition, *self.sbatch):
            if name is not None and not (name.isprintable() and name):
                raise ValueError(f"an option of sbatch must be one printable line, not {name!r}")
        for setting in self.sbatch:
            if not re.fullmatch(r"[a-z][a-z-]*=.+", setting):
                raise ValueError(f"sbatch takes KEY=VALUE, as in account=vision, not {setting!r}")
        if not re.fullmatch("[1-9][0-9]{0,5}", self.others.get("cpus-per-task", "1")):
            raise ValueError(f"cpus-per-task must be a whole number, not {self.others['cpus-per-task']!r}")

    @property
    def minutes(self) -> int:
        """The limit in whole minutes, from Slurm's ways to write it."""
        match = re.fullmatch(r"(?:(\d{1,3})-)?(\d{1,6})(?::(\d\d))?(?::(\d\d))?", self.time)
        if not match:
            raise ValueError(f"time must be minutes, HH:MM:SS or D-HH:MM:SS, not {self.time!r}")
        days, *rest = (int(part or 0) for part in match.groups())
        hours, minutes, seconds = rest
        if match[1] is None and match[3] is None:  # minutes alone
            hours, minutes = 0, hours
        elif match[1] is None and match[4] is None:  # minutes and seconds, as Slurm reads two numbers
            hours, minutes, seconds = 0, hours, minutes
        return (days * 24 + hours) * 60 + minutes + math.ceil(seconds / 60)

    @property
    def others(self) -> dict[str, str]:
        """The other options of sbatch."""
        return dict(setting.split("=", 1) for setting in self.sbatch)
