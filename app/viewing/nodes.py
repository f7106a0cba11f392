"""What stands in one visitor's 3D page: splats, points, a mesh, camera frusta.

Input: a ``Stage`` and what the visitor wants to see. Output: nodes of viser's client.
Does not: decide; the visitor does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import torch
import viser

from recon.records import Cameras, Gaussians

from .page_frame import PageFrame, camera_quaternion, vertical_fov
from .splats import SHOWN_DISTANCE, point_arrays, splat_arrays
from .stage import Stage

FRUSTUM_COLOR = (230, 160, 60)
POINT_SIZES = 0.01, 0.06
"""Smallest and largest point, page units."""


def frustum_size(cameras: Cameras, scale: float) -> float:
    """Choose a frustum size that neither hides the scene nor its neighbours, in page units."""
    centers = cameras.centers_world * scale
    if len(cameras) < 2:
        return 0.08 * SHOWN_DISTANCE
    apart = torch.cdist(centers, centers) + torch.eye(len(cameras)) * 1e9
    return float((0.4 * apart.min(dim=1).values.median()).clamp(0.01 * SHOWN_DISTANCE, 0.12 * SHOWN_DISTANCE))


class Nodes:
    """The 3D things of one visitor.

    Args:
        client: the visitor's browser.
        stage: the scene.
        on_frustum: called with the index of a frustum that was clicked.
    """

    def __init__(self, client: viser.ClientHandle, stage: Stage, on_frustum: Callable[[int], None]) -> None:
        self._client, self._stage, self._on_frustum = client, stage, on_frustum
        placed = stage.document.placed
        self.usual_side = 0.0 if placed is None else frustum_size(placed, stage.document.scale)
        self.side = self.usual_side
        self.frusta: list[viser.CameraFrustumHandle] = []
        self._frusta_lock = threading.RLock()  # the browser's events come in several threads
        self.splats: viser.GaussianSplatHandle | None = None
        self.points: viser.PointCloudHandle | None = None
        self.mesh: viser.GlbHandle | None = None
        self._sent: dict[str, tuple[object, PageFrame] | None] = {}

    def _is_sent(self, name: str, thing: object) -> bool:
        """True when the browser has this already; else it is noted that it will."""
        frame = self._stage.document.frame
        before = self._sent.get(name)
        turned = before is not None and not torch.equal(before[1].R_page_world, frame.R_page_world)
        if (before[0] if before is not None else None) is thing and not turned:
            return True
        self._sent[name] = None if thing is None else (thing, frame)
        return False

    def show_splats(self, gaussians: Gaussians | None) -> None:
        """Let the browser draw these; None ends that."""
        if self._is_sent("splats", gaussians):
            return
        if self.splats is not None:
            self.splats.remove()
            self.splats = None
        if gaussians is None or len(gaussians) == 0:
            return
        frame = self._stage.document.frame
        arrays = splat_arrays(gaussians, frame.scale)
        self.splats = self._client.scene.add_gaussian_splats(
            "/splats", arrays.centers, arrays.covariances, arrays.rgbs, arrays.opacities, wxyz=frame.wxyz
        )

    def show_points(self, gaussians: Gaussians | None) -> None:
        """Show centres as points; None ends that."""
        if self._is_sent("points", gaussians):
            return
        if self.points is not None:
            self.points.remove()
            self.points = None
        if gaussians is None or len(gaussians) == 0:
            return
        frame = self._stage.document.frame
        centers, colors = point_arrays(gaussians, frame.scale)
        usual = frame.scale * float(gaussians.scales.max(dim=1).values.median())
        self.points = self._client.scene.add_point_cloud(
            "/points",
            centers,
            colors,
            point_size=min(max(usual, POINT_SIZES[0]), POINT_SIZES[1]),
            point_shape="circle",
            point_shading="flat",
            precision="float32",
            wxyz=frame.wxyz,
        )

    def show_mesh(self, glb: bytes | None) -> None:
        """Show a mesh in world units; None ends that."""
        if self._is_sent("mesh", glb):
            return
        if self.mesh is not None:
            self.mesh.remove()
            self.mesh = None
        if glb is None:
            return
        frame = self._stage.document.frame
        self.mesh = self._client.scene.add_glb(
            "/mesh", glb, scale=frame.scale, wxyz=frame.wxyz, cast_shadow=False, receive_shadow=False
        )

    def show_frusta(self, visible: bool) -> None:
        """Make the frusta, or show or hide those there are."""
        with self._frusta_lock:
            if visible and not self.frusta:
                self._add_frusta()
            for frustum in self.frusta:
                frustum.visible = visible

    def _add_frusta(self) -> None:
        placed = self._stage.document.placed
        if placed is None:
            return
        for index in range(len(placed)):
            frustum = self._client.scene.add_camera_frustum(
                f"/cameras/{index:04d}",
                fov=vertical_fov(placed, index),
                aspect=placed.width[index] / placed.height[index],
                scale=self.side,
                color=FRUSTUM_COLOR,
                image=self._stage.photos.thumbnails[index],
            )
            frustum.on_click(partial(self._clicked, index))
            self.frusta.append(frustum)
        self.place_frusta()

    def _clicked(self, index: int, _: object) -> None:
        self._on_frustum(index)

    def place_frusta(self) -> None:
        """Put the frusta where the cameras are on the page."""
        document = self._stage.document
        if document.placed is None:
            return
        positions = document.frame.to_page(document.placed.centers_world)
        with self._frusta_lock:
            for index, frustum in enumerate(self.frusta):
                frustum.wxyz = camera_quaternion(document.placed, index, document.frame)
                frustum.position = positions[index]

    def size_frusta(self, factor: float) -> None:
        """Make frusta larger or smaller than usual."""
        with self._frusta_lock:
            self.side = self.usual_side * factor
            for frustum in self.frusta:
                frustum.scale = self.side

    def refresh_pictures(self) -> None:
        """Put thumbnails that have come in since into the frusta."""
        with self._frusta_lock:
            for frustum, picture in zip(self.frusta, self._stage.photos.thumbnails, strict=False):
                if picture is not None and frustum.image is not picture:
                    frustum.image = picture
