"""Draws for all visitors of a scene, in one thread.

Input: what each visitor wants to see, and work that needs the rasteriser. Output: pictures, handed to the visitor.
Does not: talk to browsers.

One thread, because a picture uses every core anyway and Numba's threading layers are not re-entrant. What is done next: short
questions (what lies under this click?), then visitors who move, in turn and coarsely, then long work one step at a time (a frame
of a video), then visitors who stand still, once and in full. While somebody moves, long work gets every fourth turn.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch

from recon.records import Gaussians, Rasterizer, Rendering

from .document import Document
from .levels import LEVELS, Pace, Sets
from .page_frame import Eye
from .pictures import Look, page_depth, paint
from .splats import SHOWN_DISTANCE

logger = logging.getLogger(__name__)

FRAME_S = 0.07
"""Seconds a picture may take while somebody moves, sending included."""
SETTLE_S = 0.25
"""Seconds without movement after which the full picture is drawn."""
FULL_SIDE = 1600
"""Most pixels of the longer side of a full picture."""
NEAR_PAGE = 0.05
"""Gaussians nearer than this are not drawn, page units."""
WORK_EVERY = 4
"""Turns after which long work gets one while somebody moves."""

Show = Callable[[np.ndarray, np.ndarray, bool], None]
"""Takes a picture, its depth on the page, and whether it is the full one."""


class Easel:
    """What one visitor wants drawn. Written by the visitor, read by the painter."""

    def __init__(self, show: Show, changed: Callable[[], None]) -> None:
        self._show, self._changed = show, changed
        self.eye: Eye | None = None
        self.look = Look()
        self.on = False
        """False: the visitor's browser draws."""
        self.pace = Pace()
        self.moved_at = 0.0
        self.drawn_at = 0.0
        self.coarse_due = self.full_due = False
        self.frames = 0
        """Pictures drawn, coarse and full."""

    def look_from(self, eye: Eye) -> None:
        """The visitor moved."""
        self.eye, self.moved_at, self.coarse_due, self.full_due = eye, time.monotonic(), True, True
        if self.on:
            self._changed()

    def look_like(self, look: Look) -> None:
        """The visitor wants it drawn in another way."""
        self.look = look
        self.again()

    def turn(self, on: bool) -> None:
        """Start or stop drawing for this visitor."""
        self.on = on
        self.again()

    def again(self) -> None:
        """Something that is shown has changed."""
        self.moved_at, self.coarse_due, self.full_due = time.monotonic(), True, True
        self._changed()

    def show(self, picture: np.ndarray, depth: np.ndarray, full: bool) -> None:
        """Hand a picture over."""
        self.frames += 1
        self._show(picture, depth, full)


