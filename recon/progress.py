"""How a running job speaks: progress events, early results and cancellation.

Input: calls from stages. Output: calls to whoever listens (the CLI, a job, a test).
Does not: print.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

STAGES = ("photos", "cameras", "depth", "gaussians", "polish", "score", "write")
"""The stages of a run, in order."""


class Cancelled(Exception):
    """The person asked the job to stop."""


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """One thing worth showing."""

    stage: str
    """One of STAGES."""
    fraction: float
    """Share of the stage that is done, in [0, 1]."""
    message: str = ""
    """A short sentence, or empty."""
    elapsed_s: float = 0.0
    """Seconds since the stage began."""
    advice: bool = False
    """True when the message is a sentence to keep on show, not the state of the stage."""


class Progress:
    """Passes events to a listener and raises ``Cancelled`` at the next event once ``cancel`` was called.

    Args:
        listener: called with each ``ProgressEvent``; None listens to nothing.
        taker: called with a name and the things of each early result; None takes nothing.
    """

    def __init__(self, listener: Callable[[ProgressEvent], None] | None = None, taker: Callable[..., None] | None = None) -> None:
        self._listener = listener
        self._taker = taker
        self._cancelled = threading.Event()
        self._stage = ""
        self._fraction = 0.0
        self._started = time.perf_counter()

    def cancel(self) -> None:
        self._cancelled.set()

    def resume(self) -> None:
        """Forget a request to stop, after a stage has honoured it by ending early; what follows writes what there is."""
        self._cancelled.clear()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def check(self) -> None:
        """Raise ``Cancelled`` if the job was asked to stop."""
        if self._cancelled.is_set():
            raise Cancelled("stopped on request")

    def update(self, stage: str, fraction: float, message: str = "") -> None:
        """Report that ``fraction`` of ``stage`` is done.

        Raises:
            Cancelled: the job was asked to stop.
        """
        if stage != self._stage:
            self._stage, self._started = stage, time.perf_counter()
        self._fraction = fraction
        if self._listener is not None:
            elapsed_s = time.perf_counter() - self._started
            self._listener(ProgressEvent(stage=stage, fraction=min(max(fraction, 0.0), 1.0), message=message, elapsed_s=elapsed_s))
        self.check()

    @property
    def has_taker(self) -> bool:
        """Whether early results are worth making."""
        return self._taker is not None

    def silent(self) -> Progress:
        """The same job, of which nothing is told; cancelling one cancels both."""
        other = Progress()
        other._cancelled = self._cancelled
        return other

    def offer(self, name: str, *things: Any) -> None:
        """Hand over a result before the run ends: ``cameras`` (SfmResult, Views), ``look`` (a coarse Scene), ``scene``
        (Scene); it must not be changed."""
        if self._taker is not None:
            self._taker(name, *things)

    def say(self, sentence: str) -> None:
        """Pass on a sentence of advice; the stage goes on as it was."""
        if self._listener is not None and self._stage:
            elapsed_s = time.perf_counter() - self._started
            self._listener(
                ProgressEvent(stage=self._stage, fraction=self._fraction, message=sentence, elapsed_s=elapsed_s, advice=True)
            )
