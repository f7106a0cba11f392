"""Walk round a scene in the browser: splats, camera frusta with their photos, a few sliders.

Input: a ``Scene``. Output: a page on 127.0.0.1 served by viser.
Does not: send anything elsewhere, change the scene, or show view-dependent colour (viser draws SH degree 0).

The page shows the world scaled so that the typical distance is ``SHOWN_DISTANCE``: viser keeps covariances in 16-bit floats,
and a reconstruction's own unit is arbitrary.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import viser

from recon.geometry import quats_to_rotations, rotations_to_quats, sh0_to_rgb
from recon.records import Cameras, Gaussians, Rasterizer, RasterOptions, Scene

from .scene_files import cameras_around, fit_cameras, median_distance, photo_thumbnails, placed_cameras

logger = logging.getLogger(__name__)

SHOWN_DISTANCE = 10.0
"""Typical distance from the cameras to the scene on the page."""
THUMBNAIL_SIDE_PX = 160


@dataclass(frozen=True, kw_only=True)
class SplatArrays:
    """Gaussians the way viser takes them."""

    centers: np.ndarray
    """N 3."""
    covariances: np.ndarray
    """N 3 3."""
    rgbs: np.ndarray
    """N 3 in [0, 1]."""
    opacities: np.ndarray
    """N 1 in [0, 1]."""

    def above(self, opacity: float) -> SplatArrays:
        """Keep those at least this opaque; the most opaque one stays in any case."""
        keep = self.opacities[:, 0] >= min(opacity, float(self.opacities.max(initial=0.0)))
        return SplatArrays(
            centers=self.centers[keep], covariances=self.covariances[keep], rgbs=self.rgbs[keep], opacities=self.opacities[keep]
        )


def splat_arrays(gaussians: Gaussians, scale: float) -> SplatArrays:
    """Convert to centres, covariances R diag(s²) Rᵀ and colours of SH degree 0, in units of 1 / ``scale``."""
    R_world_local = quats_to_rotations(gaussians.quats)
    stretched = R_world_local * (gaussians.scales * scale)[:, None, :]
    return SplatArrays(
        centers=(gaussians.means * scale).numpy().astype(np.float32),
        covariances=(stretched @ stretched.transpose(1, 2)).clamp(-6.0e4, 6.0e4).numpy(),
        rgbs=sh0_to_rgb(gaussians.sh[:, 0]).clamp(0.0, 1.0).numpy(),
        opacities=gaussians.opacities[:, None].numpy(),
    )


class SceneViewer:
    """A viser server on 127.0.0.1 that shows one scene at a time.

    Args:
        port: where to listen; the next free port is taken when it is busy.
        rasterizer: draws thumbnails of views whose photos are gone; None leaves their frusta empty.
    """

    def __init__(self, *, port: int = 8080, rasterizer: Rasterizer | None = None) -> None:
        with redirect_stdout(io.StringIO()):  # viser announces itself on stdout, which belongs to results
            self.server = viser.ViserServer(host="127.0.0.1", port=port, label="recon", verbose=False)
        self.server.gui.configure_theme(show_share_button=False, show_logo=False, dark_mode=True)
        self.rasterizer = rasterizer
        self.frusta: list[viser.CameraFrustumHandle] = []
        self.frusta_shown = True
        self.looked_through: int | None = None
        self.frustum_side = 0.0
        self.server.on_client_connect(self._on_visit)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.get_port()}"

    def show(self, scene: Scene) -> None:
        """Replace what is shown with ``scene``, seen from its first camera."""
        scale = SHOWN_DISTANCE / median_distance(scene)
        placed = placed_cameras(scene)
        cameras = cameras_around(scene.gaussians) if placed is None else placed
        pictures = [] if placed is None else self._pictures(scene, placed)
        with self.server.atomic():
            self.server.scene.reset()
            self.server.gui.reset()
            self.server.scene.set_up_direction("-y")
            self.server.scene.configure_default_lights(enabled=False)
            arrays = splat_arrays(scene.gaussians, scale)
            splats = self.server.scene.add_gaussian_splats(
                "/splats", arrays.centers, arrays.covariances, rgbs=arrays.rgbs, opacities=arrays.opacities
            )
            self.looked_through, self.frusta_shown = None, True
            self.frusta = [] if placed is None else self._add_frusta(placed, pictures, scale)
            self._set_first_view(cameras, scale)
        self._add_controls(scene, arrays, splats)
        self._look_through(0)
        for client in self.server.get_clients().values():
            _jump(client, cameras, 0, scale)

    def stop(self) -> None:
        """Close the server."""
        self.server.stop()

    def _pictures(self, scene: Scene, cameras: Cameras) -> list[np.ndarray | None]:
        folder = scene.provenance.get("photos")
        photos = photo_thumbnails(Path(folder), THUMBNAIL_SIDE_PX) if folder else {}
        pictures = [photos.get(name) for name in cameras.names or ("",) * len(cameras)]
        gone = [index for index, picture in enumerate(pictures) if picture is None]
        if self.rasterizer is not None:
            small = fit_cameras(cameras, THUMBNAIL_SIDE_PX)
            for index in gone:
                color = self.rasterizer(scene.gaussians, small.select([index]), RasterOptions()).color[0]
                pictures[index] = (color.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        return pictures

    def _add_frusta(self, cameras: Cameras, pictures: list[np.ndarray | None], scale: float) -> list[viser.CameraFrustumHandle]:
        quats = rotations_to_quats(cameras.T_world_cam[:, :3, :3]).double().numpy()
        self.frustum_side = frustum_size(cameras, scale)
        frusta = []
        for index in range(len(cameras)):
            frustum = self.server.scene.add_camera_frustum(
                f"/cameras/{index:04d}",
                fov=_vertical_fov(cameras, index),
                aspect=cameras.width[index] / cameras.height[index],
                scale=self.frustum_side,
                color=(230, 160, 60),
                image=pictures[index],
                wxyz=quats[index],
                position=(cameras.centers_world[index] * scale).double().numpy(),
            )
            frustum.on_click(partial(self._on_click, cameras, index, scale))
            frusta.append(frustum)
        return frusta

    def _on_click(self, cameras: Cameras, index: int, scale: float, event: viser.SceneNodePointerEvent) -> None:
        if event.client is not None:
            self._look_through(index)
            _jump(event.client, cameras, index, scale)

    def _on_visit(self, client: viser.ClientHandle) -> None:
        client.camera.on_update(self._on_move)

    def _look_through(self, index: int) -> None:
        """Hide the frusta while someone looks through a camera: its photo and its neighbours would cover the scene."""
        if self.frusta:
            self.looked_through = index
            self._show_frusta(False)

    def _show_frusta(self, visible: bool) -> None:
        for frustum in self.frusta:
            frustum.visible = visible

    def _on_move(self, camera: viser.CameraHandle) -> None:
        """Bring the frusta back once the visitor has left the camera."""
        if self.looked_through is None or self.looked_through >= len(self.frusta):
            return
        left_at = np.asarray(self.frusta[self.looked_through].position)
        if np.linalg.norm(np.asarray(camera.position) - left_at) > self.frustum_side:
            self.looked_through = None
            self._show_frusta(self.frusta_shown)

    def _set_first_view(self, cameras: Cameras, scale: float) -> None:
        position, look_at, up = _gaze(cameras, 0, scale)
        first = self.server.initial_camera
        first.position, first.look_at, first.up = position, look_at, up
        first.fov = _vertical_fov(cameras, 0)
        first.near, first.far = 0.01 * SHOWN_DISTANCE / 10.0, 1000.0 * SHOWN_DISTANCE

    def _add_controls(self, scene: Scene, arrays: SplatArrays, splats: viser.GaussianSplatHandle) -> None:
        gui = self.server.gui
        name = Path(str(scene.provenance.get("folder", "scene"))).name
        gui.add_markdown(f"**{name}** · {len(scene.gaussians):,} Gaussians · {len(self.frusta)} cameras")
        show_splats = gui.add_checkbox("Splats", initial_value=True)
        opacity = gui.add_slider("Hide fainter than", min=0.0, max=0.95, step=0.01, initial_value=0.0)
        show_splats.on_update(lambda _: setattr(splats, "visible", show_splats.value))

        def filter_splats(_: object) -> None:
            kept = arrays.above(opacity.value)
            splats.set_gaussians(kept.centers, kept.covariances, kept.rgbs, kept.opacities)

        opacity.on_update(filter_splats)
        if not self.frusta:
            return
        show_cameras = gui.add_checkbox("Cameras", initial_value=True)
        size = gui.add_slider("Camera size", min=0.05, max=3.0, step=0.05, initial_value=1.0)
        usual = self.frustum_side

        def update_cameras(_: object) -> None:
            for frustum in self.frusta:
                frustum.scale = usual * size.value
            self.frusta_shown, self.frustum_side, self.looked_through = show_cameras.value, usual * size.value, None
            self._show_frusta(show_cameras.value)

        show_cameras.on_update(update_cameras)
        size.on_update(update_cameras)
        gui.add_markdown("Step back to see the cameras; click one to look through it.")


def frustum_size(cameras: Cameras, scale: float) -> float:
    """Choose a frustum size that neither hides the scene nor its neighbours, in shown units."""
    centers = cameras.centers_world * scale
    if len(cameras) < 2:
        return 0.08 * SHOWN_DISTANCE
    apart = torch.cdist(centers, centers) + torch.eye(len(cameras)) * 1e9
    return float((0.4 * apart.min(dim=1).values.median()).clamp(0.01 * SHOWN_DISTANCE, 0.12 * SHOWN_DISTANCE))


def _vertical_fov(cameras: Cameras, index: int) -> float:
    return float(2.0 * torch.atan(cameras.height[index] / (2.0 * cameras.K[index, 1, 1])))


def _gaze(cameras: Cameras, index: int, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position, point looked at and up vector of a camera, in shown units."""
    T_world_cam = cameras.T_world_cam[index].double().numpy()
    position = T_world_cam[:3, 3] * scale
    return position, position + T_world_cam[:3, 2] * SHOWN_DISTANCE, -T_world_cam[:3, 1]


def _jump(client: viser.ClientHandle, cameras: Cameras, index: int, scale: float) -> None:
    """Take a visitor to a camera."""
    position, look_at, up = _gaze(cameras, index, scale)
    with client.atomic():
        client.camera.up_direction = up
        client.camera.position = position
        client.camera.look_at = look_at
        client.camera.fov = _vertical_fov(cameras, index)


def view_forever(scene: Scene, *, port: int, rasterizer: Rasterizer | None, say: Callable[[str], None]) -> None:
    """Serve a scene until interrupted; ``say`` is told the address."""
    viewer = SceneViewer(port=port, rasterizer=rasterizer)
    try:
        viewer.show(scene)
        say(f"Viewer: {viewer.url}  (Ctrl-C stops it)")
        while True:
            time.sleep(3600)
    finally:
        viewer.stop()