class Painter:
    """One thread that draws.

    Args:
        document: the scene.
        rasterizer: draws it.
    """

    def __init__(self, document: Document, rasterizer: Rasterizer) -> None:
        self.document, self.rasterizer = document, rasterizer
        self.sets = Sets(document)
        self._easels: list[Easel] = []
        self._questions: deque[tuple[Callable[[], Any], Future]] = deque()
        self._work: deque[tuple[Iterator[None], Future]] = deque()
        self._turns = 0
        self._changed = threading.Condition()
        self._closed = False
        self._stop_listening = document.on_change(self.refresh)
        self._thread = threading.Thread(target=self._run, name="recon-painter", daemon=True)
        self._thread.start()

    def easel(self, show: Show) -> Easel:
        """Register a visitor; ``show`` is called in the painter's thread."""
        made = Easel(show, self._wake)
        with self._changed:
            self._easels.append(made)
        return made

    def dismiss(self, easel: Easel) -> None:
        """A visitor left."""
        with self._changed:
            if easel in self._easels:
                self._easels.remove(easel)

    def ask(self, question: Callable[[], Any]) -> Future:
        """Run something short in the painter's thread, before anything else."""
        return self._queue(self._questions, question)

    def work(self, steps: Iterator[None]) -> Future:
        """Run something long, one step at a time, between pictures; the future may be cancelled."""
        return self._queue(self._work, steps)

    def _queue(self, line: deque, item: Any) -> Future:
        future: Future = Future()
        with self._changed:
            if self._closed:
                future.cancel()
                return future
            line.append((item, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """End the thread; what waits is cancelled."""
        self._stop_listening()
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=60)
        for _, future in [*self._questions, *self._work]:
            future.cancel()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def refresh(self) -> None:
        """Draw again for everybody."""
        with self._changed:
            easels = tuple(self._easels)
        for easel in easels:
            easel.pace.forget()
            easel.again()

    def _run(self) -> None:
        while True:
            with self._changed:
                turn = self._next_turn()
                while turn is None and not self._closed:
                    self._changed.wait(self._until_settled())
                    turn = self._next_turn()
                if self._closed or turn is None:
                    return
            try:
                turn()
            except Exception:
                logger.exception("a picture could not be drawn")

    def _watching(self) -> list[Easel]:
        return [easel for easel in self._easels if easel.on and easel.eye is not None]

    def _until_settled(self) -> float | None:
        waits = [easel.moved_at + SETTLE_S - time.monotonic() for easel in self._watching() if easel.full_due]
        return max(0.001, min(waits)) if waits else None

    def _next_turn(self) -> Callable[[], None] | None:
        """Choose what to do; called with the lock held."""
        if self._questions:
            question, future = self._questions.popleft()
            return lambda: _answer(question, future)
        self._turns += 1
        moving = [easel for easel in self._watching() if easel.coarse_due]
        if self._work and (not moving or self._turns % WORK_EVERY == 0):
            return self._one_step
        if moving:
            easel = min(moving, key=lambda e: e.drawn_at)
            return lambda: self._draw_coarse(easel)
        now = time.monotonic()
        settled = [easel for easel in self._watching() if easel.full_due and now >= easel.moved_at + SETTLE_S]
        if settled:
            easel = min(settled, key=lambda e: e.drawn_at)
            return lambda: self._draw_full(easel)
        return None

    def _one_step(self) -> None:
        steps, future = self._work[0]
        over = future.cancelled()
        if not over:
            try:
                next(steps)
            except StopIteration as end:
                over = True
                if future.set_running_or_notify_cancel():
                    future.set_result(end.value)
            except Exception as error:  # handed to whoever asked
                over = True
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)
        if over:
            steps.close()  # pyright: ignore[reportAttributeAccessIssue] generators
            with self._changed:
                self._work.remove((steps, future))

    def _draw_coarse(self, easel: Easel) -> None:
        easel.coarse_due = False
        level = LEVELS[easel.pace.level]
        self.sets.get(easel.look, level.share)  # thinned once, which does not count as drawing
        began = time.perf_counter()
        busy = sum(time.monotonic() - other.moved_at < 2 * SETTLE_S for other in self._watching())
        self._draw(easel, level.share, level.long_side, full=False)
        easel.pace.note(time.perf_counter() - began, FRAME_S / max(1, busy))

    def _draw_full(self, easel: Easel) -> None:
        easel.full_due = False
        self._draw(easel, 1.0, FULL_SIDE, full=True)

    def _draw(self, easel: Easel, share: float, long_side: int, *, full: bool) -> None:
        eye, look, frame = easel.eye, easel.look, self.document.frame
        assert eye is not None
        eye = eye.fitted(long_side)
        drawn = self.draw(self.sets.get(look, share), eye, look)
        typical = SHOWN_DISTANCE / self.document.scale
        picture = paint(drawn, look, eye, frame, typical)
        easel.drawn_at = time.monotonic()
        easel.show(picture, page_depth(drawn, self.document.scale, eye.width if full else 240), full)

    def draw(self, gaussians: Gaussians, eye: Eye, look: Look) -> Rendering:
        """Draw one picture; call it in the painter's thread only."""
        near = NEAR_PAGE / self.document.scale
        with torch.no_grad():
            return self.rasterizer(gaussians, eye.cameras(self.document.frame), look.options(near))


def _answer(question: Callable[[], Any], future: Future) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(question())
        except Exception as error:  # handed to whoever asked
            future.set_exception(error)
