"""What fits into this machine: sizes are compared before the work, and what cannot fit is refused."""

from __future__ import annotations

import os

GIB = 1 << 30


def physical_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def require_memory(nbytes: int, what: str, advice: str) -> None:
    """Raise ValueError, with both sizes, when `what` alone takes more memory than this machine has."""
    there = physical_bytes()
    if nbytes > there:
        raise ValueError(
            f"{what} takes {nbytes / GIB:,.0f} GiB of memory, and this machine has {there / GIB:,.0f}; {advice}"
        )
