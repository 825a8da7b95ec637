"""Work that is done ahead of whoever takes its results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

P = TypeVar("P")
R = TypeVar("R")


def ahead(make: Callable[[P], R], parts: Iterable[P], workers: int) -> Generator[R]:
    """`make(part)` for each part, in order, computed ahead by threads (decoders release the interpreter).

    At most two a thread wait to be taken.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for part in parts:
                waiting.append(pool.submit(make, part))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
