"""A scene as one HTML file: opens by double click, offline, with mouse and touch.

Input: a ``Scene``. Output: a file that holds the viewer and the Gaussians.
Does not: load anything from elsewhere, or show view-dependent colour: viser's own client, which the page is made of, draws
SH degree 0. The page starts where the first camera stood.
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from recon.files import atomic_path
from recon.formats.registry import cut_sh
from recon.formats.self_check import cameras_around
from recon.records import Scene

from .console import format_bytes, say
from .scene_files import median_distance, placed_cameras
from .viewing.splats import SHOWN_DISTANCE, splat_arrays

MOST_COMFORTABLE = 1_000_000
"""More Gaussians than this make a phone's browser stop."""


def page_of(scene: Scene) -> str:
    """Build the page with viser's serialiser; its server runs on 127.0.0.1 for a moment and is not connected to."""
    import viser

    scale = SHOWN_DISTANCE / median_distance(scene)
    placed = placed_cameras(scene)
    cameras = cameras_around(scene.gaussians) if placed is None else placed
    arrays = splat_arrays(cut_sh(scene.gaussians, 0), scale)
    T_world_cam = cameras.T_world_cam[0].double().numpy()
    with redirect_stdout(io.StringIO()):  # viser announces itself on stdout, which belongs to results
        server = viser.ViserServer(host="127.0.0.1", port=0, label="recon", verbose=False)
        try:
            server.scene.set_up_direction("-y")
            server.scene.configure_default_lights(enabled=False)
            server.scene.add_gaussian_splats(
                "/splats", arrays.centers, arrays.covariances, rgbs=arrays.rgbs, opacities=arrays.opacities
            )
            first = server.initial_camera
            first.position = T_world_cam[:3, 3] * scale
            first.look_at = first.position + T_world_cam[:3, 2] * SHOWN_DISTANCE
            first.up = -T_world_cam[:3, 1]
            return server.scene.as_html(dark_mode=True)
        finally:
            server.stop()


def export_html(scene: Scene, path: Path) -> dict[str, Any]:
    """Write the page; returns what can be said about it."""
    page = page_of(scene)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    count, size = len(scene.gaussians), path.stat().st_size
    losses = []
    if scene.gaussians.sh_degree:
        losses.append(f"view-dependent colour (SH degree {scene.gaussians.sh_degree}) is not shown by the page")
    if count > MOST_COMFORTABLE:
        losses.append(f"{count:,} Gaussians are many for a browser; --max-gaussians {MOST_COMFORTABLE} keeps it smooth")
    say(f"{path}: {count:,} Gaussians, {format_bytes(size)}; open it with a double click")
    for loss in losses:
        say(f"Note: {loss}.")
    return {"file": str(path), "format": "html", "count": count, "bytes": size, "losses": losses}
