"""The bar of long work: on a terminal it moves all the time, in a log it is a line a minute."""

from __future__ import annotations

import re
import sys
from typing import Any

from tqdm import tqdm

LOG_EVERY_S = 60.0
COUNTED = re.compile(r"(\d+)/\d+ \[")
"""How a bar of unscaled items begins what follows its picture: "860/2000 [01:20<..."."""


def progress_bar(total: float, unit: str, description: str, shown: bool = True, **settings: Any) -> tqdm[Any]:
    """A bar with rate and time left. What takes less than LOG_EVERY_S leaves nothing in a log."""
    pace = {} if sys.stderr.isatty() else {"delay": LOG_EVERY_S, "mininterval": LOG_EVERY_S, "maxinterval": LOG_EVERY_S}
    return tqdm(total=total, unit=unit, desc=description, disable=not shown, **pace, **settings)


def counted(log: str) -> int:
    """How many items the bars in a log have counted, one bar after the other."""
    ended = latest = 0
    for count in map(int, COUNTED.findall(log)):
        if count < latest:  # the next bar has begun
            ended += latest
        latest = count
    return ended + latest
