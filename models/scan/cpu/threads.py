"""Run one compiled function on several threads at once: torch's own, where they can be had.

Two pools of spinning threads on the same cores halve each other's speed, and a scan stands between torch operators. So
on Linux the work goes to the OpenMP runtime that torch itself has loaded, through the entry point that compilers call;
elsewhere, and in a forked child, where OpenMP would wait for threads that did not survive the fork, it goes to Python
threads, which run at the same time since ctypes releases the interpreter lock around a call.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch

_imported_in = os.getpid()


def run(function: Callable[[int], None], data: int, threads: int) -> None:
    """Call function(data), a `void (void *)`, on that many threads at once and wait for all of them."""
    if threads == 1:
        function(data)
    elif os.getpid() == _imported_in and (parallel := torch_parallel()) is not None:
        parallel(function, data, threads, 0)
    else:
        others = [_pool(os.getpid(), threads - 1).submit(function, data) for _ in range(threads - 1)]
        function(data)
        for other in others:
            other.result()


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


@cache
def torch_parallel() -> Callable[..., None] | None:
    """GOMP_parallel(function, data, threads, flags) of torch's own OpenMP runtime; None where there is none."""
    if not hasattr(os, "RTLD_NOLOAD"):
        return None
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        try:  # only a library that is loaded already is torch's own runtime
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        except OSError:
            continue
        parallel = library.GOMP_parallel
        parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        parallel.restype = None
        return parallel
    return None
