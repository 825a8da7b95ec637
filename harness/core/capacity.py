"""What fits into this machine, or a card: sizes are compared before the work, and what cannot fit is refused."""

from __future__ import annotations

import os

GIB = 1 << 30

MARGIN_BYTES = 2 * GIB
"""Of a card's memory, left to what no prediction sees.

The CUDA context with its loaded kernels, 0.5 to 1.3 GiB (a V100's 1.3 in huggingface.co/docs/transformers, "Model
training anatomy"); workspaces of cuBLAS and cuDNN, tens of MiB; what the caching allocator rounds up and cannot join;
and that a driver reports some 0.5 GiB less than a card of 80 GiB is sold with.
"""


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
