"""Collects points that a visitor clicks on the surface.

Input: clicks. Output: a call with that many points of the world.
Does not: know what they are for.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
import viser
from jaxtyping import Float
from torch import Tensor

from .picking import pick

if TYPE_CHECKING:
    from .visitor import Visitor

logger = logging.getLogger(__name__)

MARK_RADIUS = 0.006
"""Of a marked point, as a share of its distance from the eye."""
MARK_COLOR = (255, 80, 80)
ANSWER_S = 600.0


class PointsTool:
    """One collection at a time."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._wanted = 0
        self._points: list[Tensor] = []
        self._on_done: Callable[[Float[Tensor, "P 3"]], None] = lambda _: None
        self._on_over: Callable[[], None] = lambda: None
        self._marks: list[viser.IcosphereHandle] = []

    @property
    def active(self) -> bool:
        return self._wanted > 0

    def start(self, count: int, on_done: Callable[[Float[Tensor, "P 3"]], None], on_over: Callable[[], None]) -> None:
        """Ask for ``count`` clicks.

        Args:
            on_done: takes the points, world units.
            on_over: called when the collection ends, complete or not.
        """
        self.stop()
        self._wanted, self._points, self._on_done, self._on_over = count, [], on_done, on_over
        self._visitor.client.scene.on_click()(self._clicked)

    def stop(self) -> None:
        """End the collection and take the marks away."""
        over, active = self._on_over, self.active
        self._wanted, self._on_over = 0, lambda: None
        if active:
            self._visitor.client.scene.remove_click_callback(self._clicked)
        for mark in self._marks:
            mark.remove()
        self._marks.clear()
        if active:
            over()

    def _clicked(self, event: viser.SceneClickEvent) -> None:
        if not self.active:
            return
        visitor = self._visitor
        eye, frame, look = visitor.eye, visitor.document.frame, visitor.look
        focal_px = eye.height / (2.0 * math.tan(eye.fov / 2.0))
        origin, direction = np.asarray(event.ray_origin), np.asarray(event.ray_direction)
        question = visitor.painter.ask(
            lambda: pick(visitor.painter.sets.get(look, 1.0), visitor.painter.rasterizer, frame, origin, direction, focal_px)
        )
        point = question.result(timeout=ANSWER_S)
        if point is None:
            visitor.say("Nothing is there", "Click on a surface.")
            return
        self._points.append(point)
        self._mark(point)
        if len(self._points) == self._wanted:
            points, done = torch.stack(self._points), self._on_done
            self.stop()
            done(points)

    def _mark(self, point: Tensor) -> None:
        at = self._visitor.document.frame.to_page(point)
        radius = MARK_RADIUS * float(np.linalg.norm(at - np.asarray(self._visitor.eye.position)))
        name = f"/marks/{len(self._marks)}"
        self._marks.append(self._visitor.client.scene.add_icosphere(name, radius=radius, color=MARK_COLOR, position=at))
