"""Run compiled row kernels on a few threads.

Input: a kernel that releases the GIL and works on rows [begin, end). Output: all rows done.
Does not: use Numba's own thread pool, so that it never nests inside the rasteriser's and needs no parallel compilation.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any

import numba

MIN_ROWS = 32
"""Fewer rows than this per thread are not worth a hand-over."""

kernel = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz", "reassoc", "arcp"})
"""Compile a serial kernel that releases the GIL. NaN and infinity keep their meaning."""


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=max(1, thread_count() - 1), thread_name_prefix="polish")


@cache
def thread_count() -> int:
    """Threads that the rasteriser uses too: Numba's setting, at most the cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(numba.get_num_threads(), cores))


def over_rows(run: Callable[..., Any], rows: int, *arguments: Any) -> None:
    """Call ``run(begin, end, *arguments)`` on bands that cover ``rows``, one per thread, and wait for all."""
    bands = max(1, min(thread_count(), rows // MIN_ROWS))
    edges = [rows * i // bands for i in range(bands + 1)]
    pending = [_pool().submit(run, edges[i], edges[i + 1], *arguments) for i in range(1, bands)]
    run(edges[0], edges[1], *arguments)
    wait(pending)
    for job in pending:
        job.result()
