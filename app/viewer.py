"""Walk round a scene in the browser.

Input: a ``Scene``. Output: a page on 127.0.0.1 served by viser; every visitor has a view, a drawing mode and tools of its own,
edits are shared.
Does not: send anything elsewhere, or change the scene on disk.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import viser

from recon.records import Rasterizer, Scene

from .viewing.guard import loopback_server, stop_quietly
from .viewing.meshes import MeshMaker
from .viewing.page_frame import gaze, vertical_fov
from .viewing.panels import add_panels, greet
from .viewing.splats import SHOWN_DISTANCE
from .viewing.stage import Stage
from .viewing.visitor import Visitor

logger = logging.getLogger(__name__)


class SceneViewer:
    """A viser server on 127.0.0.1 that shows one scene at a time.

    Args:
        port: where to listen; the next free port is taken when it is busy, 0 lets the system choose.
        rasterizer: draws for visitors who ask for it, and thumbnails of views whose photos are gone.
        key: a secret that every request must carry; None asks for none.
    """

    def __init__(self, *, port: int = 8080, rasterizer: Rasterizer, key: str | None = None) -> None:
        self.rasterizer = rasterizer
        self.stage: Stage | None = None
        self.visitors: dict[int, Visitor] = {}
        self._meshes: MeshMaker | None = None
        self._lock = threading.RLock()
        self.server = loopback_server(port, key=key)
        self.server.scene.set_up_direction("-y")
        self.server.scene.configure_default_lights(enabled=False)
        self.server.on_client_connect(self._arrive)
        self.server.on_client_disconnect(self._leave)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.get_port()}"

    def show(self, scene: Scene) -> None:
        """Replace what is shown with ``scene``, seen from its first camera."""
        stage = Stage(scene, self.rasterizer, self._pictures_changed)
        with self._lock:
            before, self.stage, self._meshes = self.stage, stage, MeshMaker(stage.document)
            self._set_first_view(stage)
            clients = [visitor.client for visitor in self.visitors.values()]
            for visitor in self.visitors.values():
                visitor.leave()
            self.visitors.clear()
            for client in clients:
                client.scene.reset()
                client.gui.reset()
                self._arrive(client)
        if before is not None:
            before.close()

    def stop(self) -> None:
        """Close the server."""
        stop_quietly(self.server)
        with self._lock:
            for visitor in self.visitors.values():
                visitor.leave()
            self.visitors.clear()
            if self.stage is not None:
                self.stage.close()

    def _arrive(self, client: viser.ClientHandle) -> None:
        with self._lock:
            if self.stage is None or self._meshes is None:
                return
            visitor = Visitor(client, self.stage)
            self.visitors[client.client_id] = visitor
            add_panels(visitor, self._meshes)
        threading.Thread(target=greet, args=(visitor,), name="recon-hint", daemon=True).start()

    def _leave(self, client: viser.ClientHandle) -> None:
        with self._lock:
            visitor = self.visitors.pop(client.client_id, None)
        if visitor is not None:
            visitor.leave()

    def _pictures_changed(self) -> None:
        with self._lock:
            visitors = tuple(self.visitors.values())
        for visitor in visitors:
            visitor.nodes.refresh_pictures()

    def _set_first_view(self, stage: Stage) -> None:
        document = stage.document
        first = self.server.initial_camera
        first.position, first.look_at, first.up = gaze(document.cameras, 0, document.frame, stage.distance(0))
        first.fov = vertical_fov(document.cameras, 0)
        first.near, first.far = 0.001 * SHOWN_DISTANCE, 1000.0 * SHOWN_DISTANCE


def view_forever(scene: Scene, *, port: int, rasterizer: Rasterizer, say: Callable[[str], None]) -> None:
    """Serve a scene until interrupted; ``say`` is told the address."""
    viewer = SceneViewer(port=port, rasterizer=rasterizer)
    try:
        viewer.show(scene)
        say(f"Viewer: {viewer.url}  (Ctrl-C stops it)")
        while True:
            time.sleep(3600)
    finally:
        viewer.stop()
