"""What all visitors of one scene share.

Input: a ``Scene`` and a rasteriser. Output: the document, the painter, the photos.
Does not: know who visits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from recon.records import Rasterizer, RasterOptions, Scene

from ..scene_files import fit_cameras
from .document import Document
from .page_frame import gaze
from .painter import Painter
from .photo_book import THUMBNAIL_SIDE_PX, PhotoBook
from .picking import pick
from .pictures import to_bytes
from .splats import SHOWN_DISTANCE

PATIENCE_S = 3.0
"""How long a visitor waits to be told how far the surface is."""
COUNTED_SIDE_PX = 320
"""Size at which it is counted which photos see a Gaussian."""
SEEN_PX = 0.25
"""A photo sees a Gaussian that covers at least so many of its pixels at that size."""


class Stage:
    """One opened scene.

    Args:
        scene: on the CPU.
        rasterizer: draws it.
        on_pictures: called when thumbnails have changed, from any thread.
    """

    def __init__(self, scene: Scene, rasterizer: Rasterizer, on_pictures: Callable[[], None] = lambda: None) -> None:
        self.document = Document(scene)
        self.painter = Painter(self.document, rasterizer)
        self._on_pictures = on_pictures
        self._closed = False
        folder = Path(str(scene.provenance.get("folder", "scene")))
        self.name = folder.name
        self.folder = folder
        self.photos = PhotoBook(self.document)
        self._counting = None
        self._distances: dict[int, float] = {}
        self.photos.open(self._photos_ready)

    def _photos_ready(self) -> None:
        if self._closed:
            return
        self._on_pictures()
        if self.document.placed is not None and any(picture is None for picture in self.photos.thumbnails):
            self.painter.work(self._draw_thumbnails())

    def _draw_thumbnails(self) -> Iterator[None]:
        """Photos that are gone are replaced by what the scene looks like from there."""
        placed = self.document.placed
        assert placed is not None
        small = fit_cameras(placed, THUMBNAIL_SIDE_PX)
        for index, picture in enumerate(self.photos.thumbnails):
            if picture is None:
                with torch.no_grad():
                    drawn = self.painter.rasterizer(self.document.scene.gaussians, small.select([index]), RasterOptions())
                self.photos.thumbnails[index] = to_bytes(drawn.color[0])
                yield
        self._on_pictures()

    def distance(self, index: int) -> float:
        """How far the surface in the middle of a camera's picture is, page units; what a visitor turns about."""
        if index not in self._distances:
            cameras, frame = self.document.cameras, self.document.frame
            position, ahead, _ = gaze(cameras, index, frame, 1.0)
            focal_px = float(cameras.K[index, 1, 1]) * 64.0 / cameras.height[index]
            gaussians = self.document.gaussians
            question = self.painter.ask(
                lambda: pick(gaussians, self.painter.rasterizer, frame, position, ahead - position, focal_px)
            )
            try:
                found = question.result(timeout=PATIENCE_S)
            except TimeoutError:  # kernels are being compiled, or the machine is busy
                return SHOWN_DISTANCE
            away = SHOWN_DISTANCE if found is None else float(np.linalg.norm(frame.to_page(found) - position))
            self._distances[index] = min(max(away, 0.1 * SHOWN_DISTANCE), 3.0 * SHOWN_DISTANCE)
        return self._distances[index]

    def count_seen(self) -> None:
        """Begin to count, once, how many photos see each Gaussian; what is shown follows when it is known."""
        if self._counting is None and self.document.placed is not None:
            self._counting = self.painter.work(self._count_seen())

    def _count_seen(self) -> Iterator[None]:
        placed = self.document.placed
        assert placed is not None
        small = fit_cameras(placed, COUNTED_SIDE_PX)
        gaussians = self.document.scene.gaussians
        seen = torch.zeros(len(gaussians), dtype=torch.int32)
        for index in range(len(small)):
            with torch.no_grad():
                drawn = self.painter.rasterizer(gaussians, small.select([index]), RasterOptions(contribution=True))
            assert drawn.contribution is not None
            seen += (drawn.contribution[0] >= SEEN_PX).int()
            yield
        self.painter.sets.seen = seen
        self.painter.refresh()

    def close(self) -> None:
        """Stop drawing."""
        self._closed = True
        self.painter.close()
