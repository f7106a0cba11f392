"""How kernels are compiled, cached and run on many threads.

Input: Python functions. Output: compiled ones, cached on disk beside the package (or in Numba's per-user folder), and
``guard`` to hold while launching. Compilation is announced through the logger when it really happens.
Does not: set environment variables or change the number of threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.metadata
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
from numba.core import event

logger = logging.getLogger(__name__)

# contract allows fused multiply-add, nsz ignores the sign of zero. NaN and infinity keep their meaning: kernels test for them.
_FLAGS = {"contract", "nsz"}

_setup = threading.Lock()
_ready = False
_thread_safe = False
_launch = threading.RLock()


@functools.cache
def _source_stamp() -> str:
    """Digest of every file the kernels are made from."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in [folder.parent / "constants.py", *sorted(folder.glob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _cached(dispatcher: Any) -> Any:
    """Tie a compiled function's cache to all kernel files.

    Numba ties it to the one file the function stands in, and would keep a kernel whose inlined parts, defined elsewhere, changed.
    """
    file = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if file is not None:
        file._source_stamp = _source_stamp()
    return dispatcher


def kernel(function: Callable) -> Any:
    """Compile a serial kernel that releases the GIL."""
    return _cached(numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_FLAGS)(function))


def inlined(function: Callable) -> Any:
    """Compile a small function that is always inlined into its caller."""
    return _cached(numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_FLAGS, forceinline=True)(function))


def exact(function: Callable) -> Any:
    """The same for arithmetic that must come out alike wherever it is inlined: nothing in it is fused or reordered."""
    return _cached(numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)(function))


def parallel(function: Callable) -> Any:
    """Compile a launcher: a ``prange`` over parts that calls serial kernels. Kept small, since parallel compilation is slow."""
    return _cached(numba.njit(cache=True, nogil=True, error_model="numpy", parallel=True)(function))


class _Announcer(event.Listener):
    """Says once that kernels are being compiled."""

    def __init__(self) -> None:
        self._said = False

    def on_start(self, event: Any) -> None:
        dispatcher = (event.data or {}).get("dispatcher")
        module = getattr(getattr(dispatcher, "py_func", None), "__module__", "")
        if not self._said and module.startswith(__name__.rpartition(".")[0]):
            self._said = True
            logger.info("compiling the CPU rasteriser's kernels: about half a minute, once per machine and version")

    def on_end(self, event: Any) -> None:
        pass


def _load_tbb() -> None:
    """Make the TBB library of the ``tbb`` wheel visible to Numba; it lies outside the loader's search path in a venv."""
    try:
        files = importlib.metadata.files("tbb") or []
    except importlib.metadata.PackageNotFoundError:
        return
    names = ("libtbb.so.12", "tbb12.dll", "libtbb.12.dylib")
    for file in files:
        if file.name in names:
            try:
                ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)
            except OSError as error:
                logger.warning("TBB at %s does not load (%s); another threading layer is used", file, error)
            return


@numba.njit(parallel=True, cache=True)
def _probe(values):
    for i in numba.prange(values.size):
        values[i] = i


def prepare() -> str:
    """Start Numba's threads once and return the name of the threading layer."""
    global _ready, _thread_safe
    with _setup:
        if not _ready:
            import numpy as np

            _load_tbb()
            event.register("numba:compile", _Announcer())
            _probe(np.zeros(numba.get_num_threads(), dtype=np.int64))
            _thread_safe = numba.threading_layer() in ("tbb", "omp")
            if not _thread_safe:
                logger.info(
                    "threading layer %s runs one picture at a time; install tbb to draw from many threads", numba.threading_layer()
                )
            _ready = True
    return numba.threading_layer()


@contextlib.contextmanager
def guard() -> Iterator[None]:
    """Hold this around parallel launches: layers that cannot nest or share take turns."""
    prepare()
    if _thread_safe:
        yield
    else:
        with _launch:
            yield


@contextlib.contextmanager
def chunks(size: int) -> Iterator[None]:
    """Hand out ``prange`` work of the launches within in chunks of ``size``, so that slow parts are shared out evenly."""
    before = numba.set_parallel_chunksize(size)
    try:
        yield
    finally:
        numba.set_parallel_chunksize(before)


def machine_features() -> dict[str, bool]:
    """LLVM's features of this machine."""
    return dict(llvm.get_host_cpu_features())


def thread_count() -> int:
    """Threads a launch uses."""
    return numba.get_num_threads()
