"""Worlds made by processes of their own, where a machine has cores to spare.

Input: a way to begin making. Output: what was made, in no certain order. Does not: know what is made.

Threads would share one interpreter, and numba's plainest way of threading ends a program in which two threads cast rays at once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import numba
import torch

__all__ = ["APART", "made_by_processes", "waiting"]

T = TypeVar("T")
APART = 7919
"""Between the seeds of two makers."""
PATIENCE_S = 10.0
"""Seconds after which, with nothing made, the processes are looked after."""


def made_by_processes(begin: Callable[[int], Callable[[], T]], count: int) -> Generator[T, None, None]:
    """Yield what ``count`` processes make; what they raise is raised here.

    Args:
        begin: called in each process with its number, returns what is then called again and again; can be pickled.

    Raises:
        RuntimeError: a process ended, for want of memory say.
    """
    context = multiprocessing.get_context("spawn")
    ready = context.Queue(maxsize=waiting(count))
    makers = [context.Process(target=produce, args=(begin, number, ready), daemon=True) for number in range(count)]
    for maker in makers:
        maker.start()
    try:
        while True:
            try:
                made = ready.get(timeout=PATIENCE_S)
            except queue.Empty:
                if not all(maker.is_alive() for maker in makers):
                    raise RuntimeError("a process that made worlds has ended; is there enough memory?") from None
                continue
            if isinstance(made, Exception):
                raise made
            yield made
    finally:
        for maker in makers:
            maker.terminate()
        for maker in makers:
            maker.join()


def waiting(count: int) -> int:
    """How many of what so many processes make may wait to be used."""
    return 2 * count


def produce(begin: Callable[[int], Callable[[], Any]], number: int, ready: Any) -> None:
    """What each process does."""
    numba.set_num_threads(1)
    torch.set_num_threads(1)
    with contextlib.suppress(KeyboardInterrupt):
        try:
            make = begin(number)
            while True:
                ready.put(make())
        except Exception as error:
            ready.put(error)
