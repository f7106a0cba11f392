"""The photos a scene was made from: small ones for the frusta, and straightened ones to compare with.

Input: a ``Document``. Output: pixels by camera.
Does not: block; files are opened in a thread of their own, and what is not there yet is None.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from recon.errors import UserError
from recon.lens import undistort
from recon.photos import open_photos
from recon.records import Cameras, View

from ..scene_photos import recorded_capture
from .document import Document
from .pictures import Photo, to_bytes

logger = logging.getLogger(__name__)

THUMBNAIL_SIDE_PX = 160
PHOTO_SIDE_PX = 1280
KEPT_PHOTOS = 4


class PhotoBook:
    """Photos of the placed cameras of a document.

    Args:
        document: its scene says where the photos are.
    """

    def __init__(self, document: Document) -> None:
        self._document = document
        self._views: dict[str, View] = {}
        self._photos: dict[int, Photo] = {}
        self._lock = threading.Lock()
        count = 0 if document.placed is None else len(document.placed)
        self.names = (document.placed.names if document.placed is not None else None) or tuple(
            f"view {i + 1}" for i in range(count)
        )
        self.thumbnails: list[np.ndarray | None] = [None] * count

    def open(self, on_ready: Callable[[], None]) -> None:
        """Begin to open the photos; ``on_ready`` is called in the opening thread when the thumbnails are there."""
        threading.Thread(target=self._open, args=(on_ready,), name="recon-photos", daemon=True).start()

    def _open(self, on_ready: Callable[[], None]) -> None:
        folder = self._document.scene.provenance.get("photos")
        report = self._document.scene.provenance.get("report")
        if folder and self.names:
            try:
                capture = recorded_capture(report) if isinstance(report, dict) else None
                opened = open_photos(Path(folder), long_side=PHOTO_SIDE_PX, capture=capture).views
                self._views = {view.name: view for view in opened}
                for index, name in enumerate(self.names):
                    view = self._views.get(name)
                    if view is not None:
                        factor = THUMBNAIL_SIDE_PX / max(view.width, view.height)
                        small = max(1, round(view.width * factor)), max(1, round(view.height * factor))
                        self.thumbnails[index] = view.decode(*small)
            except (UserError, OSError) as error:
                logger.info("no photos to show from %s: %s", folder, error)
        on_ready()

    def photo(self, index: int) -> Photo | None:
        """The photo of a placed camera, straightened; None when it is gone."""
        with self._lock:
            if index in self._photos:
                return self._photos[index]
            view = self._views.get(self.names[index])
            original = self._document.scene.cameras
            if view is None or original is None:
                return None
            row = int(torch.nonzero(original.registered_mask).flatten()[index])
            camera = original.select([row]).resized(view.width, view.height)
            try:
                pixels = view.load_at(view.width, view.height)
            except (UserError, OSError) as error:
                logger.info("%s cannot be shown: %s", view.name, error)
                return None
            bend = None if camera.distortion is None else camera.distortion[0]
            K = camera.K[0].float()
            straight, _ = undistort(pixels, K, bend, K_out=K, width_out=view.width, height_out=view.height)
            pinhole = Cameras(T_world_cam=camera.T_world_cam, K=camera.K, width=camera.width, height=camera.height)
            while len(self._photos) >= KEPT_PHOTOS:
                self._photos.pop(next(iter(self._photos)))
            self._photos[index] = Photo(pixels=to_bytes(straight), camera=pinhole)
            return self._photos[index]
