"""One browser that looks at a scene: its own view, drawing mode and tools.

Input: a viser client and a ``Stage``. Output: what that client sees.
Does not: draw (``Painter``) or lay out the panel (``panels``).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import viser

from recon.errors import UserError

from .nodes import Nodes
from .page_frame import Eye, gaze
from .pictures import Look
from .points_tool import PointsTool
from .splats import SHOWN_DISTANCE
from .stage import Stage

logger = logging.getLogger(__name__)

MOVING_QUALITY, STILL_QUALITY = 70, 92
STEEP = 0.95
"""Cosine between the gaze and up beyond which the horizon is left as it is."""
JOURNEY_S = 20.0
"""Longest time a browser takes to go where it is sent."""
LEFT_AFTER = 0.002
"""Distance from a camera, page units, after which its photo does not fit the view any more."""


class Visitor:
    """One browser.

    Args:
        client: of viser.
        stage: the scene.
    """

    def __init__(self, client: viser.ClientHandle, stage: Stage) -> None:
        self.client, self.stage = client, stage
        self.document, self.painter = stage.document, stage.painter
        self.lock = threading.RLock()
        self.nodes = Nodes(client, stage, self._frustum_clicked)
        self.tool = PointsTool(self)
        self.look = Look()
        self.by_server = self.document.scene.gaussians.sh_degree > 0
        self.splats_shown, self.points_shown, self.frusta_shown = True, False, True
        self.mesh: bytes | None = None
        self.through: int | None = None
        self._sent_at: float | None = None
        self.refreshers: list[Callable[[], None]] = []
        self.on_leave: list[Callable[[], None]] = []
        self.gone = False
        self._drawn_frame = self.document.frame
        self.easel = self.painter.easel(self._show_picture)
        self._stop_listening = self.document.on_change(self.document_changed)
        client.camera.on_update(self._see)
        self.look_through(0)

    # What is seen.

    @property
    def server_draws(self) -> bool:
        """True when the picture comes from our rasteriser: because it was asked for, or because only it can."""
        look = self.look
        special = look.what != "colour" or look.box is not None or (look.photo is not None and look.photo_share > 0)
        return self.splats_shown and (self.by_server or special)

    def change(self, **fields: Any) -> None:
        """Change the look."""
        with self.lock:
            self.look = replace(self.look, **fields)
            self.update()

    def update(self) -> None:
        """Bring the page to what is wanted."""
        with self.lock:
            drawn_here = self.splats_shown and not self.server_draws
            wanted = self.painter.sets.get(self.look, 1.0) if drawn_here or self.points_shown else None
            self.nodes.show_splats(wanted if drawn_here else None)
            self.nodes.show_points(wanted if self.points_shown else None)
            self.nodes.show_mesh(self.mesh)
            self.nodes.show_frusta(self.frusta_shown and self.through is None)
            self.easel.look_like(self.look)
            self.easel.turn(self.server_draws)
            if not self.server_draws:
                flat = np.tile((np.asarray(self.look.background) * 255).round().astype(np.uint8), (8, 8, 1))
                self.client.scene.set_background_image(flat, format="png")

    def _show_picture(self, picture: np.ndarray, depth: np.ndarray, full: bool) -> None:
        if self.gone or not self.server_draws:
            return
        quality = STILL_QUALITY if full else MOVING_QUALITY
        self.client.scene.set_background_image(picture, format="jpeg", jpeg_quality=quality, depth=depth)
        self.client.flush()

    # Where from.

    @property
    def eye(self) -> Eye:
        """Where the visitor looks from now."""
        camera = self.client.camera
        w, x, y, z = (float(value) for value in camera.wxyz)
        right, down, ahead = (float(value) for value in camera.position)
        return Eye(
            wxyz=(w, x, y, z),
            position=(right, down, ahead),
            fov=float(camera.fov),
            width=max(16, camera.image_width),
            height=max(16, camera.image_height),
        )

    def _see(self, _: viser.CameraHandle) -> None:
        eye = self.eye
        if self.easel.eye is None or eye != self.easel.eye:
            self.easel.look_from(eye)
        with self.lock:  # events of one browser come in several threads
            if self.through is None:
                self._maybe_arrive(self.eye)
            else:
                self._maybe_leave(self.eye)

    def _maybe_arrive(self, eye: Eye) -> None:
        """Notice that the visitor is where a camera is: inside its frustum, which would cover everything.

        A browser may tell where it was before it was sent away twice, in any order with what was set here, so a camera that was
        left by such news is found again by where the browser is in the end.
        """
        if self.document.placed is None:
            return
        centers = self.document.frame.to_page(self.document.placed.centers_world)
        away = np.linalg.norm(centers - np.asarray(eye.position), axis=1)
        if away.min() <= LEFT_AFTER:
            self.through = int(away.argmin())
            self.nodes.show_frusta(False)

    def _maybe_leave(self, eye: Eye) -> None:
        """Notice that the visitor has left the camera looked through."""
        if self.through is None or self.document.placed is None:
            return
        left_at = self.document.frame.to_page(self.document.placed.centers_world[self.through])
        away = float(np.linalg.norm(np.asarray(eye.position) - left_at))
        if self._sent_at is not None:  # until the browser is there, it still tells where it was before
            if away > LEFT_AFTER and time.monotonic() - self._sent_at < JOURNEY_S:
                return
            self._sent_at = None
        if away > LEFT_AFTER and self.look.photo is not None:
            self.change(photo=None)
            self.refresh()
        if away > self.nodes.side:
            self.through = None
            self.nodes.show_frusta(self.frusta_shown)

    def look_through(self, index: int, *, compare: bool = False) -> None:
        """Go to a camera; its frustum and its neighbours are hidden, they would cover the scene."""
        cameras = self.document.cameras
        index %= len(cameras)
        photo = self.stage.photos.photo(index) if compare and self.document.placed is not None else None
        self.stage.distance(index)  # may wait for a drawing; it is remembered
        with self.lock:
            if self.document.placed is not None:
                self.through = index
                self.nodes.show_frusta(False)
            self.go_to(index)
            self.change(photo=photo)
            self.refresh()

    def _frustum_clicked(self, index: int) -> None:
        if not self.tool.active:  # then the click is meant for what lies behind
            self.look_through(index, compare=True)

    def go_to(self, index: int) -> None:
        """Look from a camera; all of its picture fits in the canvas."""
        cameras, frame = self.document.cameras, self.document.frame
        position, look_at, up = gaze(cameras, index, frame, self.stage.distance(index))
        tall = cameras.height[index] / (2.0 * float(cameras.K[index, 1, 1]))
        here = np.allclose(position, self.client.camera.position)  # then the browser has nothing to tell
        self._sent_at = None if here else time.monotonic()
        wide = cameras.width[index] / (2.0 * float(cameras.K[index, 0, 0])) / max(0.1, self.client.camera.aspect)
        with self.client.atomic():
            self.client.camera.up_direction = up
            self.client.camera.position = position
            self.client.camera.look_at = look_at
            self.client.camera.fov = 2.0 * float(np.arctan(max(tall, wide)))
        self.easel.look_from(self.eye)

    def go_to_eye(self, eye: Eye) -> None:
        """Look from a place that was remembered."""
        from viser import transforms

        R_page_cam = transforms.SO3(np.asarray(eye.wxyz)).as_matrix()
        with self.client.atomic():
            self.client.camera.up_direction = -R_page_cam[:, 1]
            self.client.camera.position = np.asarray(eye.position)
            self.client.camera.look_at = np.asarray(eye.position) + R_page_cam[:, 2] * SHOWN_DISTANCE
            self.client.camera.fov = eye.fov
        self.easel.look_from(self.eye)

    # The document.

    def document_changed(self) -> None:
        """Somebody edited the scene, here or in another window."""
        with self.lock:
            if self.gone:
                return
            before, now = self._drawn_frame, self.document.frame
            self._drawn_frame = now
            turned = (now.R_page_world @ before.R_page_world.T).numpy()
            if not np.allclose(turned, np.eye(3), atol=1e-9):
                camera = self.client.camera
                position, look_at = turned @ camera.position, turned @ camera.look_at
                ahead = (look_at - position) / np.linalg.norm(look_at - position)
                steep = abs(float(ahead[1])) > STEEP  # looking along up: a level horizon would spin the picture
                up = turned @ camera.up_direction if steep else np.array([0.0, -1.0, 0.0])
                with self.client.atomic():
                    camera.up_direction = up
                    camera.position = position
                    camera.look_at = look_at
            self.nodes.place_frusta()
            self.update()
            self.refresh()

    def refresh(self) -> None:
        """Let the panel say how things are."""
        for refresher in tuple(self.refreshers):
            refresher()

    def attempt(self, doing: Callable[[], Any]) -> Any:
        """Do something that may fail for a reason a person can read; returns None then."""
        try:
            return doing()
        except UserError as error:
            self.say("That did not work", f"{error.reason} {error.remedy}".strip(), color="orange")
        except OSError as error:
            self.say("That did not work", f"{error.strerror or error}.", color="orange")
        return None

    def say(self, title: str, body: str = "", *, color: Any = None) -> None:
        """Tell the visitor something for a few seconds."""
        self.client.add_notification(title, body, auto_close_seconds=6.0, color=color)

    def leave(self) -> None:
        """The browser is gone."""
        self._stop_listening()
        for leaving in self.on_leave:
            leaving()
        self.gone = True
        self.painter.dismiss(self.easel)
