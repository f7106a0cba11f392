"""Asking the decoding process, and ending it when it crashes, hangs or grows.

Input: requests. Output: its answers, or a reason in words. Does not: decode.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

DECODE_SECONDS = 8.0
"""Most seconds of processor time that one picture, or one stretch of a video, may take; the process is ended then."""
SILENCE_FACTOR = 4.0
"""Seconds by the clock without computing (waiting for a disk, say), over the seconds of processor time."""
MEMORY_BYTES = 3 << 30
"""How much memory one decoding process may take beyond what it starts with (Linux)."""
MOST_PROCESSES = 4
PHOTOS_PER_PROCESS = 8
"""Another process is worth starting for this many pictures."""
POLL_S = 0.2
TOO_LONG = "takes too long to decode; it is damaged, or far too large"


class Decoder:
    """One decoding process, started at the first request and again after it had to be ended. Use as a context manager.

    Args:
        check: called several times a second; may raise to stop, and the process is ended then.
        memory_bytes: how much memory the process may take.
        module: what the process runs; it answers as ``recon.capture.child`` does.
    """

    def __init__(
        self, check: Callable[[], None] | None = None, memory_bytes: int = MEMORY_BYTES, module: str = "recon.capture.child"
    ) -> None:
        self._check = check or (lambda: None)
        self._module = module
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen | None = None
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(
        self, request: dict[str, Any], *, seconds: float = DECODE_SECONDS, tell: Callable[[float], None] | None = None
    ) -> dict[str, Any]:
        """Send one request and wait for its answer; news in between restart the clock.

        Args:
            seconds: of processor time; and SILENCE_FACTOR times as many of waiting.
            tell: told the share of the work done, for videos.

        Returns:
            The answer; or {"reason": ...} in words when the process crashed, hung or grew too large.
        """
        try:
            process = self._start()
            assert process.stdin is not None
            process.stdin.write(json.dumps({**request, "seconds": seconds}) + "\n")
            process.stdin.flush()
            return self._wait(seconds, tell)
        except BrokenPipeError:
            return self._died()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            try:
                if stream is not None:
                    stream.close()
            except BrokenPipeError:  # a request was still on its way to a process that is gone
                continue
        self._process = None

    def _wait(self, seconds: float, tell: Callable[[float], None] | None) -> dict[str, Any]:
        left = seconds * SILENCE_FACTOR
        while left > 0:
            self._check()
            try:
                answer = self._answers.get(timeout=min(POLL_S, left))
            except queue.Empty:
                left -= 0.0 if self._computing() else POLL_S
                continue
            if answer is None:
                return self._died()
            if "done" in answer:
                return answer
            left = seconds * SILENCE_FACTOR
            if tell is not None:
                tell(answer["share"])
        self.close()
        return {"reason": TOO_LONG}

    def _computing(self) -> bool:
        """Tell whether the process has work and waits for nothing but a processor (Linux; elsewhere it is not known)."""
        assert self._process is not None
        try:
            return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "R"
        except (OSError, IndexError):
            return False

    def _died(self) -> dict[str, Any]:
        """Say why the process ended by itself."""
        assert self._process is not None
        code = self._process.wait()
        self.close()
        if code == -getattr(signal, "SIGPROF", 0):
            return {"reason": TOO_LONG}
        return {"reason": "stops the decoder: it is damaged, or needs more memory than is allowed"}

    def _start(self) -> subprocess.Popen:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        home = str(Path(__file__).resolve().parent.parent.parent)
        path = os.environ.get("PYTHONPATH")
        self._answers = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module, str(self._memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": home if not path else home + os.pathsep + path, "OMP_NUM_THREADS": "1"},
            start_new_session=sys.platform != "win32",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        threading.Thread(target=_listen, args=(self._process.stdout, self._answers), daemon=True).start()
        return self._process


def _listen(stream: Iterable[str], answers: queue.Queue[dict[str, Any] | None]) -> None:
    """Pass answers on, and None when there will be no more."""
    try:
        for line in stream:
            answers.put(json.loads(line))
    except ValueError:  # the process was ended in the middle of a line, or its pipe closed
        answers.put(None)
        return
    answers.put(None)


def probe_all(
    paths: Sequence[Path], *, keep_private: bool, side: int, check: Callable[[], None] | None = None
) -> list[dict[str, Any]]:
    """Probe pictures in a few decoding processes; the answers come in the order of ``paths``.

    Args:
        keep_private: also read position, owner and serial numbers from EXIF.
        side: longest side in pixels that pictures are measured at.
        check: called often; may raise to stop.
    """
    if not paths:
        return []
    workers = min(MOST_PROCESSES, os.cpu_count() or 1, -(-len(paths) // PHOTOS_PER_PROCESS))
    answers: list[dict[str, Any]] = [{} for _ in paths]
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    stop = threading.Event()
    for index in range(len(paths)):
        waiting.put(index)

    def stopped() -> None:
        if stop.is_set():
            raise InterruptedError("another decoder was stopped")
        if check is not None:
            check()

    def work() -> None:
        with Decoder(stopped) as decoder:
            try:
                while True:
                    index = waiting.get_nowait()
                    request = {"task": "probe", "path": str(paths[index]), "keep_private": keep_private, "side": side}
                    answers[index] = decoder.ask(request)
            except queue.Empty:
                return
            except BaseException:
                stop.set()
                raise

    with ThreadPoolExecutor(max_workers=workers) as pool:
        futures = [pool.submit(work) for _ in range(workers)]
        try:
            for future in futures:
                future.result()
        except InterruptedError:
            for future in futures:
                error = future.exception()
                if error is not None and not isinstance(error, InterruptedError):
                    raise error from None
            raise
        except BaseException:
            stop.set()  # Ctrl-C reaches this thread alone
            raise
    return answers
